# Every target is what a person types; `make help` lists them. Nothing here needs more than Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
# Bytecode once, at installation: without it every process compiles everything it imports (README of requirements/).
unexport PYTHONDONTWRITEBYTECODE
# The machine's own certificates, as pip uses them: behind a company's proxy nothing else works.
export UV_SYSTEM_CERTS = 1
# The packages install from the lock files alone; a registry address, if any, is the machine's own setting.
SYNC := $(UV) pip sync --quiet --compile-bytecode --require-hashes --python $(BIN)/python
EDITABLE := $(UV) pip install --quiet --no-deps --no-build-isolation --compile-bytecode --python $(BIN)/python --editable .

.DEFAULT_GOAL := help
.PHONY: help install install-dev lock demo up down test test-e2e test-faults test-trino install-trino bench-load bench-merge bench-olap bench-engines bench-fleet lint format typecheck sync check-sync deploy dbt-parse validate dev clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

$(UV): requirements/installer.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Mozart needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/installer.txt
	@touch $@

$(VENV)/.runtime: requirements/runtime.txt pyproject.toml $(UV)
	@echo "Installing Mozart into $(VENV) ..."
	@test -e $(VENV)/.dev || $(SYNC) requirements/installer.txt requirements/runtime.txt
	@$(EDITABLE)
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml $(UV)
	@echo "Installing Mozart and its development tools into $(VENV) ..."
	@$(SYNC) requirements/installer.txt requirements/dev.txt
	@$(EDITABLE)
	@touch $@ $(VENV)/.runtime

install: $(VENV)/.runtime ## Install what Mozart needs to run into .venv

install-dev: $(VENV)/.dev ## Install the tools for tests, lint and types as well

COMPILE := $(UV) pip compile --quiet --python-version 3.11 --universal --generate-hashes --no-emit-index-url --no-header --no-annotate
lock: $(UV) ## Write the lock files from pyproject.toml
	@$(COMPILE) --extra build pyproject.toml -o requirements/runtime.txt
	@$(COMPILE) --extra build --extra dev -c requirements/runtime.txt pyproject.toml -o requirements/dev.txt
	@$(COMPILE) --extra build --extra trino -c requirements/runtime.txt pyproject.toml -o requirements/trino.txt
	@$(COMPILE) --extra build --extra bench -c requirements/runtime.txt pyproject.toml -o requirements/bench.txt

up: install ## Start the local stack
	@$(BIN)/mozart up

down: ## Stop everything the local stack started
	@if [ -x $(BIN)/mozart ]; then $(BIN)/mozart down; fi

demo: install ## From an empty machine to a tenant's marts, and an incremental run
	@$(BIN)/mozart demo

WORKERS ?= 2
test: install-dev ## Unit, contract and integration tests on real servers, started by the tests (WORKERS=1: one after the other)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile tests/unit tests/contract tests/integration

test-e2e: install-dev ## The whole stack as an operator uses it: killed workers, broken models, branches, tenants that leave
	@$(BIN)/python -m pytest tests/e2e
	@$(BIN)/python -m pytest tests/fleet

FAULTS ?= --faults-all --faults-seconds 300
test-faults: install-dev ## Kills, lost replies, full disks, two loaders at once: the long form (FAULTS= for the short one)
	@$(BIN)/python -m pytest tests/faults $(FAULTS)

install-trino: install-dev ## Install Trino's Java, and fetch its server once from Maven Central (needs mvn)
	@$(UV) pip install --quiet --compile-bytecode --require-hashes --python $(BIN)/python -r requirements/trino.txt
	@$(BIN)/python -m mozart.services.trino_download

test-trino: install-trino ## The same models and tables on a real Trino
	@$(BIN)/python -m pytest tests/trino

BENCH := .venv-bench
$(BENCH)/.ready: requirements/bench.txt pyproject.toml $(UV)
	@echo "Installing Mozart and its rivals into $(BENCH) ..."
	@test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	@$(UV) pip sync --quiet --compile-bytecode --require-hashes --python $(BENCH)/bin/python requirements/installer.txt requirements/bench.txt
	@$(UV) pip install --quiet --no-deps --no-build-isolation --compile-bytecode --python $(BENCH)/bin/python --editable .
	@touch $@

bench-load: install-dev $(BENCH)/.ready ## Source to committed Iceberg against COPY, dlt and pandas (ARGS="--rows 300000" for a quick look)
	@$(BIN)/python -m benchmarks.bench_load --rivals $(BENCH)/bin/python $(ARGS)

bench-merge: install-dev ## Merges of 1k and 100k changes against pyiceberg's upsert (ARGS="--sizes 200000 500000 1000000")
	@$(BIN)/python -m benchmarks.bench_merge $(ARGS)

bench-olap: install-dev ## Views kept fresh by increments against REFRESH, from event to fresh view (ARGS="--scale 1")
	@$(BIN)/python -m benchmarks.bench_olap $(ARGS)

bench-engines: install-trino ## The sample marts on DuckDB and on Trino at 1, 10 and 50 times the data (ARGS="--scales 1 10")
	@$(BIN)/python -m benchmarks.bench_engines $(ARGS)

bench-fleet: install-dev ## What 100 and 1,000 tenants cost the commands and Trino's files (ARGS="--tenants 10000")
	@$(BIN)/python -m benchmarks.bench_fleet $(ARGS)

lint: install-dev ## Format, lint, types, import direction and repository rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright
	@$(BIN)/python -m pytest -q tests/unit/rules

format: install-dev ## Rewrite the code in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

sync: install ## Write prefect.yaml and dbt/PRODUCT_SCHEMA.md
	@$(BIN)/mozart sync

dbt-parse: sync ## Sync, then parse the models of all tenants (TENANT=acme for one)
	@$(BIN)/mozart validate --parse-only $(TENANT)

validate: install ## Check generated files, tenants, models and definitions (TENANT=acme for one)
	@$(BIN)/mozart validate $(TENANT)

dev: dbt-parse ## Sync, parse, then start the server and the workers
	@$(BIN)/mozart up

deploy: install ## Apply deployments, blocks, limits and automations to Prefect
	@$(BIN)/mozart deploy

check-sync: install ## Fail if a generated file is not what it is generated from
	@$(BIN)/mozart sync --check

clean: down ## Remove the local state and the environments
	rm -rf .mozart $(VENV)
