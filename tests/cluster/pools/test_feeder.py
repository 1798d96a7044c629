"""How often engines report that have nothing to say."""

import queue
from concurrent.futures import Future
from types import SimpleNamespace

from gristmill.cluster.pools.feeder import REPORT_S, REPORTS_PER_S, Feeder
from gristmill.cluster.pools.member import Member


def waits_s(number: int, max_wait_s: float) -> list[float]:
    """The time that each of so many engines may take for its first report, in the order of their starts."""
    waits: list[float] = []

    def report(known: list[int] | None, wait_s: float) -> SimpleNamespace:
        waits.append(wait_s)
        return SimpleNamespace(future=Future)

    feeder = Feeder(None, queue.SimpleQueue(), lambda member, error: None, max_wait_s)
    for at in range(number):
        actor = SimpleNamespace(report=SimpleNamespace(remote=report))
        feeder.open(Member(at, actor, None, None, None, 0.0))
    return waits


def test_many_engines_report_less_often_but_before_they_count_as_hung() -> None:
    number = 1000
    assert waits_s(number, 1e6)[0] == REPORT_S
    assert waits_s(number, 1e6)[-1] == number / REPORTS_PER_S
    assert max(waits_s(number, 5.0)) == 5.0
