"""The keys of an endpoint: what is refused, what is identity, and that nothing heavy is imported."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gristmill.engines.endpoint.spec import EndpointSpec
from gristmill.engines.served import SAMPLING
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import Recipe
from gristmill.records.errors import UserError
from gristmill.records.spec import build
from tests.engines.endpoint.proxy import KEY, MODEL, Proxy

ENDPOINT = {"base_url": "http://127.0.0.1:1/v1", "model": MODEL}


def recipe(generator: dict[str, Any], **tables: Any) -> Recipe:
    source = {"items": [{"prompt": "one"}, {"prompt": "two"}]}
    table = {"name": "t", "source": source, "generator": {"kind": "endpoint", **ENDPOINT, **generator}, **tables}
    return build(Recipe, {"method": {"kind": "prompt", "template": "{prompt}"}, **table}, "recipe")


REFUSED = [
    ({"base_url": "localhost:8000"}, "base_url is no address"),
    ({"base_url": "http://me:hunter2@host/v1"}, "base_url holds a key"),
    ({"base_url": "https://host/v1?api-key=0123456789abcdef0123456789abcdef"}, "base_url holds a key"),
    ({"api_key_env": "sk-proj-abcdefghijklmnop1234567890"}, "name of an environment variable"),
    ({"api_key_env": "hf_abcdefghijklmnopqrstuvwxyz"}, "name of an environment variable"),
    ({"api_key_env": "AKIAABCDEFGHIJKLMNOP"}, "name of an environment variable"),
    ({"headers_env": {"Authorization": "Bearer abcdefgh12345678"}}, "name of an environment variable"),
    ({"extra_body": {"api_key": "abcdefgh12345678"}}, "extra_body holds a key"),
    ({"extra_body": {"headers": {"x": "sk-proj-abcdefghijklmnop1234567890"}}}, "extra_body holds a key"),
    ({"extra_body": {"messages": []}}, "extra_body.messages: the method writes the messages"),
    ({"extra_body": {"model": "x"}}, "extra_body.model: write it as the key model"),
    ({"extra_body": {"max_completion_tokens": 9}}, "write max_tokens in sampling"),
    *(({"extra_body": {key: 1}}, f"extra_body.{key}: write it in sampling") for key in sorted(SAMPLING)),
    *(({"extra_body": {key: 1}}, f"extra_body.{key}: ") for key in ("prompt", "stream", "n", "seed", "logprobs")),
    ({"sampling": {"temprature": 1.0}}, "did you mean 'temperature'"),
    ({"max_in_flight": 0}, "max_in_flight must be at least 1"),
    ({"timeout_s": 0.0}, "timeout_s must be more than 0"),
    ({"price_in": -1.0}, "price_in must be a number that is not negative"),
    ({"choice": ["a"], "regex": "b"}, "an answer has one structure"),
]


@pytest.mark.parametrize(("keys", "message"), REFUSED)
def test_wrong_keys_are_refused_without_their_values(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        compile_recipe(recipe(keys))
    for secret in ("hunter2", "0123456789abcdef", "abcdefgh", "ABCDEFGH"):
        assert secret not in str(raised.value)


@pytest.mark.parametrize("keys", [{"price_cached": math.nan}, {"price_in": math.nan}, {"num_cpus": math.inf}])
def test_prices_are_finite(keys: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be a number that is not negative"):
        EndpointSpec(**ENDPOINT, **keys)  # type: ignore[arg-type]


def test_places_prices_and_limits_are_no_identity() -> None:
    base = compile_recipe(recipe({})).fingerprint
    same = {
        "base_url": "https://elsewhere/v1",
        "api_key_env": "SOME_KEY",
        "headers_env": {"X-Api-Key": "OTHER_KEY"},
        "max_in_flight": 7,
        "requests_per_minute": 60,
        "tokens_per_minute": 1000,
        "price_in": 1.0,
        "price_out": 2.0,
        "timeout_s": 3.0,
        "retry_s": 4.0,
        "flush_s": 5.0,
        "batch_api": True,
        "batch_poll_s": 1.0,
        "num_cpus": 0.5,
    }
    assert compile_recipe(recipe(same)).fingerprint == base
    other = [
        {"model": "tiny-2"},
        {"chat": False},
        {"sampling": {"temperature": 0.5}},
        {"extra_body": {"reasoning_effort": "low"}},
        {"regex": "a"},
        {"name": "other"},
    ]
    assert len({base, *(compile_recipe(recipe(keys)).fingerprint for keys in other)}) == 1 + len(other)
    assert compile_recipe(recipe({"name": MODEL})).fingerprint == base  # the column `model` has it anyway
    mentioned = {*same, *(key for keys in other for key in keys), "price_cached"}
    assert {field.name for field in dataclasses.fields(EndpointSpec)} <= mentioned


def test_a_judge_is_of_a_model_or_of_an_endpoint() -> None:
    stage = {"kind": "judge", "endpoint": ENDPOINT}
    compiled = compile_recipe(recipe({}, stages=[stage]))
    assert not compiled.is_repeatable
    assert compiled.remote_pools == ["generator", "judge"]
    moved = {"kind": "judge", "endpoint": {**ENDPOINT, "base_url": "https://elsewhere/v1", "price_in": 1.0}}
    assert compile_recipe(recipe({}, stages=[moved])).fingerprint == compiled.fingerprint
    for keys, message in (
        ({"model": "package:smollm2"}, "model goes with a judge that vLLM serves"),
        ({"sampling": {"top_p": 0.5}}, "sampling goes with a judge that vLLM serves"),
        ({"endpoint": {**ENDPOINT, "name": "x"}}, "endpoint: unknown key 'name'"),  # no column holds it
    ):
        with pytest.raises(UserError, match=message):
            compile_recipe(recipe({}, stages=[{**stage, **keys}]))
    with pytest.raises(UserError, match="key 'model' is missing"):
        compile_recipe(recipe({}, stages=[{"kind": "judge"}]))


def test_magpie_is_refused_in_one_line() -> None:
    compiled = compile_recipe(recipe({}, method={"kind": "magpie"}))
    with pytest.raises(UserError, match="does not let the model write the user's message"):
        compiled.check()


def test_a_key_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GM_NO_KEY", raising=False)
    with pytest.raises(UserError, match="the environment variable GM_NO_KEY is not set"):
        compile_recipe(recipe({"api_key_env": "GM_NO_KEY"})).check()


SCRIPT = """
import asyncio, sys, time

HEAVY = {"torch", "vllm", "transformers", "pandas", "scipy", "numba"}

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ModuleNotFoundError(name + " is blocked")

sys.meta_path.insert(0, Blocked())
began_s = time.process_time()
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.lots import asks

tables = ("generator", "stages.3.endpoint")
settings = [f"{table}.{key}={value}" for table in tables for key, value in (("base_url", "%s"), ("model", "%s"))]
compiled = compile_recipe(load("recipes/endpoint.toml", settings))
compiled.check()
imported_s = time.process_time()

async def make():
    generator, judge = compiled.generator, compiled.stages[3]
    generator.open()
    judge.open()
    opened_s = time.process_time()
    rows = await generator.make(asks(compiled.plan, compiled.source, 0).slice(0, 4))
    judged = await judge.run_pooled(rows)
    generator.close()
    judge.close()
    await asyncio.sleep(0.01)
    return rows.column("text").null_count, judged.num_rows, opened_s

num_null, num_rows, opened_s = asyncio.run(make())
assert (num_null, num_rows) == (0, 4)
print(f"{imported_s - began_s:.2f} {opened_s - imported_s:.2f}")
"""


def test_the_engine_needs_no_heavy_package_and_opens_quickly() -> None:
    """In CPU seconds, since the machine may be busy: a pool of endpoints is ready within a second of Ray's start."""
    with Proxy() as server:
        script = SCRIPT % (server.url, MODEL)
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=Path(__file__).parents[3], capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    assert len(server.bodies) == 8  # an answer and a judgement of each row
    imported_s, opened_s = map(float, done.stdout.split())
    assert opened_s < 1.0 and imported_s < 10.0
    assert KEY not in done.stdout
