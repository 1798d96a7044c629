"""The engine against vLLM's own OpenAI server with the small model, through the proxy that counts and fails."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gristmill.engines.contract import AnswerForm, Reply
from gristmill.engines.errors import AskRefused
from gristmill.records.errors import UserError
from tests.engine import SharedEngine
from tests.engines.endpoint.proxy import Proxy
from tests.engines.endpoint.test_engine import ask, spec_of
from tests.engines.endpoint.vllm_server import CONTEXT, NAME, VllmServer
from tests.session import gristmill

pytestmark = pytest.mark.vllm

SAMPLING = {"max_tokens": 12, "temperature": 0.8, "top_k": 40, "repetition_penalty": 1.05}
FAULTS = {2: "429", 5: "500", 7: "cut", 9: "html", 11: "json", 13: "repeat"}
KEYS: dict[str, Any] = {"model": NAME, "timeout_s": 60.0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    with VllmServer(tmp_path_factory.mktemp("vllm") / "server.log") as running:
        yield running


def test_vllm_answers_through_faults(server: VllmServer) -> None:
    prompts = [f"Write a line about the number {number}." for number in range(12)]
    with Proxy(server.url, script=lambda number, body: FAULTS.get(number)) as proxy:
        first = ask(spec_of(proxy, **KEYS), prompts, SAMPLING)
        num_calls = len(proxy.bodies)
        again = ask(spec_of(proxy, **KEYS), prompts, SAMPLING)
    assert num_calls == len(prompts) + sum(proxy.faults.values())
    for reply in first:
        assert isinstance(reply, Reply)
        assert reply.text and reply.tokens_in > 10 and 0 < reply.tokens_out <= 12 and reply.finish in ("stop", "length")
    assert [reply.text for reply in first if isinstance(reply, Reply)] == [
        r.text for r in again if isinstance(r, Reply)
    ]


def test_vllm_follows_forms_and_refuses_asks(server: VllmServer) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    forms = {
        "json_schema": (AnswerForm(json_schema=schema), lambda text: json.loads(text)["n"] in (1, 2)),
        "choice": (AnswerForm(choice=("red", "green")), lambda text: text in ("red", "green")),
        "regex": (AnswerForm(regex="[ab]{3}"), lambda text: re.fullmatch("[ab]{3}", text)),
        "grammar": (AnswerForm(grammar='root ::= "yes" | "no"'), lambda text: text in ("yes", "no")),
    }
    with Proxy(server.url) as proxy:
        for form, is_right in forms.values():
            (reply,) = ask(spec_of(proxy, **KEYS), ["Choose."], {"max_tokens": 30, "temperature": 1.0}, form)
            assert isinstance(reply, Reply)
            assert is_right(reply.text), reply
        (reply,) = ask(spec_of(proxy, **KEYS), ["Hello."], SAMPLING, AnswerForm(logprobs=True))
        assert isinstance(reply, Reply) and reply.logprobs is not None
        assert reply.logprobs.min <= reply.logprobs.mean < 0.0 < reply.logprobs.entropy
        (reply,) = ask(spec_of(proxy, **KEYS, chat=False), ["Once upon a time"], SAMPLING)
        assert isinstance(reply, Reply) and reply.text
        too_long, good = ask(spec_of(proxy, **KEYS), ["word " * 2 * CONTEXT, "Hello."], SAMPLING)
        assert isinstance(too_long, AskRefused) and too_long.reason == "context_length"
        assert isinstance(good, Reply)
        with pytest.raises(UserError, match="it has no such model.*SmolLM2"):
            ask(spec_of(proxy, **{**KEYS, "model": "SmolLM3"}), ["Hello."])
        with pytest.raises(UserError, match="engine_refused.*temperature"):
            ask(spec_of(proxy, **KEYS), ["Hello."], {"temperature": -1.0})


@pytest.mark.nightly
def test_the_server_and_the_engine_give_the_same_texts(server: VllmServer, shared_engine: SharedEngine) -> None:
    prompts = [f"Write a line about the number {number}." for number in range(8)]
    replies = ask(spec_of(Proxy(server.url), base_url=server.url, **KEYS), prompts, SAMPLING)
    for seed, (prompt, reply) in enumerate(zip(prompts, replies)):
        own = shared_engine.loop.run(shared_engine.engine.chat(prompt, SAMPLING, seed))
        assert isinstance(reply, Reply)
        assert (reply.text, reply.finish, reply.tokens_in) == (own.text, own.finish, own.tokens_in)


@pytest.mark.nightly
def test_the_shipped_recipe_runs_against_vllm(server: VllmServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    places = {"base_url": server.url, "model": NAME}
    settings = {
        f"{table}.{key}": value for table in ("generator", "stages.3.endpoint") for key, value in places.items()
    }
    settings |= {"lot_size": 8, "source.samples": 2, "generator.sampling.max_tokens": 60, "stages.3.min_score": 1}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    done = gristmill("produce", "recipes/endpoint.toml", "--out", str(out), *words)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["totals"]["asks"] == 24
    assert set(manifest["starts"][-1]["engines"]["facts"]) == {"generator", "judge"}
    assert "another run has other rows" in (out / "report.html").read_text()
    assert gristmill("audit", str(out)).returncode == 0
