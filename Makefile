PY := .venv/bin/python
export VLLM_NO_USAGE_STATS := 1
export RAY_USAGE_STATS_ENABLED := 0
# Without bytecode, every process of every run would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
# Tests of one group (a file, or those that share an engine) run on one worker. Three workers on two cores, since
# tests of runs wait for processes as much as they compute.
PARALLEL := -n 3 --dist loadgroup --no-loadscope-reorder

# Once per node, into the cache of this user, not into an image: what the first run would wait for.
FIRST_USE = [ "$(PROFILE)" = gpu ] || $(PY) -m gristmill.jobs.first_use package:smollm2

.PHONY: help setup setup-test demo test test-nightly test-all check bench oracles chaos reference clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 15

setup:           ## install what gristmill runs into .venv, pinned (PROFILE=gpu on GPU nodes)
	@scripts/setup.sh
	@$(FIRST_USE)

setup-test:      ## also install what checks, tests and benchmarks need
	@scripts/setup.sh test
	@$(FIRST_USE)

demo: setup      ## produce a few hundred rows with a real small teacher into out/demo
	@$(PY) -m gristmill produce recipes/demo.toml --out out/demo

check: setup-test ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	scripts/typecheck.sh

test: check      ## the checks and the tests, in parallel; ARGS=tests/records for some of them
	$(PY) -m pytest $(PARALLEL) --durations=25 $(ARGS)

test-nightly: setup-test ## the tests too long for `make test`
	HYPOTHESIS_PROFILE=nightly $(PY) -m pytest -m nightly --timeout=3000 --durations=25 $(ARGS)

test-all: check  ## every test, with many examples of each law
	HYPOTHESIS_PROFILE=nightly $(PY) -m pytest $(PARALLEL) -m "nightly or not nightly" --timeout=3000 --durations=25 $(ARGS)

bench: setup-test ## the benchmarks of docs/benchmarks.md, each beside its peer or limit
	$(PY) -m tests.bench

oracles: setup-test ## other implementations of metrics and models beside ours, in .venv.oracles; ARGS=quality for an hour of it
	@scripts/oracles.sh $(ARGS)

chaos: setup-test ## 100 kills of everything, at random moments (about an hour); ARGS="--seed 7 --kinds node,pause" for others
	@$(PY) -m tests.chaos $(ARGS)

reference: setup-test ## write the tables of keys of docs/reference/ from the code
	$(PY) -m scripts.reference_tables

clean:           ## remove outputs and caches, keep .venv
	rm -rf out .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
