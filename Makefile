# Everything a newcomer needs; `make help` explains itself. The virtual environment is made on first use.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
READY := $(VENV)/.ready
ORACLES := $(VENV)/.oracles

.PHONY: help setup demo example test test-fast campaign lint format typecheck bench kafka kafka-down airflow docs lock clean

help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The lock pins every package by hash; the project itself is installed editable, without touching the pins.
$(READY): pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; run: make PYTHON=python3 (3.11 to 3.13)"; exit 2; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	$(BIN)/uv pip install --quiet --python $(PY) --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(PY) --no-deps -e .
	touch $@

# Systems that others wrote, to compare numbers with: the tests and benchmarks need them, nothing else does.
$(ORACLES): $(READY) tests/oracles/requirements.lock
	$(BIN)/uv pip install --quiet --python $(PY) --require-hashes -r tests/oracles/requirements.lock
	touch $@

setup: $(READY) ## Make the virtual environment with the locked packages

demo: setup ## A month of four channels through Kafka, Airflow and DuckDB, with tables at the end
	$(PY) examples/demo.py

example: setup ## Real grocery data (completejourney) through replay, Kafka and a night
	$(PY) examples/completejourney/run.py

test: setup $(ORACLES) ## The whole suite, with a real Kafka broker and a real Airflow scheduler
	$(PY) -m pytest -m "not campaign" -n 2 --dist loadfile --durations=10

test-fast: setup ## The everyday loop: no broker, no scheduler, nothing slow
	$(PY) -m pytest -m "not campaign and not slow and not broker and not scheduler" -n 2

campaign: setup $(ORACLES) ## The long proofs (kills, thousands of histories, fuzzing); figures go to docs/measurements
	$(PY) benchmarks/campaign.py

bench: setup $(ORACLES) ## Throughput and memory next to floors of the same run
	$(PY) -m benchmarks.bench
	$(PY) -m benchmarks.gold

lint: setup ## Style and the SQL models' portable subset; edits nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PY) -m warehouse.lint
	$(BIN)/journeys docs --check

format: setup ## Bring the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: setup ## mypy --strict
	$(BIN)/mypy
	$(BIN)/mypy sql/intermediate/*.py

kafka: setup ## Start a local Kafka broker (Docker, else Java 17 and Maven) on 127.0.0.1:9092
	$(PY) deploy/kafka/broker.py start

kafka-down: setup ## Stop the local Kafka broker
	$(PY) deploy/kafka/broker.py stop

airflow: setup ## Airflow with its UI on http://127.0.0.1:8080, everything inside this folder
	$(PY) deploy/airflow/local.py up

docs: setup ## Write the generated reference pages (docs/reference)
	$(BIN)/journeys docs

lock: setup ## Pin the newest allowed packages, by hash and without host names
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header --extra dev --upgrade pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header --upgrade -c <(sed -n 's/^\([a-z].*\) \\$$/\1/p' requirements.lock) \
		tests/oracles/requirements.in -o tests/oracles/requirements.lock

clean: ## Remove the demo's state, caches and local Airflow (keeps .venv and Kafka's downloads)
	-test ! -x $(PY) || $(PY) deploy/kafka/broker.py stop
	rm -rf data .airflow .kafka/data build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
