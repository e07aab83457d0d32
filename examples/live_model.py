"""A model in memory, clipped while a block runs, and as it was afterwards.

python examples/live_model.py MODEL "the food was"
"""

import sys

import transformers

import eckart

name, prompt = sys.argv[1:]
model = transformers.AutoModelForCausalLM.from_pretrained(name).eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(name)
inputs = tokenizer(prompt, return_tensors="pt")


def greedy() -> str:
    tokens = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    return str(tokenizer.decode(tokens[0], skip_special_tokens=True))


before = greedy()
with eckart.clip(model, eckart.Edit(layer=-1, part="mlp", rate=0.9)):
    print("clipped: ", greedy())
print("unpruned:", before)
assert greedy() == before, "every byte came back"
