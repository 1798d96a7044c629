"""Budgets end a run at a lot border, over all its starts, and the manifest says what rows have cost."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gristmill.cluster.budget import Budget
from gristmill.cluster.pools.meters import DeviceMeter
from gristmill.cluster.spec import Limits
from gristmill.records.output.manifest import Manifest
from tests.conftest import gristmill
from tests.outputs import num_committed
from tests.recipes import canned, teacher


@dataclass
class Spent:
    """A pool without devices that has finished some asks for money."""

    num_done: int
    paid: float
    mean_lot_s: float = 0.0
    price_per_device_hour: float | None = None
    meter: DeviceMeter = field(default_factory=lambda: DeviceMeter(0))


def test_calls_that_lots_in_flight_will_make_are_estimated_by_the_share_of_each_pool() -> None:
    large, small, judge = Spent(10, 10.0), Spent(90, 9.0), Spent(50, 5.0)
    budget = Budget(Limits(cost=30.0), [large, small, judge], num_generators=2)
    budget.num_begun, budget.num_judged = 120, 80
    # 20 asks at 19 / 100, and of 40 rows that are not judged at most 40 come to the judge, at 0.1 each.
    assert budget._draining()["cost"] == pytest.approx(20 * 0.19 + 40 * 0.1)
    assert budget.closing == "cost"
    budget.num_begun = budget.num_judged = 120
    assert budget._draining()["cost"] == 0 and budget.closing is None and budget.cost == 24.0


SLOW = {"pooled": True, "seconds_per_ask": 0.01}


def book(out: str) -> dict:
    return json.loads(Path(out, "manifest.json").read_text())


def test_tokens_are_a_limit(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    done = gristmill("produce", canned(tmp_path), "--out", out, "--set", "limits.tokens=20000")
    assert done.returncode == 0, done.stderr
    totals = book(out)["totals"]
    assert 20000 <= totals["tokens_out"] < 20000 + 32 * 300
    assert totals["tokens_out"] == totals["kept_tokens"] + sum(totals["rejected_tokens"].values())


def test_a_budget_ends_the_run_at_a_lot_border_and_goes_on_when_it_is_raised(tmp_path: Path) -> None:
    out, recipe = str(tmp_path / "out"), canned(tmp_path, num_asks=32000, generator=SLOW, cluster={"num_cpus": 3})
    price = ["--set", "cluster.price_per_device_hour=1080", "--set", "cluster.currency=EUR"]
    first = gristmill("produce", recipe, "--out", out, *price, "--set", "limits.cost=2.5")
    assert first.returncode == 3, first.stderr
    assert "limits.cost is spent before limits.asks = 32,000 (at " in first.stdout
    found = book(out)
    assert found["state"] == "budget" and found["ended"] == "cost"
    assert found["totals"]["asks"] == 32 * num_committed(out) > 0
    # The lots in flight were finished within the budget, about.
    assert 1 < found["cost"]["cost"] < 4
    assert found["cost"]["per_kept_row"] == pytest.approx(found["cost"]["cost"] / found["totals"]["kept"])
    again = gristmill("produce", recipe, "--out", out, *price, "--set", "limits.cost=2.5")
    assert again.returncode == 3 and "its budget (cost) is spent" in again.stderr
    assert book(out)["totals"] == found["totals"]
    more = gristmill("produce", recipe, "--out", out, *price, "--set", "limits.cost=5")
    assert more.returncode == 3, more.stderr
    last = book(out)
    assert last["totals"]["num_lots"] > found["totals"]["num_lots"]
    assert found["cost"]["cost"] < last["cost"]["cost"] < 8  # both starts together
    assert last["cost"]["currency"] == "EUR"
    assert gristmill("audit", out).returncode == 0
    forecast = gristmill("produce", recipe, "--out", out, *price, "--dry-run")
    assert "cost left" in forecast.stdout and "EUR" in forecast.stdout


@dataclass
class Pool:
    """What a pool of an endpoint reports."""

    paid: float = 0.0
    num_done: int = 0
    price_per_device_hour: float | None = None
    mean_lot_s: float = 0.0
    meter: DeviceMeter = field(default_factory=lambda: DeviceMeter(0.0))


@pytest.mark.parametrize("limit", [1.6, 3.0, 10.0, 47.0])
def test_no_lot_begins_that_the_calls_in_flight_leave_no_money_for(limit: float) -> None:
    """A generator at 0.01 an ask and a judge at 0.02, with lots of 16 in flight and reports that come late."""
    writer, judge = Pool(), Pool()
    budget = Budget(Limits(cost=limit), [writer, judge], cost=1.5, paid=1.0, paid_per_ask=0.04)  # at most
    assert (budget.cost, budget.paid) == (1.5, 1.0)
    while not budget.closing:
        budget.num_begun += 16
        writer.num_done = max(0, budget.num_begun - 64)
        judge.num_done = max(0, writer.num_done - 32)
        writer.paid, judge.paid = 0.01 * writer.num_done, 0.02 * judge.num_done
    assert budget.spent is None
    writer.num_done = judge.num_done = budget.num_begun  # the lots in flight end
    writer.paid, judge.paid = 0.01 * writer.num_done, 0.02 * judge.num_done
    assert budget.num_begun >= 16  # however small the limit is
    assert limit - 96 * 0.01 - 16 * 0.03 < budget.cost < limit + 16 * 0.03


def test_what_rows_have_cost_counts_before_their_engines_report_it() -> None:
    pool, committed = Pool(paid=0.5), [4.0]
    budget = Budget(Limits(cost=10.0), [pool], cost=4.0, paid=4.0, committed_paid=lambda: committed[0])
    assert budget.cost == 4.5
    committed[0] = 9.0
    assert (budget.cost, budget.paid, budget.spent) == (9.0, 9.0, None)
    pool.paid = 6.0
    assert (budget.cost, budget.spent, budget.share) == (10.0, "cost", 1.0)


def test_a_start_counts_the_money_that_the_one_before_had_not_noted() -> None:
    found = Manifest("f" * 32, {}, {}, starts=[{"cost": 2.0, "paid": 1.5}, {"cost": 1.0, "paid": 0.5, "device_s": 9.0}])
    found.count_paid(1.0)  # less than is known: duplicates, or answers that were lost
    assert found.spent("paid") == 2.0
    found.count_paid(2.75)
    assert (found.spent("paid"), found.spent("cost"), found.starts[0]["paid"]) == (2.75, 3.75, 1.5)
    found.account(None, "EUR")
    assert (found.cost["paid"], found.cost["cost"], found.cost["currency"]) == (2.75, 3.75, "EUR")


def test_a_budget_of_money_needs_a_price(tmp_path: Path) -> None:
    done = gristmill("produce", canned(tmp_path), "--out", str(tmp_path / "out"), "--set", "limits.cost=1")
    assert done.returncode == 2 and "limits.cost needs cluster.price_per_device_hour" in done.stderr


def test_the_dry_run_forecasts_from_the_recipe(tmp_path: Path) -> None:
    cluster = {"tokens_per_s": 1000, "price_per_device_hour": 2}
    model = {"kind": "teacher", "model": "package:smollm2", "sampling": {"max_tokens": 100}}
    recipe = teacher(tmp_path, num_asks=36000, generator=model, cluster=cluster)
    done = gristmill("produce", recipe, "--out", str(tmp_path / "out"), "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = {" ".join(line.split()) for line in done.stdout.splitlines()}
    assert "tokens out at most 3,600,000" in lines
    assert any(line.startswith("time left 1 h 00 min") for line in lines)
    assert "device-hours left 1.00" in lines and "cost left 2.00 USD" in lines


def test_a_source_that_ends_before_a_limit_is_no_success_and_names_the_limit(tmp_path: Path) -> None:
    recipe = canned(tmp_path, limits={"asks": None, "kept_rows": 1000}, source={"cycle": False}, stages=[])
    done = gristmill("produce", recipe, "--out", str(tmp_path / "out"))
    assert done.returncode == 3, done.stderr
    assert book(str(tmp_path / "out"))["state"] == "exhausted"
    assert "the source ended before limits.kept_rows = 1,000 (at 4): set source.cycle = true" in done.stdout


def test_a_run_whose_texts_are_alike_stops_and_goes_on_with_a_higher_limit(tmp_path: Path) -> None:
    """The alarm comes at the same lot whoever commits, is told everywhere, and survives a resume."""
    body = "the sea rises and falls because of the moon and of the sun"
    say = [f"Once upon a time {body}.", f"Rivers: {body}!", f"Every day {body}; so it is."]
    recipe = canned(
        tmp_path,
        generator={"kind": "canned", "answers": [{"when": "", "say": say}], "seconds_per_ask": None},
        stages=[],
    )
    out, whole = str(tmp_path / "out"), str(tmp_path / "whole")
    done = gristmill("produce", recipe, "--out", out, "--set", "limits.template_share=0.25")
    assert done.returncode == 3, done.stderr
    assert "limits.template_share = 0.25 is exceeded before limits.asks = 640 (at 128)" in done.stdout
    found = book(out)
    assert (found["state"], found["ended"], found["totals"]["num_lots"]) == ("alarm", "template_share", 4)
    assert "texts are alike" in gristmill("produce", recipe, "--out", out, "--set", "limits.template_share=0.25").stderr
    assert "most frequent opening" in gristmill("status", out).stdout
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Texts that are alike" in page and "once upon a time" in page and "The run stops above 25.0%" in page
    assert gristmill("produce", recipe, "--out", out, "--set", "limits.template_share=0.9").returncode == 0
    assert gristmill("produce", recipe, "--out", whole).returncode == 0
    assert book(out)["totals"] == book(whole)["totals"] and book(out)["state"] == "complete"
    assert gristmill("audit", out).returncode == 0


def test_a_limit_on_the_cost_counts_devices_of_one_part_and_calls_of_another() -> None:
    """A local teacher with a price of its device, and a judge behind an endpoint, which holds no device."""
    teacher, judge = Pool(price_per_device_hour=3600.0, meter=DeviceMeter(1)), Pool()
    began = time.monotonic()
    teacher.meter.place(began - 2.0)
    teacher.num_done = judge.num_done = 10
    judge.paid = 4.0
    budget = Budget(Limits(cost=100.0), [teacher, judge])
    assert 6.0 <= budget.cost < 6.0 + 2 * (time.monotonic() - began) + 0.1 and budget.paid == 4.0
    assert Budget(Limits(cost=5.0), [teacher, judge]).spent == "cost"
    for alone in (teacher, judge):
        assert Budget(Limits(cost=5.0), [alone]).spent is None
