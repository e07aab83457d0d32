"""A CSV in, a better model out, if there is one: a search on your rows, and the chosen model as a
folder.

python examples/better_model.py MODEL reviews.csv review verdict better-model
"""

import sys

import eckart

model, table, text, label, out = sys.argv[1:]
task = eckart.Task.load(data=table, text_column=text, label_column=label, shots=4)
result = eckart.search(model, task, part="mlp", rates=[0.5, 0.9], out=f"{out}-run")
print(result)
if result.edits:
    print("saved:", eckart.export(result, out, model, task).path)
else:
    print("no clipping does better on validation, so there is no other model to save")
