PY := .venv/bin/python
export VLLM_NO_USAGE_STATS := 1
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help setup demo test test-slow check bench oracles chaos clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup:           ## install the pinned environment into .venv (PROFILE=gpu on GPU nodes)
	@scripts/setup.sh

demo: setup      ## produce a few hundred rows with a real small teacher into out/demo
	@$(PY) -m gristmill produce recipes/demo.toml --out out/demo

check: setup     ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	scripts/typecheck.sh

test: check      ## the checks and the tests
	$(PY) -m pytest

test-slow: setup ## the tests too long for `make test`
	$(PY) -m pytest -m slow --timeout=3000

bench: setup     ## the benchmarks of docs/benchmarks.md, each beside its peer or limit
	$(PY) -m tests.bench

oracles: setup   ## other implementations of metrics and models beside ours, in .venv.oracles; ARGS=quality for an hour of it
	@scripts/oracles.sh $(ARGS)

chaos: setup     ## 50 kills of everything, at random moments; ARGS="--seed 7 --kinds node,head" for others
	@$(PY) -m tests.chaos $(ARGS)

clean:           ## remove outputs and caches, keep .venv
	rm -rf out .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
