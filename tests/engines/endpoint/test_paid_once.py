"""By the count of a server that also fails: an answer that was kept is not requested again, whatever was killed."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gristmill.engines.endpoint.spec import EndpointSpec
from gristmill.generators.endpoint import Endpoint
from gristmill.records.output import answers
from gristmill.records.output.answers import AnswerFolder
from gristmill.records.schema import cost_columns
from gristmill.records.spec import build
from gristmill.records.stores.local import LocalStore
from gristmill.stages.judging.judge import Judge
from tests.engines.endpoint.proxy import MODEL, Proxy
from tests.paid import RUN, Mortal, Steps, asks, num_kept

FLUSH_S, MAX_IN_FLIGHT = 0.05, 8
LATE_S = 0.1  # a loaded machine puts a batch so much later; the count of repeated calls below is exact all the same
PRICES = {"price_in": 1e6, "price_out": 1e6}  # of a token: 1
FAULTS = {3: "500", 17: "429", 31: "cut", 45: "json", 60: "drop", 77: "repeat", 90: "503"}


class TimedProxy(Proxy):
    """Knows when it has answered."""

    def __init__(self) -> None:
        self.answered_at: list[float] = []
        super().__init__(
            script=lambda number, body: FAULTS.get(number),
            latency_s=lambda in_flight: 0.02,
            change=self._note,
        )

    def _note(self, data: dict[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
        self.answered_at.append(time.monotonic())
        return data

    @property
    def num_faults(self) -> int:
        return sum(self.faults.values())


def endpoint(server: Proxy, store: Any) -> Endpoint:
    keys = {"base_url": server.url, "model": MODEL, "max_in_flight": MAX_IN_FLIGHT, "flush_s": FLUSH_S, **PRICES}
    made = Endpoint(build(Endpoint.Spec, keys, "generator"), Steps(None))
    made.answers = AnswerFolder(store, RUN)
    made.open()
    return made


async def whole(part: Endpoint, batch: pa.RecordBatch) -> pa.RecordBatch:
    """A life without a kill."""
    made = await part.make(batch)
    part.close()
    await asyncio.sleep(0.01)  # its connections close
    return made


def test_calls_are_those_that_the_method_needs_and_those_that_kills_have_lost(tmp_path: Path) -> None:
    batch = asks([[["a", "a", "b"], ["c"]] for _ in range(40)])
    needed, most_lost = 160, 0

    async def killed(server: TimedProxy, num_calls: int) -> int:
        """The calls that this kill may lose: those in flight, and those answered within the last flush."""
        store = Mortal(tmp_path)
        part = endpoint(server, store)
        life = asyncio.ensure_future(part.make(batch))
        until = len(server.bodies) + num_calls
        while len(server.bodies) < until and not life.done():
            await asyncio.sleep(0.001)
        store.is_dead = True
        lost = server.num_in_flight + sum(at > time.monotonic() - FLUSH_S - LATE_S for at in server.answered_at)
        life.cancel()
        with suppress(asyncio.CancelledError):
            await life
        part.close()
        await asyncio.sleep(0.01)
        return lost

    with TimedProxy() as server:
        for num_calls in (30, 50, 40):
            most_lost += asyncio.run(killed(server, num_calls))
        before, was_kept, faults = len(server.bodies), num_kept(tmp_path), server.num_faults
        made = asyncio.run(whole(endpoint(server, Mortal(tmp_path)), batch))
        assert made.column("reject").null_count == 40
        assert len(server.bodies) - before == needed - was_kept + server.num_faults - faults
        assert needed < len(server.bodies) <= needed + most_lost + server.num_faults
        assert num_kept(tmp_path) == needed and len(server.bodies) < 2 * needed
        num_calls = len(server.bodies)
        second = asyncio.run(whole(endpoint(server, Mortal(tmp_path)), batch))
        assert second.equals(made) and len(server.bodies) == num_calls
    tokens = pa.compute.add(made.column("tokens_in"), made.column("tokens_out"))
    assert made.column("cost").to_pylist() == tokens.to_pylist()
    assert pa.compute.sum(made.column("cost")).as_py() == answers.settle(LocalStore(str(tmp_path)), RUN, 0)


def test_a_judge_keeps_its_answers_apart_and_states_its_cost(tmp_path: Path) -> None:
    table = {"endpoint": {"model": MODEL, "base_url": "", "max_in_flight": MAX_IN_FLIGHT, **PRICES}}
    rows = asks([[], []]).drop_columns(["ask"])
    rows = rows.add_column(rows.num_columns - 1, "text", pa.array(["one text", "another"]))
    with Proxy() as server:
        table["endpoint"]["base_url"] = server.url

        async def closing(judge: Judge) -> pa.RecordBatch:
            done = await judge.run_pooled(rows)
            judge.close()
            await asyncio.sleep(0.01)
            return done

        def judged() -> pa.RecordBatch:
            judge = Judge(build(Judge.Spec, table, "stages[0]"), "score")
            judge.answers = AnswerFolder(LocalStore(str(tmp_path)), RUN)
            assert cost_columns(pa.schema(judge.columns())) == ["score_cost"]
            judge.open()
            return asyncio.run(closing(judge))

        first = judged()
        assert judged().equals(first) and len(server.bodies) == 2
    costs = [
        a + b for a, b in zip(first.column("score_tokens_in").to_pylist(), first.column("score_tokens_out").to_pylist())
    ]
    assert first.column("score_cost").to_pylist() == costs and min(costs) > 0
    records = answers.records_of(AnswerFolder(LocalStore(str(tmp_path)), RUN), 3)
    assert [record.part for record in records] == ["score", "score"]


def test_flush_s_is_above_zero() -> None:
    with pytest.raises(Exception, match="flush_s must be more than 0"):
        build(EndpointSpec, {"base_url": "http://127.0.0.1/v1", "model": "m", "flush_s": 0.0}, "generator")
