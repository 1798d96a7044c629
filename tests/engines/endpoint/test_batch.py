"""The Batch API: rounds of calls, refusals in a batch, and batches that outlive the process that sent them."""

import asyncio
import json
from typing import Any

import pytest

from gristmill.engines.contract import Reply
from gristmill.engines.endpoint import batch
from gristmill.engines.errors import AskRefused
from gristmill.records.errors import UserError
from tests.engines.endpoint.batches import BatchProxy
from tests.engines.endpoint.proxy import Proxy
from tests.engines.endpoint.test_engine import SAMPLING, ask, expected, spec_of


@pytest.fixture(autouse=True)
def quick_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "GATHER_S", 0.05)


def batch_keys(**keys: Any) -> dict[str, Any]:
    return {"batch_api": True, "batch_poll_s": 0.05, **keys}


def test_calls_at_once_are_one_batch() -> None:
    prompts = [f"ask {number}" for number in range(300)]
    with BatchProxy() as server:
        replies = ask(spec_of(server, **batch_keys()), prompts)
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == [
        expected(p, n) for n, p in enumerate(prompts)
    ]
    assert len(server.batches) == 1
    assert not server.bodies  # nothing but the batch was paid


def test_second_calls_are_a_second_round() -> None:
    async def rounds(server: BatchProxy) -> list[str]:
        engine = spec_of(server, **batch_keys()).open_engine(dict(SAMPLING))

        async def both(number: int) -> str:
            first = await engine.chat(f"ask {number}", SAMPLING, number)
            return (await engine.chat(first.text, SAMPLING, number)).text

        texts = await asyncio.gather(*map(both, range(20)))
        engine.close()
        return texts

    with BatchProxy() as server:
        texts = asyncio.run(rounds(server))
    assert texts == [expected(expected(f"ask {number}", number), number) for number in range(20)]
    assert len(server.batches) == 2


def test_a_request_that_fails_in_a_batch_is_sent_again() -> None:
    with BatchProxy(refused=(1, 3)) as server:
        replies = ask(spec_of(server, **batch_keys()), [f"ask {number}" for number in range(5)])
    assert all(isinstance(reply, Reply) for reply in replies)
    assert len(server.custom_ids) == 7


ODD_LINES = [b"[]", b"7", b"{", b'{"custom_id": 7}', b'{"response": {}}', b"\xff\xfe"]


@pytest.mark.parametrize("odd", ODD_LINES)
def test_an_odd_line_costs_a_call_and_the_run_goes_on(odd: bytes) -> None:
    """The answer to the first request of the first batch is replaced."""

    class Odd(BatchProxy):
        def _store(self, content: bytes) -> str:
            lines = content.splitlines()
            if b'"response"' in content and len(self.batches) == 1:
                lines[0] = odd
            return super()._store(b"\n".join(lines))

    with Odd() as server:
        replies = ask(spec_of(server, **batch_keys()), [f"ask {number}" for number in range(3)])
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == [expected(f"ask {n}", n) for n in range(3)]
    assert len(server.custom_ids) == 4


@pytest.mark.parametrize("response", ["text", {"status_code": 200, "body": [1]}])
def test_an_odd_response_in_a_batch_is_given_up_at_last(response: Any) -> None:
    class Odd(BatchProxy):
        def _store(self, content: bytes) -> str:
            lines = [json.loads(line) for line in content.splitlines()]
            for line in lines:
                if "response" in line and "bad" in self.prompts[line["custom_id"]]:
                    line["response"] = response
                else:
                    self.prompts[line["custom_id"]] = str(line.get("body"))
            return super()._store(b"\n".join(json.dumps(line).encode() for line in lines))

    with Odd() as server:
        replies = ask(spec_of(server, **batch_keys()), ["good", "bad"])
    assert [type(reply) for reply in replies] == [Reply, AskRefused]
    assert len(server.batches) <= 12


def test_old_batches_without_their_files_do_not_stop_a_run() -> None:
    with BatchProxy() as server:
        ask(spec_of(server, **batch_keys()), ["one"])
        server.files.clear()
        (reply,) = ask(spec_of(server, **batch_keys()), ["two"])
    assert isinstance(reply, Reply)


def test_a_batch_is_found_again() -> None:
    """The first process dies while its batch is in work; the second gets its answers, and sends only what is new."""

    async def interrupted(server: BatchProxy) -> None:
        engine = spec_of(server, **batch_keys()).open_engine(dict(SAMPLING))
        calls = [asyncio.ensure_future(engine.chat(f"ask {n}", SAMPLING, n)) for n in range(10)]
        while not server.batches:
            await asyncio.sleep(0.01)
        for call in calls:
            call.cancel()
        engine.close()

    with BatchProxy(is_automatic=False) as server:
        asyncio.run(interrupted(server))
        server.is_automatic = True

        async def resumed() -> list[Reply]:
            engine = spec_of(server, **batch_keys()).open_engine(dict(SAMPLING))
            calls = [asyncio.ensure_future(engine.chat(f"ask {n}", SAMPLING, n)) for n in range(12)]
            while len(server.batches) < 2:
                await asyncio.sleep(0.01)
            server.release()
            replies = await asyncio.gather(*calls)
            engine.close()
            return replies

        replies = asyncio.run(resumed())
        assert [reply.text for reply in replies] == [expected(f"ask {n}", n) for n in range(12)]
        assert len(server.custom_ids) == len(set(server.custom_ids)) == 12
        # A third process after the end: everything is there.
        replies = asyncio.run(resumed())
        assert [reply.text for reply in replies] == [expected(f"ask {n}", n) for n in range(12)]
        assert len(server.custom_ids) == 12


def test_a_server_without_batches_is_refused() -> None:
    with Proxy() as server, pytest.raises(UserError, match="has no Batch API: leave batch_api out"):
        ask(spec_of(server, **batch_keys()), ["ask"])
