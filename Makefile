# Everything runs in .venv, which bootstrap.py makes from nothing. `make help` lists the targets.
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
SESSIONS ?= .toolcall_pipeline/benchmark_sessions
PYTEST := $(BIN)/python -m pytest
export PYTHONUNBUFFERED := 1

.PHONY: docs help setup run ui test test-fast test-slow test-ui test-gpu check format bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install everything into .venv (the other targets do this by themselves)
	@$(PYTHON) bootstrap.py

run: setup ## take the sample sessions through the whole chain with the smoke preset
	@$(BIN)/toolcall-pipeline run --preset smoke

ui: setup ## serve the Dagster UI on loopback
	@$(BIN)/toolcall-pipeline ui

test: setup ## pass every test that needs no GPU and no browser, then the checks
	$(PYTEST) -n 2 --dist worksteal -m "not slow and not gpu and not ui"
	@$(MAKE) --no-print-directory check

test-fast: setup ## only tests that start no server and load no model: seconds
	$(PYTEST) -q -m "not slow and not gpu and not ui" toolcall_pipeline_tests/gates toolcall_pipeline_tests/sessions toolcall_pipeline_tests/dataset

test-slow: setup ## the tests that take minutes
	$(PYTEST) -m slow

test-ui: setup ## drive the UI in a headless Chromium and renew the pictures of the docs
	$(PYTEST) -m ui

test-gpu: setup ## the tests that need an NVIDIA GPU
	$(PYTEST) -m gpu

check: setup ## lint, format and types, without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell toolcall_pipeline toolcall_pipeline_tests docs README.md CHANGELOG.md

format: setup ## mend what the linter and the formatter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup ## write the reference pages that are made from the program
	$(BIN)/python -m toolcall_pipeline.commands.reference

bench: run ## measure speeds as ratios against a reference in the same run (SESSIONS=DIR: your files; PEERS=PYTHON: with dataclaw and teich)
	@test -d "$(SESSIONS)" || $(BIN)/toolcall-pipeline sessions sample "$(SESSIONS)"
	$(BIN)/python -m benchmarks.reading "$(SESSIONS)" $(if $(PEERS),--peers "$(PEERS)")
	$(BIN)/python -m benchmarks.redaction "$(SESSIONS)"
	$(BIN)/python -m benchmarks.loading "$(SESSIONS)"
	$(BIN)/python -m benchmarks.night "$(SESSIONS)" $(if $(MEGABYTES),--megabytes $(MEGABYTES))
	$(BIN)/python -m benchmarks.dataset
	$(BIN)/python -m benchmarks.export
	$(BIN)/python -m benchmarks.evaluation --sessions "$(SESSIONS)"
	$(BIN)/python -m benchmarks.orchestration

clean: ## remove .venv and the state of `make run` (the compiled llama.cpp wheel is kept)
	@if [ -x $(BIN)/toolcall-pipeline ]; then $(BIN)/toolcall-pipeline db stop || true; fi
	rm -rf .venv .venv.lock .toolcall_pipeline .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
