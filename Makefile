# Everything sets itself up: a virtual environment in .venv from pyproject.toml, at the versions in constraints.txt.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ROOT ?= runs/demo

# Two assets run side by side: a team of threads each would spend its time waiting for the other.
export OMP_NUM_THREADS ?= 1
export RAY_USAGE_STATS_ENABLED := 0
export DAGSTER_DISABLE_TELEMETRY := yes

.PHONY: help setup demo test check format ui down clean

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, with pip and venv"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: $$($(PYTHON) --version)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip -c constraints.txt
	@echo "installing dependencies (several GB: torch is among them); a few minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

setup: $(READY) ## make .venv

demo: $(READY) ## footage to trained model, through Dagster and Ray; FOOTAGE=<folder> for your own files, ROOT=<folder>
	$(BIN)/dailies demo --root "$(if $(FOOTAGE),$(if $(filter runs/demo,$(ROOT)),runs/footage,$(ROOT)),$(ROOT))" $(if $(FOOTAGE),--footage "$(FOOTAGE)")

test: $(READY) ## the whole suite, Ray and Dagster included, on two workers
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

check: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## ruff's fixes and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ui: $(READY) ## the Dagster UI on loopback, over ROOT
	$(BIN)/dailies ui --root "$(ROOT)"

down: $(READY) ## end what `make ui` or `dailies up` started
	$(BIN)/dailies down --root "$(ROOT)"

clean: ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
