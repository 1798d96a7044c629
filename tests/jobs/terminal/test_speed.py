"""What bounds the speed, in words."""

from typing import Any

import pytest

from gristmill.cluster.lots.job import Progress
from gristmill.cluster.pools.feed import Occupancy
from gristmill.jobs.terminal.speed import HELD_BACK, bound, slots_words, speed_literals
from gristmill.jobs.terminal.view import facts
from gristmill.records.output.shards import Summary


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, ""),
        ({"slots_busy": {"generator": 0.5}, "waits_s": {}}, ""),
        (
            {"slots_busy": {"generator": 0.98, "judge": 0.4}, "waits_s": {"asks": 3.0}},
            "bounded by the engines of 'generator': 98 % of their slots are busy",
        ),
        (
            {"slots_busy": {"generator": 0.6, "judge": 0.97}, "waits_s": {"stages": 30.0}},
            "bounded by the engines of 'judge': 97 % of their slots are busy",
        ),
        (
            {"slots_busy": {"generator": 0.6}, "waits_s": {"asks": 1.0, "stages": 1300.0, "window": 0.0}},
            f"engines waited 1,300 s: {HELD_BACK['stages']}",
        ),
    ],
)
def test_the_fullest_engines_or_what_held_lots_back(values: dict[str, Any], words: str) -> None:
    assert bound(values) == words


def progress(**pools: Occupancy) -> Progress:
    return Progress(Summary(), {}, 1, 1, {}, {}, occupancy=pools, waits_s={"round": 2.04})


def test_shares_of_slots_and_of_time() -> None:
    values = speed_literals(progress(generator=Occupancy(90.0, 120.0, 3.0, 12.0), scores=Occupancy()))
    assert values == {"slots_busy": {"generator": 0.75}, "queue_empty": {"generator": 0.25}, "waits_s": {"round": 2.0}}
    assert slots_words(values) == "generator 75 %"
    assert speed_literals(progress(scores=Occupancy())) == {}  # engines that do not count their asks


def test_the_display_says_how_full_slots_and_window_are() -> None:
    values = {"slots_busy": {"generator": 0.754, "judge": 1.0}, "window_share": 0.3}
    assert facts(values) == [("slots busy", "generator 75 %, judge 100 %")]
    assert [name for name, _ in facts({**values, "window_share": 1.02})] == ["slots busy", "window"]
