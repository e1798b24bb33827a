# Set-up and the main jobs. A second `make` of the same target installs nothing.
#   make table1     set everything up, then replicate Table 1 on the miniature
#   make test       set everything up, then the fast tests;  make test-all: the slow ones too
#   make test-gpu PYTHON=...   the tests that need a GPU, with the Python given, into which nothing is installed
#   make test-torch TORCH=2.6.0   what computes, with another torch in an environment of its own (old releases come with CUDA: 6 GB)
#   make campaigns  kill tiny runs and starve their disk, for an hour or more, and give every reader damaged files;  CAMPAIGN_ARGS='--count 1' for minutes
#   PYTHON=python3.12 make venv      another interpreter;  PROFILE=..., PYTEST_ARGS=..., VENV=... are passed on

PYTHON ?= python3
VENV ?= .venv
PROFILE ?= mini
PYTEST_ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq -c constraints.txt

KERNELS := $(VENV)/.kernels
# Drawn for its interpreter, on which the kernels' slow tests run where there is no GPU; a CUDA build of torch brings its own.
TRITON := triton==3.9.0

# The oldest that pyproject.toml allows.
TORCH ?= 2.6.0
OTHER := $(VENV)-torch-$(TORCH)

.PHONY: table1 reference picture campaigns test test-all test-gpu test-torch lint venv constraints

table1: $(STAMP)
	$(BIN)/replicate table1 --profile $(PROFILE)

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-all: $(STAMP) $(KERNELS)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Kills, full disks and clocks set back; hostile input (docs/reliability.md). Seeds are printed; CAMPAIGN_ARGS='--seed N --round R' repeats
# a round of kills, HOSTILE_ARGS='--seed N --only READER --case C' a case of hostile input.
CAMPAIGN_ARGS ?=
HOSTILE_ARGS ?=
campaigns: $(STAMP)
	$(BIN)/python tests/campaigns/hostile.py $(HOSTILE_ARGS)
	$(BIN)/python tests/campaigns/kill.py $(CAMPAIGN_ARGS)

test-gpu:
	PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON) -m pytest -m gpu -ra --durations=5 -p no:cacheprovider tests/gpu $(PYTEST_ARGS)

test-torch: $(OTHER)/.installed
	$(OTHER)/bin/python -c 'import torch; assert torch.__version__.split("+")[0] == "$(TORCH)", torch.__version__'
	$(OTHER)/bin/python -m pytest -m "not slow" tests/sarm $(PYTEST_ARGS)

# A torch pins some of what it needs itself: these are left to it.
$(OTHER)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(OTHER)
	@{ sed -E '/^(torch|sympy|triton)==/d' constraints.txt; echo 'torch==$(TORCH)'; } > $(OTHER)/constraints.txt
	$(OTHER)/bin/python -m pip --disable-pip-version-check install -qq -c $(OTHER)/constraints.txt torch==$(TORCH) hatchling editables setuptools
	$(OTHER)/bin/python -m pip --disable-pip-version-check install -qq -c $(OTHER)/constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks

venv: $(STAMP)

# torch comes first and pinned, so that no other package's range draws another build of it. The build backend is installed
# with it and used without isolation: a build environment of its own would not see constraints.txt.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; '$(PYTHON)' is missing or older. Run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "'$(PYTHON) -m venv' failed; install the venv package of your system (Debian: python3-venv)" >&2; exit 2; }
	@echo 'installing into $(VENV): torch, then the rest (minutes)'
	$(PIP) torch==2.13.0 hatchling editables
	$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@

# 0.3 GB to fetch, 1 GB installed, and nothing with it: it names no other package, torch's build stays as it is.
$(KERNELS): $(STAMP)
	@$(BIN)/python -c 'import triton' 2>/dev/null || $(PIP) --no-deps '$(TRITON)' \
	  || echo '$(TRITON) cannot be had here: the tests that run kernels in its interpreter are skipped'
	@touch $@

# What CI compares later runs with (docs/ci.md). Run it on a clean checkout, and again after a change that is meant to move numbers.
reference: $(STAMP)
	$(BIN)/replicate table1 --profile mini
	mkdir -p reference/mini
	cp tables/rendered/mini/table1.results.json reference/mini/

# The picture of the README, from the reference results.
picture: $(STAMP)
	$(BIN)/python docs/draw_table1.py

# What is installed now, pinned: run it after a change of pyproject.toml's dependencies, in a fresh virtual environment.
constraints: $(STAMP)
	@{ sed '/^[^#]/,$$d' constraints.txt; \
	   $(BIN)/python -m pip --disable-pip-version-check freeze --exclude-editable --exclude replicate-sarm --exclude triton | sed 's/+cpu$$//'; } > constraints.new
	@mv constraints.new constraints.txt
