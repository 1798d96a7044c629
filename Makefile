PY := .venv/bin/python
export VLLM_NO_USAGE_STATS := 1
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help setup setup-test demo test test-slow check bench oracles chaos clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup:           ## install what gristmill runs into .venv, pinned (PROFILE=gpu on GPU nodes)
	@scripts/setup.sh

setup-test:      ## also install what checks, tests and benchmarks need
	@scripts/setup.sh test

demo: setup      ## produce a few hundred rows with a real small teacher into out/demo
	@$(PY) -m gristmill produce recipes/demo.toml --out out/demo

check: setup-test ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	scripts/typecheck.sh

test: check      ## the checks and the tests
	$(PY) -m pytest

test-slow: setup-test ## the tests too long for `make test`
	$(PY) -m pytest -m slow --timeout=3000

bench: setup-test ## the benchmarks of docs/benchmarks.md, each beside its peer or limit
	$(PY) -m tests.bench

oracles: setup-test ## other implementations of metrics and models beside ours, in .venv.oracles; ARGS=quality for an hour of it
	@scripts/oracles.sh $(ARGS)

chaos: setup-test ## 50 kills of everything, at random moments; ARGS="--seed 7 --kinds node,head" for others
	@$(PY) -m tests.chaos $(ARGS)

clean:           ## remove outputs and caches, keep .venv
	rm -rf out .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
