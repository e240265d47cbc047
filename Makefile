# Everything in a virtual environment of the project's own; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-lowest lint docs bench dashboard regressions bench-check clean
.PHONY: test-lowest-some test-dist

demo: $(VENV)/demo
	$(BIN)/eplb-np plan --gpus 32 --nodes 4 --groups 8

# Kernels as Python, where coverage sees into them and bad indices are errors, then compiled.
PARALLEL := -n auto --maxprocesses 8
test: lint docs bench-check test-lowest-some
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -q $(PARALLEL) --cov \
		-m 'not slow and not same_without_jit'
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: $(VENV)/test
	$(BIN)/python -m pytest $(PARALLEL) -m 'slow or not slow'

# The oldest NumPy and Numba that pyproject.toml allows. `make test` has minutes for them, so it takes
# the tests that depend on either: what compiles every room's kernels, caches them, starts threads
# and simulates a GPU; pickles and arrays in files; and the golden plans.
LOWEST := $(VENV)-lowest
SOME := tests/whole_package/test_golden.py tests/whole_package/test_import.py tests/_numba \
	tests/_files/test_pickles.py tests/io/test_plain_formats.py tests/cuda/test_cuda.py \
	tests/cuda/test_simulator.py tests/stages/test_simd.py tests/stages/test_sorting.py \
	tests/test_metrics.py tests/test_plan.py tests/test_published.py tests/test_rebalancer.py
test-lowest-some: $(LOWEST)/some
	$(LOWEST)/bin/python -m pytest -q $(PARALLEL) $(SOME)

test-lowest: $(LOWEST)/test
	$(LOWEST)/bin/python -m pytest -q $(PARALLEL)

# What a release ships: built, checked, and tested from the source archive alone and as installed.
test-dist:
	PYTHON=$(PYTHON) tests/whole_package/dist.sh

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
	$(BIN)/python asv_benchmarks/tools/finish_dashboard.py
	$(BIN)/python asv_benchmarks/tools/check_dashboard.py

# A line for each figure that has become worse; fails if there is one.
regressions: $(VENV)/bench
	@$(BIN)/python asv_benchmarks/tools/regressions.py

# That every benchmark still works, on the code as it is. The times it prints mean nothing.
bench-check: $(VENV)/bench
	cd asv_benchmarks && ../$(BIN)/asv check --python=same
	$(BIN)/python asv_benchmarks/check_benchmarks.py

$(VENV)/pip $(LOWEST)/pip: %/pip:
	$(PYTHON) -m venv $*
	$*/bin/pip install -q --upgrade pip
	touch $@

# A stamp for each set of extras, made again when pyproject.toml changes.
$(VENV)/demo: $(VENV)/pip pyproject.toml
	$(BIN)/pip install -q -e '.[cli]'
	touch $@

$(VENV)/test: $(VENV)/pip pyproject.toml
	$(BIN)/pip install -q -e '.[test]'
	touch $@

$(LOWEST)/some: $(LOWEST)/pip pyproject.toml tests/lowest.txt
	$(LOWEST)/bin/pip install -q -r tests/lowest.txt -e . hypothesis pytest pytest-xdist sybil
	touch $@

$(LOWEST)/test: $(LOWEST)/pip pyproject.toml tests/lowest.txt
	$(LOWEST)/bin/pip install -q -r tests/lowest.txt -e '.[test]'
	touch $@

$(VENV)/docs: $(VENV)/test pyproject.toml
	$(BIN)/pip install -q -e '.[docs]'
	touch $@

$(VENV)/bench: $(VENV)/pip pyproject.toml
	$(BIN)/pip install -q -e '.[bench]'
	test -f ~/.asv-machine.json || (cd asv_benchmarks && ../$(BIN)/asv machine --yes >/dev/null)
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) docs/_build asv_benchmarks/env asv_benchmarks/html
