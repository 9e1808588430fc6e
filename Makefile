# The commands that people need. `make` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BIN := .venv/bin
SOURCES := $(wildcard controlplane tests tools examples bench conftest.py)
STAMP := .venv/.installed
# One pytest worker per core, at most four (each may run a broker of its own), at least two (the tests wait more than they compute).
WORKERS ?= $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$(( cores > 4 ? 4 : cores < 2 ? 2 : cores )))
TESTS ?=
SEED ?=
UPGRADE ?=

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## Put everything into .venv, pinned and checked by hash; .venv/bin/controlplane is the command

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Expected Python 3.11 or newer, but $(PYTHON) is " + sys.version.split()[0] + ": make setup PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@deploy/install-locked $(BIN)/python requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

.PHONY: demo
demo: setup ## Profile Python's standard library: over 500 jobs, two runners, conflicting claims, an audit
	@$(BIN)/controlplane demo

.PHONY: corpus
corpus: setup ## A million truths about the installed packages, and the questions they answer; TRUTHS=10000 stops earlier
	@$(BIN)/controlplane demo corpus $(if $(TRUTHS),--truths $(TRUTHS))

.PHONY: test
test: setup ## Run all tests, slow ones last; TESTS="path -k name" chooses, SEED=7 draws other examples
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist loadgroup $(if $(SEED),--hypothesis-profile exploring --hypothesis-seed $(SEED)) $(TESTS)

.PHONY: test-secure
test-secure: setup ## Run the acceptance tests with security on: certificates, access rules, users of the store
	@CONTROLPLANE_TEST_SECURE=1 $(MAKE) test TESTS="$(or $(TESTS),tests/acceptance)"

.PHONY: check
check: setup ## Formatting, lint, types, direction of imports, schema drift and compatibility, deployment files, known vulnerabilities
	@$(BIN)/ruff format --check --quiet $(SOURCES)
	@$(BIN)/ruff check --quiet $(SOURCES)
	@$(BIN)/mypy $(SOURCES)
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m controlplane.events.check
	@$(BIN)/pytest --quiet --no-header tests/meta/test_deployment.py tests/meta/test_deployment_secure.py tests/meta/test_lock.py tests/meta/test_reference.py tests/meta/test_operations.py tests/meta/test_alerts.py
	@$(BIN)/python -m tools.audit_dependencies requirements.lock

.PHONY: format
format: setup ## Format the code and repair what can be repaired mechanically
	@$(BIN)/ruff format --quiet $(SOURCES)
	@$(BIN)/ruff check --quiet --fix $(SOURCES)

.PHONY: bench
bench: setup ## Measure throughput, latency and replay beside taskiq and Celery
	@$(BIN)/controlplane bench all

.PHONY: fuzz
fuzz: setup ## Send generated requests to a whole system and judge every answer; REQUESTS=20000 SEED=7
	@$(BIN)/python -m tests.acceptance.fuzzing --requests $(or $(REQUESTS),20000) --seed $(or $(SEED),1)

.PHONY: simulate
simulate: setup ## Random histories with crashes: make simulate SEED=7 tells one, without a seed the first 200 are played
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--count 200 --processes $(WORKERS))

.PHONY: schemas
schemas: setup ## Write the Python types and encoders of the events from schemas/avro
	@$(BIN)/python -m controlplane.events.generate

.PHONY: release-schemas
release-schemas: schemas ## Keep the schemas in force as released versions, for ever
	@$(BIN)/python -m controlplane.events.check --release
	@$(BIN)/python -m tests.golden

.PHONY: reference
reference: setup ## Write the pages of docs/ that follow from the code
	@$(BIN)/python -m tools.settings_reference
	@$(BIN)/python -m tools.permissions_reference
	@$(BIN)/python -m tools.reads_reference
	@$(BIN)/python -m tools.asyncapi_reference

.PHONY: docs
docs: setup ## Build the documentation site into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.PHONY: lock
COMPILE := UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links
lock: ## Pin all dependencies with hashes in requirements.lock; UPGRADE=1 takes newer versions
	@$(COMPILE) pyproject.toml --all-extras $(if $(UPGRADE),--upgrade) --output-file requirements.lock
	@$(COMPILE) pyproject.toml --extra tracing --extra provenance --constraint requirements.lock --output-file deploy/runtime.lock
	@echo "hatchling" | $(COMPILE) - --constraint requirements.lock --output-file deploy/build.lock

.PHONY: audit-dependencies
audit-dependencies: setup ## Look up known vulnerabilities of the pinned packages; fails also where the database cannot be reached
	@$(BIN)/python -m tools.audit_dependencies requirements.lock --strict

.PHONY: sbom
sbom: setup ## Write a CycloneDX bill of materials of each lock file into dist/
	@mkdir -p dist
	@$(BIN)/python -m tools.sbom deploy/runtime.lock > dist/image.cdx.json
	@$(BIN)/python -m tools.sbom deploy/build.lock > dist/build.cdx.json
	@$(BIN)/python -m tools.sbom requirements.lock > dist/development.cdx.json

.PHONY: clean
clean: ## Remove what was built or cached; data folders and .venv stay
	@rm -rf build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find $(wildcard controlplane tests tools examples bench) -name __pycache__ -type d -prune -exec rm -rf {} +
