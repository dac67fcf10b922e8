# mailcordon: what one can do here. `make help` lists it.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-cluster test-faults lint bench schemas lock clean

help: ## list what one can do here
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) ## make the virtual environment from the hashed lock

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mailcordon needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 3; }
	@$(PYTHON) -m venv --help >/dev/null 2>&1 || { echo "Python's venv module is missing (Debian, Ubuntu: apt install python3-venv)"; exit 3; }
	@echo "making $(VENV) (about 90 packages, once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

demo: setup ## watch a bad campaign being isolated while a good one goes on (DEMO_ARGS="--exit --report FILE")
	@$(BIN)/mailcordon demo $(DEMO_ARGS)

test: setup ## everything that needs no cluster, on a real Kafka
	@$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal $(TEST_ARGS)

test-cluster: setup ## what needs Kubernetes: on a control plane built from source, or the cluster of KUBECONFIG
	@test -n "$${MAILCORDON_TEST_KUBECONFIG:-$$KUBECONFIG}" || $(BIN)/python -m tests.control_plane.build >/dev/null
	@$(BIN)/pytest -m cluster $(TEST_ARGS)

test-faults: setup ## the long matrix: kill, stall, rebalance of the stream runtime, and of the whole system
	@$(BIN)/pytest -m faults $(TEST_ARGS)

lint: setup ## ruff, mypy --strict, import direction
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

bench: setup ## every claim about speed, beside its baseline
	@for bench in benchmarks/[a-z]*.py; do echo "== $$bench"; $(BIN)/python $$bench --json || exit 1; done

schemas: setup ## write schemas/generated, the file map and the settings table anew
	@$(BIN)/python -m schemas.generate
	@$(BIN)/python -m tests.prose

lock: setup ## resolve the dependencies anew into the two hashed lock files
	@$(BIN)/pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-header pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-header --group dev pyproject.toml -c requirements.lock -o requirements-dev.lock

clean: ## remove what was made here (the cache folder stays: Kafka, mail servers, the control plane)
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build *.egg-info
