# make demo: set up, then Algorithm 1 end to end on the embedded model. make test: set up, then the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# What is imported is compiled once, when it first is: much of what is installed never is.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test types check docs format clean

demo: $(READY)
	$(BIN)/eckart demo

# One process a core, so one thread a process.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --dist worksteal

types: $(READY)
	$(BIN)/mypy

# Types beside the tests: mypy alone would leave every core but one idle.
check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --jobs=2 types test

# The site, in site/index.html, to be read without a network.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and pinned, so that nothing below asks for another build of it.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt torch
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) build dist site
