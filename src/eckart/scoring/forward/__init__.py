"""Forward passes over the rows of a task: plain, padded, packed, and from the middle of the model
on."""
