# What a newcomer needs: `make run` and `make test` set up all they need themselves.
PYTHON ?= python3.11
PIPELINE ?= quick
ARGS ?=
BIN := .venv/bin
INSTALL = @command -v "$(PYTHON)" > /dev/null || { \
	  echo "set-up: $(PYTHON) is not installed" >&2; \
	  echo "  What to do: install Python 3.11 (such as: apt install python3.11 python3.11-venv; uv python install 3.11)" >&2; \
	  echo "  or name one that lies elsewhere: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }; \
	"$(PYTHON)" requirements/install.py
# A pipeline of the personal assistant needs AppWorld's environment as well.
ROLES := core serve $(if $(findstring assistant,$(PIPELINE)),appworld)
export DO_NOT_TRACK := true
export DVC_NO_ANALYTICS := 1
# Where the environment forbids bytecode, as images do, every start would compile all that it imports: ten seconds of a trainer's.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help run test test-fast setup lint bench mlflow prefect clean

help:
	@echo "make run                      run the pipeline quick: set up, train, evaluate, register"
	@echo "make run PIPELINE=nq ARGS=\"data.source=/data/nq train.seed=3\"   another pipeline, with overrides"
	@echo "make test                     set up what is missing, run the tests (ARGS goes to pytest)"
	@echo "make test-fast                the tests that need no model, server or AppWorld"
	@echo "make setup                    only set up: .venv and .venv-serve"
	@echo "make lint                     ruff"
	@echo "make bench                    speed against this machine's limits, vLLM's engine, AppWorld's server and TRL"
	@echo "make mlflow | make prefect    open the runs: http://127.0.0.1:5000 | http://127.0.0.1:4200"
	@echo "make clean                    remove logs, checkpoints and caches of runs (.apprentice); no data, model, report or MLflow run"

setup:
	$(INSTALL) $(ROLES)

run: setup
	@$(BIN)/python -m flows $(PIPELINE) $(ARGS)

test:
	$(INSTALL) core serve appworld
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast:
	$(INSTALL) core
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q -m "not slow and not gpu" --ignore tests/usecases/assistant $(ARGS)

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
