# Everything sets up what it needs: `make demo` or `make test` is all a fresh clone takes.
PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Small models on a few processes: more threads inside each only get in each other's way.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs property mutants bench zoo faults huge models clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.ready  ## fold a trained pre-activation ResNet, check it and time it
	mkdir -p demo
	$(BIN)/bnfold convert models/preact_resnet.pt --arch models/architectures.py:preact_resnet -o demo/preact_resnet.onnx --force --bench --threads 1

test: $(VENV)/.ready-test  ## all tests, on JOBS=2 processes
	$(BIN)/python -m pytest -n $(JOBS)

lint: $(VENV)/.ready-test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict

docs: $(VENV)/.ready-docs  ## the documentation as a site, in docs/_build; any warning is an error
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

property: $(VENV)/.ready-test  ## the property tests with 20 times as many random graphs
	BNFOLD_EXAMPLES=$${BNFOLD_EXAMPLES:-20} $(BIN)/python -m pytest -n $(JOBS) tests/test_property.py

mutants: $(VENV)/.ready-test  ## break the source one line at a time; the tests must notice
	$(BIN)/python scripts/mutants.py

bench: $(VENV)/.ready-test  ## time the folding itself; writes docs/benchmarks.md
	$(BIN)/python scripts/bench_fold.py

zoo: $(VENV)/.ready-test  ## fold real architectures with bnfold and with other tools; writes docs/zoo.md
	$(PIP) -e '.[zoo]'
	$(BIN)/python scripts/zoo.py

faults: $(VENV)/.ready-test  ## put faults into every writer; writes docs/reliability.md
	$(BIN)/python scripts/faults.py

huge: $(VENV)/.ready-test  ## convert a model of 3.5 GB and measure its memory; writes docs/reliability.md
	$(BIN)/python scripts/huge.py

models: $(VENV)/.ready-test  ## train models/ again
	$(BIN)/python scripts/train_models.py

clean:  ## remove the virtual environment, caches and the demo's output
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing bnfold into $(VENV); torch is large, so the first time takes minutes."
	$(PIP) -e .
	@touch $@

$(VENV)/.ready-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing bnfold and its test tools into $(VENV); torch is large, so the first time takes minutes."
	$(PIP) -e '.[test]'
	@touch $(VENV)/.ready $@

$(VENV)/.ready-docs: $(VENV)/.ready-test
	$(PIP) -e '.[docs]'
	@touch $@
