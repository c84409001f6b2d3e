# `make help` lists what can be made. Set-up is part of each target and happens once: scripts/setup.sh does it.
RANKS ?= 16
ARGS ?=
PYTHON ?= python3
export PYTHON

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# MPI as root and with more ranks than cores: Open MPI 4, then Open MPI 5; MPICH asks for nothing and ignores these
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
export OMPI_MCA_rmaps_base_oversubscribe := 1
export OMPI_MCA_mpi_yield_when_idle := 1
export PRTE_MCA_rmaps_default_mapping_policy := :oversubscribe
# Open MPI 5 otherwise prints "Unable to find reachable pairing" for each pair of ranks on some hosts, AWS among them
export OMPI_MCA_reachable := weighted

# The stamps' names change with the machine's MPI, HDF5 and Python, so that other modules mean another set-up.
machine := $(shell scripts/setup.sh fingerprint)
ready := .venv/.run-$(machine)
ready_to_test := .venv/.test-$(machine)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

.PHONY: run
run: $(ready) ## trains the default recipe with RANKS=16 ranks; ARGS="..." adds options, see python -m ddhpc --help
	mpirun -n $(RANKS) python -m ddhpc $(ARGS)
	@echo 'to go on without make: . .venv/bin/activate'

$(ready): scripts/setup.sh setup.cfg
	@scripts/setup.sh run

$(ready_to_test): scripts/setup.sh setup.cfg
	@scripts/setup.sh test

.PHONY: check
check: lint test-fast ## style, types, import rules and the fast tests, before every commit

all_tests := lint test-jobs $(if $(wildcard tests/mpi),test-mpi) \
  $(if $(wildcard tests/jobs/test_default_recipe.py),test-recipe) test-shell
.PHONY: test
test: $(all_tests) ## everything: style, types, fast tests, whole jobs also on a Slurm cluster, 16 ranks, shell scripts
	@echo "ddhpc: all tests passed"

check test test-fast test-jobs test-mpi test-recipe: export OMP_NUM_THREADS ?= 1
# jobs side by side would else be bound to the same core
test-jobs: export OMPI_MCA_hwloc_base_binding_policy := none
test-jobs: export PRTE_MCA_hwloc_default_binding_policy := none

.PHONY: lint
lint: $(ready_to_test)
	ruff check
	ruff format --check
	mypy
	lint-imports

.PHONY: test-fast
test-fast: $(ready_to_test)
	pytest -q -n 2 --dist loadfile -m "not slow" --ignore=tests/mpi --ignore=tests/slurm

.PHONY: test-jobs
test-jobs: $(ready_to_test) ## the fast tests, and those that start jobs of their own, several at once
	pytest -n 4 --durations 15 --dist loadfile --no-loadscope-reorder --ignore=tests/mpi --ignore=tests/jobs/test_default_recipe.py $(cov)

.PHONY: coverage
coverage: cov := --cov
coverage: test-jobs ## the same, and which lines they reach

.PHONY: test-mpi
test-mpi: $(ready_to_test) ## the MPI tests with 1, 3 and 4 ranks
	for ranks in 1 3 4; do scripts/mpi-pytest.sh $$ranks tests/mpi; done

.PHONY: test-recipe
test-recipe: $(ready_to_test) ## the default recipe with 16 ranks
	timeout -k 30 1200 pytest tests/jobs/test_default_recipe.py

shell_scripts := $(wildcard scripts/*.sh slurm/*.sh slurm/*.sbatch cluster/* containers/*.sh .ci/run)
.PHONY: test-shell
test-shell: $(ready_to_test)
	for script in $(shell_scripts); do bash -n $$script; done
	if command -v shellcheck; then shellcheck $(shell_scripts); else echo "shellcheck is not installed: skipped"; fi

.PHONY: bare
SUITE ?= bookworm
bare: ## set-up and a short training in a bare Debian, SUITE=bookworm or trixie, as root: ten minutes, not part of `make test`
	containers/bare.sh $(SUITE) .cache/bare-$(SUITE) --local.epochs 1 --coarse.epochs 2

.PHONY: docs
docs: $(ready) ## the documents as a site, links checked: site/index.html
	python -c 'import zensical, latex2mathml' 2>/dev/null || python -m pip install -q -e '.[docs]'
	python scripts/pages.py build/site
	rm -rf site
	zensical build --strict

.PHONY: clean
clean: ## removes .venv and all that was built; keeps runs/
	rm -rf .venv .cache build dist site *.egg-info .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
