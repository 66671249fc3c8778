# Every target works from a fresh clone; paths are relative, so the clone's path may contain spaces.
PYTHON ?= python3
UV_VERSION := 0.13.9
PY := .venv/bin/python
UV := $(PY) -m uv
SETUP := .venv/.stamp
HYDRA14 := .cache/hydra14
LOWEST := .cache/lowest
FLOWER := .cache/flower
TESTS := tests/test_cli.py $(addprefix tests/test_config.py::, \
  test_every_experiment_passes test_debug_modes_and_trainers_pass test_all_mistakes_are_told_at_once \
  test_wrong_keys_are_told test_what_is_allowed_passes test_a_mistake_behind_a_reference_is_told_once \
  test_a_reference_that_leads_nowhere test_a_misspelt_key_in_an_experiment_is_found \
  test_a_renamed_key_is_told_by_its_new_name) \
  tests/test_sweep.py::test_an_experiment_that_is_a_sweep_takes_lists_of_values \
  tests/stacked/test_stacked_sweep.py::test_a_stacked_sweep_leaves_what_the_jobs_leave_one_by_one
PARALLEL := -n logical --maxprocesses 4 --dist loadfile
FAST := -m "not slow and not real_data"

# Where this is set, every Python process would compile torch's sources again: seconds, each time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-hydra14 test-lowest chaos fuzz calibrate flower lint format lock docs bench bench-regression clean

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1@/p' Makefile | awk -F@ '{ printf "  make %-17s %s\n", $$1, $$2 }'

setup: $(SETUP) ## the environment in .venv, with exactly the packages of requirements.lock

$(SETUP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo 'Graft needs Python 3.10 or newer; "$(PYTHON)" is not one. Name another: make setup PYTHON=python3.12'; exit 1; }
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(UV) pip install --quiet --python $(PY) --no-deps --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation -e .
	@touch $@

demo: $(SETUP) ## pretrain on rendered digits, fine-tune on 10 handwritten ones a class, test
	$(PY) train.py experiment=resnet_ft

test: $(SETUP) ## the fast tests, which CI runs, on up to four cores
	$(PY) -m pytest $(PARALLEL) $(FAST)

test-all: $(SETUP) ## slow tests and those on real data (GRAFT_DATA) too
	$(PY) -m pytest $(PARALLEL)

test-hydra14: $(HYDRA14)/.stamp ## tests of configs and the command line on the next Hydra, in CI; all: make test-hydra14 TESTS=tests
	PYTHONPATH="$(CURDIR)/src:$(CURDIR)/$(HYDRA14)" $(PY) -m pytest $(PARALLEL) --dist load $(FAST) $(TESTS)

test-lowest: $(LOWEST)/.stamp ## tests of configs on the lowest versions that pyproject.toml allows
	PYTHONPATH="$(CURDIR)/src" $(LOWEST)/bin/python -m pytest $(FAST) -o filterwarnings=default \
	  tests/test_config.py tests/test_configs.py

chaos: $(SETUP) ## kill and resume runs in 300 ways, into logs/chaos/; the same command goes on where it was
	PYTHONPATH="$(CURDIR)/src:$(CURDIR)" $(PY) -m tests.proof.chaos $(ARGUMENTS)

fuzz: $(SETUP) ## train or refuse 500 random configurations; the seed is printed: ARGUMENTS="--seed 1"
	PYTHONPATH="$(CURDIR)/src:$(CURDIR)" $(PY) -m tests.proof.fuzz $(ARGUMENTS)

calibrate: $(SETUP) ## how often a report's intervals and claims are right, on 4,000 sweeps a cell, into logs/calibrate/
	OMP_NUM_THREADS=1 PYTHONPATH="$(CURDIR)/src:$(CURDIR)" $(PY) -m tests.proof.calibrate $(ARGUMENTS)

$(HYDRA14)/.stamp: $(SETUP)
	$(UV) pip install --quiet --python $(PY) --target $(HYDRA14) --no-deps --prerelease allow \
	  hydra-core==1.4.0rc3 omegaconf==2.4.1rc1
	@touch $@

$(LOWEST)/.stamp: $(SETUP)
	$(UV) venv --quiet --python $(PY) $(LOWEST)
	$(UV) pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct -e '.[dev,sweep]'
	@touch $@

flower: $(FLOWER)/.stamp ## Flower, which `graft federate` sends messages by, in an environment of its own; Python 3.11 or newer

$(FLOWER)/.stamp: $(SETUP)
	$(UV) venv --quiet --python $(PY) $(FLOWER)
	$(UV) pip install --quiet --python $(FLOWER)/bin/python flwr==1.42.0
	@touch $@

lint: $(SETUP) ## ruff's checks and formatting, and mypy's types; changes nothing
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(SETUP) ## let ruff fix and format the code
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

lock: $(SETUP) ## write requirements.lock from pyproject.toml
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.10 \
	  --custom-compile-command "make lock" --extra dev --extra docs --extra sweep --extra peft --group files \
	  --upgrade --output-file requirements.lock pyproject.toml

docs: $(SETUP) ## build the documentation into build/docs; a broken link or any other warning is an error
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict -f docs/site/mkdocs.yml

bench: $(SETUP) ## measure speed and memory beside bare loops and other libraries, into logs/bench/
	$(PY) -m benchmarks $(ARGUMENTS)

bench-regression: $(SETUP) ## a few of its ratios against those on record: warns, and fails, where one is 1.3 times worse
	$(PY) -m benchmarks.regression

clean: ## remove the environment, caches and build files; logs/ stays
	rm -rf .venv .cache .pytest_cache .ruff_cache .mypy_cache build dist src/*.egg-info
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
