# Everything in a virtual environment of the project's own; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-lowest lint docs clean

demo: $(VENV)/demo
	$(BIN)/eplb-np plan --replicas 288 --gpus 32 --nodes 4 --groups 8

test: lint docs
	NUMBA_DISABLE_JIT=1 $(BIN)/coverage run -m pytest -q
	$(BIN)/coverage report
	$(BIN)/python -m pytest

test-slow: $(VENV)/test
	$(BIN)/python -m pytest -m 'slow or not slow'

# The oldest dependencies that pyproject.toml allows.
test-lowest:
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/pip install -q 'numpy==1.26.*' 'numba==0.60.*' -e '.[test]'
	$(VENV)-lowest/bin/python -m pytest -q

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/docs
	$(BIN)/sphinx-build -W -q --keep-going -b html docs docs/_build/html

$(VENV)/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	touch $@

# A stamp for each set of extras, made again when pyproject.toml changes.
$(VENV)/demo: $(VENV)/pip pyproject.toml
	$(BIN)/pip install -q -e '.[cli]'
	touch $@

$(VENV)/test: $(VENV)/pip pyproject.toml
	$(BIN)/pip install -q -e '.[test]'
	touch $@

$(VENV)/docs: $(VENV)/test pyproject.toml
	$(BIN)/pip install -q -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-lowest docs/_build
