"""eckart: clip these matrices, score this task, record the trial."""
