"""The probe of batch invariance tells an engine that mixes its batch from one that does not."""

import asyncio

import pytest

from gristmill.engines.invariance import Trace, is_invariant
from tests.engine import SharedEngine


class Sums:
    """An engine that adds the sizes of its batch in float32 order to every log-probability, or does not."""

    def __init__(self, error: float) -> None:
        self.error, self.num_running = error, 0

    async def trace(self, text: str, num_tokens: int, seed: int) -> Trace:
        self.num_running += 1
        await asyncio.sleep(0)
        trace = tuple((len(text) + at, -1.0 - self.error * self.num_running) for at in range(num_tokens))
        await asyncio.sleep(0)
        self.num_running -= 1
        return trace

    async def forget(self) -> None: ...


@pytest.mark.parametrize("error", [0.0, 1e-7])
def test_the_probe_sees_the_last_bits(error: float) -> None:
    assert asyncio.run(is_invariant(Sums(error))) is (error == 0)


@pytest.mark.vllm
def test_the_real_engine_is_invariant(shared_engine: SharedEngine) -> None:
    facts = shared_engine.loop.run(shared_engine.engine.facts())
    assert facts == {"slots": 32, "tensor_parallel_size": 1, "batch_invariant": True}


@pytest.mark.vllm
def test_an_engine_that_refuses_the_probe_has_no_verdict(
    shared_engine: SharedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*arguments: object) -> Trace:
        raise ValueError("the prompt is longer than the context")

    monkeypatch.setattr(shared_engine.engine, "trace", refuse)
    monkeypatch.setattr(shared_engine.engine, "_verdict", [])  # of an earlier probe
    assert shared_engine.loop.run(shared_engine.engine.facts())["batch_invariant"] is None
