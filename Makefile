# Everything in a virtual environment of the project's own; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-lowest lint docs bench dashboard bench-check clean

demo: $(VENV)/demo
	$(BIN)/eplb-np plan --gpus 32 --nodes 4 --groups 8

# Kernels as Python, where coverage sees into them and bad indices are errors, then compiled.
PARALLEL := -n auto --maxprocesses 8
test: lint docs bench-check
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -q $(PARALLEL) --cov \
		-m 'not slow and not same_without_jit'
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: $(VENV)/test
	$(BIN)/python -m pytest $(PARALLEL) -m 'slow or not slow'

# The oldest dependencies that pyproject.toml allows.
test-lowest:
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/pip install -q 'numpy==1.26.*' 'numba==0.60.*' -e '.[test]'
	$(VENV)-lowest/bin/python -m pytest -q

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

docs: $(VENV)/docs
	$(BIN)/sphinx-build -W -q --keep-going -b html docs docs/_build/html

# Links to other sites. Needs a network, so it is not part of `make test`.
.PHONY: links
links: $(VENV)/docs
	$(BIN)/sphinx-build -q -b linkcheck docs docs/_build/links

# Benchmarks of the last N commits, each built anew, and the dashboard of all that were measured.
# What has been measured is not measured again. Commits that fail do not keep others from showing.
N ?= 5
bench: $(VENV)/bench
	cd asv_benchmarks && ../$(BIN)/asv run --skip-existing 'HEAD -n $(N)'; \
	status=$$?; cd .. && $(MAKE) dashboard && exit $$status

dashboard: $(VENV)/bench
	cd asv_benchmarks && ../$(BIN)/asv publish
	$(BIN)/python asv_benchmarks/tools/vendor_scripts.py
	$(BIN)/python asv_benchmarks/tools/check_dashboard.py

# That every benchmark still works, on the code as it is. The times it prints mean nothing.
bench-check: $(VENV)/bench
	cd asv_benchmarks && ../$(BIN)/asv check --python=same
	$(BIN)/python asv_benchmarks/check_benchmarks.py

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

$(VENV)/bench: $(VENV)/pip pyproject.toml
	$(BIN)/pip install -q -e '.[bench]'
	test -f ~/.asv-machine.json || (cd asv_benchmarks && ../$(BIN)/asv machine --yes >/dev/null)
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-lowest docs/_build asv_benchmarks/env asv_benchmarks/html
