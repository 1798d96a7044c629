"""The engine against a scripted server: faults are overcome, refusals are named, nothing is counted twice."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from gristmill.engines.contract import FREE_TEXT, AnswerForm, Reply
from gristmill.engines.endpoint.engine import EndpointEngine
from gristmill.engines.endpoint.spec import EndpointSpec
from gristmill.records.spec import build
from tests.engines.endpoint.proxy import FAULTS, MODEL, Proxy, answer_of

SAMPLING = {"max_tokens": 16, "temperature": 0.7}


def spec_of(server: Proxy, **keys: Any) -> EndpointSpec:
    return build(EndpointSpec, {"base_url": server.url, "model": MODEL, "timeout_s": 0.5, **keys}, "generator")


def ask(
    spec: EndpointSpec,
    prompts: list[Any],
    sampling: Mapping[str, Any] = SAMPLING,
    form: AnswerForm = FREE_TEXT,
    then: Callable[[EndpointEngine], None] = lambda engine: None,
) -> list[Reply | BaseException]:
    """The replies to prompts, all at once; the seed of each is its place."""

    async def all_of() -> list[Reply | BaseException]:
        engine = spec.open_engine(dict(sampling), form)
        try:
            calls = [engine.chat(prompt, sampling, seed, form) for seed, prompt in enumerate(prompts)]
            replies = await asyncio.gather(*calls, return_exceptions=True)
            then(engine)
            return replies
        finally:
            engine.close()
            await asyncio.sleep(0)

    return asyncio.run(all_of())


def expected(prompt: str, seed: int) -> str:
    return answer_of({"messages": [{"role": "user", "content": prompt}], "seed": seed, "temperature": 0.7})


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_a_call_and_no_answer(fault: str) -> None:
    prompts = [f"ask {number}" for number in range(24)]
    with Proxy(script=lambda number, body: fault if number % 6 == 5 else None) as server:
        replies = ask(spec_of(server), prompts)
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == [
        expected(p, n) for n, p in enumerate(prompts)
    ]
    assert server.faults[fault] >= 4
    assert len(server.bodies) == len(prompts) + server.faults[fault]
    assert sum(reply.tokens_out for reply in replies if isinstance(reply, Reply)) == 4 * len(prompts)
