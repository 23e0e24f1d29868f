# One command for each check. `make demo` and `make test` need Python 3.11 to 3.13, and make their
# environment on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The lowest versions that pyproject.toml states are those of Python 3.11, the lowest of its kind.
LOWEST := .venv-lowest
LOWEST_PYTHON ?= python3.11
TESTS ?= tests
# A fresh, complete and strict build: a warning or an unknown reference is an error.
SPHINX := -m sphinx --fresh-env --fail-on-warning --keep-going --nitpicky --quiet docs

.PHONY: demo test test-lowest lint docs docs-lowest check wheels install clean

demo: $(VENV)/demo.stamp
	$(BIN)/convnextv2 demo

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n auto --dist worksteal $(TESTS)

test-lowest: $(LOWEST)/dev.stamp
	$(LOWEST)/bin/python -m pytest -n auto --dist worksteal $(TESTS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/docs.stamp
	$(BIN)/python $(SPHINX) docs/_build/html
	@echo "Open docs/_build/html/index.html"

docs-lowest: $(LOWEST)/dev.stamp
	$(LOWEST)/bin/python $(SPHINX) docs/_build/lowest

check: lint test docs

# The source, a wheel of Python alone, and one for this machine that carries the compiled kernels.
wheels: $(VENV)/wheels.stamp
	rm -rf build/kernels build/wheels
	$(BIN)/python scripts/bundle_kernels.py build/kernels
	$(BIN)/python -m build --outdir dist
	CONVNEXTV2_BUNDLE=build/kernels $(BIN)/python -m build --wheel --outdir build/wheels
	PATH=$(CURDIR)/$(BIN):$$PATH auditwheel repair --exclude libgomp.so.1 -w dist build/wheels/*.whl

install: $(VENV)/dev.stamp

$(VENV)/demo.stamp: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/dev.stamp: $(VENV)/demo.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

$(VENV)/docs.stamp: $(VENV)/demo.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

$(VENV)/wheels.stamp: $(VENV)/demo.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[wheels]'
	touch $@

$(LOWEST)/dev.stamp: pyproject.toml tests/lowest.txt
	test -x $(LOWEST)/bin/python || $(LOWEST_PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c tests/lowest.txt \
	    -e '.[dev,benchmarks,docs]'
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) build dist docs/_build docs/reference *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
