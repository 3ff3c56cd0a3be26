# Two commands: "make demo" and "make test" do all set-up themselves.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# State and models of the demo, the tests and the benchmarks; never the user's own.
export RETINUE_HOME ?= $(CURDIR)/.cache/home
export RETINUE_CACHE ?= $(CURDIR)/.cache/models
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PULL := $(BIN)/retinue models pull

.PHONY: help demo test lint format bench docs lock system clean

help: ## Show this help
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: $(VENV)/.core ## Set up, pull the default models, detect on real photos, write demo/index.html
	@$(BIN)/python examples/demo.py demo

test: $(VENV)/.dev system lint ## Set up and run all checks and tests
	@# Bytecode is kept whatever the environment says: many processes import the same modules.
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist worksteal

lint: $(VENV)/.dev ## Style, types, and the contract of the floors
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(VENV)/.dev ## Run the measurements (slow; uses ../shared/data where present)
	$(BIN)/python benchmarks/run.py

docs: $(VENV)/.dev ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lock: $(VENV)/.dev ## Make the lock files anew
	$(PIP_INSTALL) uv
	$(BIN)/uv pip compile $(LOCK) -o requirements.lock pyproject.toml --group build
	$(BIN)/uv pip compile $(LOCK) -o requirements-dev.lock -c requirements.lock pyproject.toml \
	  --extra ar --extra ar-cpu --extra openvino --extra quantize --extra measure \
	  --extra postgresql --extra milvus --extra parquet --extra redis --extra s3 --group build --group dev
LOCK := --quiet --upgrade --universal --generate-hashes --no-header --python-version 3.11

system: ## Install the missing Debian packages of system-packages.txt
	@sh scripts/system-packages.sh $$(sed -E 's/#.*//' system-packages.txt)

clean: ## Remove what make made
	rm -rf $(VENV) .cache build demo site

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || sh scripts/system-packages.sh python3-venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP_INSTALL) --require-hashes -r requirements.lock
	$(PIP_INSTALL) --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.core
	$(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@
