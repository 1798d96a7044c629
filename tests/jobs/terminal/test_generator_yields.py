"""What the terminal, the page and the card say of several generators."""

import pytest

from gristmill.jobs.release.card import is_real
from gristmill.jobs.report.command import _made_by
from gristmill.jobs.report.generators import bars, legend
from gristmill.jobs.terminal.console import open_console
from gristmill.jobs.terminal.generator_yields import generator_table, generator_yields
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.summary import Summary

COLD = {"asks": 30, "kept": 20, "tokens_out": 600, "kept_tokens": 400, "finish:length": 8, "judge:score": 2}
HOT = {"asks": 10, "kept": 0, "tokens_out": 100, "kept_tokens": 0, "judge:score": 10}
REASONS = {f"rules:{name}": 1 for name in "abcdef"}


def totals(**generators: dict[str, float]) -> Summary:
    whole = Summary()
    for _ in range(2):  # of two lots
        whole.add(Summary(num_lots=1, generators={name: dict(counts) for name, counts in generators.items()}))
    return whole


def test_counts_of_lots_add_up_and_money_is_by_pool() -> None:
    cost = {
        "cost": 4.0,
        "pools": {"cold": {"device_s": 60.0, "cost": 3.5, "paid": 0.5}, "judge": {"device_s": 9.0, "cost": 1.0}},
    }
    cold, hot, idle = generator_yields(totals(cold=COLD, hot=HOT), cost, ["cold", "hot", "idle"])
    assert (cold.asks, cold.kept, cold.tokens_per_kept_row) == (60, 40, 30.0)
    assert cold.rejected == [("finish:length", 16), ("judge:score", 4)]
    assert (cold.device_s, cold.cost, cold.cost_per_kept_row) == (60.0, 3.0, 3.0 / 40)
    assert (hot.kept, hot.tokens_per_kept_row, hot.cost, hot.cost_per_kept_row) == (0, None, None, None)
    assert (idle.name, idle.asks, idle.rejected, idle.cost) == ("idle", 0, [], None)  # no ask has its value
    paid, *_ = generator_yields(totals(cold={**COLD, "paid": 0.25}), {}, ["cold"])
    assert (paid.cost, paid.device_cost, paid.paid) == (0.5, None, 0.5)
    assert generator_yields(totals(), cost, []) == [] and generator_table(totals(), cost, []) is None


def test_the_bars_show_the_most_frequent_reasons_and_the_others_together() -> None:
    rows = generator_yields(totals(cold={**COLD, **REASONS, "asks": 36}, hot=HOT), {}, ["cold", "hot"])
    words = [word for _, word in legend(rows)]
    assert words == ["kept", "judge:score", "finish:length", "rules:a", "rules:b", "other reasons"]
    assert [word for _, word in legend(rows[1:])] == ["kept", "judge:score"]
    svg = bars(rows)
    assert "cold" in svg and "hot" in svg and svg.count("<svg") == 2
    assert bars([]) == ""


def test_the_table_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table = generator_table(totals(cold=COLD, none=HOT), {}, ["cold"])
    assert table is not None
    open_console().print(table)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "cold 60 40 66.7% 30" in lines and "none 20 0 0.0%" in lines


def test_the_card_and_the_page_name_every_generator() -> None:
    recipe = {
        "generators": [
            {"kind": "teacher", "name": "a", "model": "/models/a"},
            {"kind": "passthrough", "name": "as-is", "origin": "real"},
        ],
        "method": {"kind": "prompt"},
    }
    assert _made_by(recipe) == "teacher a and passthrough as-is, method prompt"
    assert not is_real(Manifest("f", recipe, {}))
    assert is_real(Manifest("f", {"generators": recipe["generators"][1:]}, {}))
