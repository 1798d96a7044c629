"""A view of a run: the nearest limit decides the time left, and produce shows what status --watch shows."""

import io
import time

import pytest

from gristmill.cluster.lots.job import Progress
from gristmill.cluster.spec import Limits
from gristmill.jobs.produce import progress as module
from gristmill.jobs.produce.monitor import _literals
from gristmill.jobs.produce.progress import ProgressDisplay
from gristmill.jobs.terminal.console import SafeConsole
from gristmill.jobs.terminal.view import Pace, Rates, facts, nearest_goal
from gristmill.records.output.shards import Summary

TOTALS = Summary(num_lots=2, asks=64, kept=40, rejected={"rules:short": 24}, tokens_out=6400, kept_tokens=4000)


def test_the_limit_nearest_to_its_end_counts() -> None:
    rates = Rates(asks=8.0, tokens=800.0, kept=5.0, kept_tokens=500.0)
    assert nearest_goal(TOTALS, rates, 320, {}) == (pytest.approx(0.2), pytest.approx(32.0))
    assert nearest_goal(TOTALS, rates, 320, {"kept_rows": 80}) == (pytest.approx(0.5), pytest.approx(8.0))
    assert nearest_goal(TOTALS, rates, None, {"tokens": 6400}) == (1.0, 0.0)
    assert nearest_goal(TOTALS, Rates(), 320, {}) == (pytest.approx(0.2), None)
    assert nearest_goal(TOTALS, rates, None, {"kept_rows": None}) == (None, None)


def test_rates_are_over_the_marks() -> None:
    pace, totals = Pace(), Summary()
    assert pace.rates() == Rates()
    pace.mark(totals)
    time.sleep(0.05)
    totals.add(TOTALS)  # the driver's totals grow in place
    pace.mark(totals)
    rates = pace.rates()
    assert 0 < rates.asks <= 64 / 0.05
    assert rates.tokens == pytest.approx(100 * rates.asks) and rates.kept == pytest.approx(40 / 64 * rates.asks)


def test_facts_show_money_once() -> None:
    progress = {"paid": 1.25, "currency": "EUR"}
    assert ("calls", "1.25 EUR") in facts(progress)
    assert facts(progress, {"cost": 2.5, "currency": "EUR"}) == [("cost", "2.50 EUR")]


def test_facts_leave_out_what_is_not_known() -> None:
    assert facts({}) == [] == facts({"in_flight": {"making": 0}, "engines_open": 0, "retries": 0})
    assert facts({"engines_loading": 2}, {"cost": 1.5, "currency": "EUR"}) == [
        ("engines", "0 open, 2 loading"),
        ("cost", "1.50 EUR"),
    ]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_produce_shows_its_progress(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLAIN_EVERY_S", 0.0)
    monkeypatch.setattr(module, "LIVE_EVERY_S", 0.0)
    screen = io.StringIO()
    console = SafeConsole(file=screen, force_terminal=is_terminal, width=120)
    progress = Progress(TOTALS, {"making": 4, "ready": 1}, 2, 1, {"engine": 3}, {}, made_asks=80, commit_lag_s=2.5)
    with ProgressDisplay("lessons", 320, Limits(), Summary(), console) as display:
        for _ in range(2):
            display.update(progress, _literals(progress))
    shown = screen.getvalue()
    for part in ("20%", "64", "40 kept + 24 rejected", "5 lots (4 making, 1 ready)", "1 open, 1 loading", "2.5 s"):
        assert part in shown
    assert ("lessons" in shown and "rules:short" in shown) == is_terminal
    assert ("retries 3" in shown) == (not is_terminal)


def test_a_quiet_display_shows_nothing() -> None:
    screen = io.StringIO()
    progress = Progress(TOTALS, {}, 0, 0, {}, {})
    with ProgressDisplay("lessons", 320, Limits(), Summary(), SafeConsole(file=screen), quiet=True) as display:
        display.update(progress, _literals(progress))
    assert not screen.getvalue()
