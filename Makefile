# `make run` and `make test` install everything they need.
PYTHON ?= python3.11
PIPELINE ?= quick
ARGS ?=
BIN := .venv/bin
INSTALL = @command -v "$(PYTHON)" > /dev/null || { \
	  echo "set-up: $(PYTHON) is not installed" >&2; \
	  echo "  What to do: install Python 3.11 (for example: apt install python3.11 python3.11-venv; uv python install 3.11)" >&2; \
	  echo "  or name its path: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }; \
	"$(PYTHON)" requirements/install.py
# Pipelines of the personal assistant also need AppWorld's environment.
ROLES := core serve $(if $(findstring assistant,$(PIPELINE)),appworld)
export DO_NOT_TRACK := true
export DVC_NO_ANALYTICS := 1
# Images often forbid bytecode files. Each start would then compile everything it imports: ten seconds for a trainer.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help run test test-fast setup lint bench mlflow prefect clean

help:
	@echo "make run                      set up, then run the pipeline quick: train, evaluate, register"
	@echo "make run PIPELINE=nq ARGS=\"data.source=/data/nq train.seed=3\"   run another pipeline, with overrides"
	@echo "make test                     set up what is missing, then run the tests (ARGS goes to pytest)"
	@echo "make test-fast                run the tests that need no model, server or AppWorld"
	@echo "make setup                    only set up: .venv, with the command .venv/bin/apprentice, and .venv-serve"
	@echo "make lint                     check the code with ruff"
	@echo "make bench                    measure speed against this machine's limits, vLLM, AppWorld's server and TRL"
	@echo "make mlflow | make prefect    serve the runs: http://127.0.0.1:5000 | http://127.0.0.1:4200"
	@echo "make clean                    remove logs, checkpoints and caches (.apprentice); keep data, models, reports and MLflow runs"

setup:
	$(INSTALL) $(ROLES)

run: setup
	@$(BIN)/python -m flows $(PIPELINE) $(ARGS)

test:
	$(INSTALL) core serve appworld
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast:
	$(INSTALL) core
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not heavy" $(ARGS)

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

bench:
	$(INSTALL) core serve appworld
	@$(BIN)/python -m benchmarks $(ARGS)

mlflow:
	@$(BIN)/python -m flows.pages mlflow

prefect:
	@$(BIN)/python -m flows.pages prefect

clean:
	rm -rf .pytest_cache .ruff_cache .hypothesis
	[ ! -d .apprentice ] || find .apprentice -mindepth 1 -maxdepth 1 ! -name mlartifacts -exec rm -rf {} +
