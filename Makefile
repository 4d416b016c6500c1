# Each target makes and updates .venv by itself; `make demo` and `make test` are all a fresh machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= auto
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench soak clean

help:  ## Show this help
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(READY)  ## Make or update .venv

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

demo: $(READY)  ## Train the default LSTM, backtest it and its rivals, compare them, paper-trade a replay
	$(BIN)/nextbar train configs/quickstart.yaml
	$(BIN)/nextbar backtest configs/quickstart.yaml
	$(BIN)/nextbar backtest configs/sma_cross.yaml
	$(BIN)/nextbar backtest configs/buy_and_hold.yaml
	$(BIN)/nextbar compare quickstart sma_cross buy_and_hold
	$(BIN)/nextbar paper configs/quickstart.yaml --replay
	$(BIN)/nextbar twin latest
	@echo "The report of the LSTM, traded on paper: $$(ls -td runs/*-quickstart*/ | head -1)report.html"
	@echo "The comparison of the backtests:         $$(ls -td runs/comparisons/*/ | head -1)compare.html"

test: $(READY)  ## Run all tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not soak"

check: $(READY)  ## Lint, format, types, import ladder
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY) .venv-bench/.ready  ## Measure against peers, side by side
	$(BIN)/python -m benchmarks --json benchmarks/results/bench.json

# The peers live in an environment of their own: one of them is AGPL, and none of them is ours to ship.
.venv-bench/.ready: benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --requirement benchmarks/requirements.txt
	@touch $@

soak: $(READY)  ## Run the heavy tests: replays killed and disturbed by the thousand, one of 200,000 bars, training on two devices
	$(BIN)/python -m pytest -m soak

clean:  ## Remove environments and caches; runs and bundles stay
	rm -rf .venv .venv-bench .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
