"""The paper's Figure 1 on your own model and rows: accuracy by layer and rate, as PNG, SVG and PDF,
and a page.

python examples/figure1.py MODEL reviews.csv review verdict figure1
"""

import sys

import eckart

model, table, text, label, out = sys.argv[1:]
task = eckart.Task.load(data=table, text_column=text, label_column=label, shots=4)
grid = eckart.sweep(
    model, task, layers=None, parts=["attn", "mlp"], rates=[0.5, 0.9], test="selected", out=out
)
print(grid.verdict())
print("page:", eckart.report(out, figures=f"{out}/figures"))
