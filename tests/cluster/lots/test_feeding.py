"""A lot's longest answer empties no engine: lots go on to it while it has slots, as far as the window allows."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gristmill.jobs.produce.command import produce
from tests.gated import WORDS
from tests.outputs import PATIENCE_S, kept_hashes
from tests.recipes import write

NUM_LOTS, LOT_SIZE = 20, 8
NUM_ASKS = NUM_LOTS * LOT_SIZE


def recipe(folder: Path, cluster: dict[str, Any], topics: list[str], seconds: float = 0.002, **limits: int) -> str:
    return write(
        folder / "recipe.toml",
        {
            "name": "gated",
            "lot_size": LOT_SIZE,
            "source": {"items": topics},
            "generator": {
                "kind": "tests.gated:Gated",
                "folder": str(folder),
                "num_slots": LOT_SIZE,
                "seconds": seconds,
            },
            "method": {"kind": "prompt", "template": "{text}"},
            "stages": [{"kind": "finish"}],
            "limits": limits or {"asks": NUM_ASKS},
            "cluster": cluster,
        },
    )


def topics(*gated: int) -> list[str]:
    return [WORDS if number in gated else f"topic {number}" for number in range(NUM_ASKS)]


def answered(folder: Path) -> list[str]:
    log = folder / "log"
    return log.read_text().splitlines() if log.exists() else []


def run(folder: Path, path: str, may_open: Callable[[], bool]) -> dict[str, Any]:
    """The manifest of a run whose gate opens as soon as it may."""

    def opener() -> None:
        end = time.monotonic() + PATIENCE_S
        while not may_open() and time.monotonic() < end:
            time.sleep(0.02)
        (folder / "seen").write_text("\n".join(answered(folder)))
        (folder / "open").touch()

    thread = threading.Thread(target=opener)
    thread.start()
    assert produce(path, str(folder / "out")).exit_code == 0
    thread.join()
    return json.loads((folder / "out" / "manifest.json").read_text())


def seen(folder: Path) -> int:
    """Number of asks that were answered while the gate was closed."""
    return len((folder / "seen").read_text().splitlines())


@pytest.fixture(scope="module")
def plain(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The shards of a run in which one lot follows the other."""
    folder = tmp_path_factory.mktemp("plain")
    run(folder, recipe(folder, {"window": 1}, topics(0)), lambda: True)
    return kept_hashes(str(folder / "out"))


def test_all_other_lots_are_made_while_one_ask_lasts(plain: dict[str, str], tmp_path: Path) -> None:
    path = recipe(tmp_path, {}, topics(0))
    manifest = run(tmp_path, path, lambda: len(answered(tmp_path)) == NUM_ASKS - 1)
    assert seen(tmp_path) == NUM_ASKS - 1
    assert kept_hashes(str(tmp_path / "out")) == plain
    engines = manifest["starts"][-1]["engines"]
    assert 0 <= engines["slots_busy"]["generator"] < 1
    assert engines["waits_s"]["asks"] > 0


@pytest.mark.parametrize(("bound", "num_lots"), [("window", 4), ("lots_per_replica", 1)])
def test_a_bound_on_lots_holds_lots_back_and_says_so(
    bound: str, num_lots: int, plain: dict[str, str], tmp_path: Path
) -> None:
    num = num_lots * LOT_SIZE - 1
    path = recipe(tmp_path, {bound: num_lots}, topics(0))
    manifest = run(tmp_path, path, lambda: len(answered(tmp_path)) >= num)
    assert seen(tmp_path) == num
    assert manifest["starts"][-1]["engines"]["waits_s"][bound] > 0
    assert kept_hashes(str(tmp_path / "out")) == plain


def test_full_memory_holds_lots_back_and_says_so(ray_session: None, tmp_path: Path) -> None:
    """The size of lots is known once the first is made, so the asks take a while."""
    path = recipe(tmp_path, {"window_mb": 1e-3}, topics(0), seconds=0.3)
    marks = [(0, time.monotonic())]

    def is_quiet() -> bool:
        if len(answered(tmp_path)) > marks[-1][0]:
            marks.append((len(answered(tmp_path)), time.monotonic()))
        return marks[-1][0] > LOT_SIZE and time.monotonic() - marks[-1][1] > 10 * 0.3

    manifest = run(tmp_path, path, is_quiet)
    assert seen(tmp_path) < NUM_ASKS - 1
    assert manifest["starts"][-1]["engines"]["waits_s"]["memory"] > 0


def test_lots_that_will_reach_a_limit_hold_others_back(ray_session: None, tmp_path: Path) -> None:
    limit = 6 * LOT_SIZE
    path = recipe(tmp_path, {}, topics(0), kept_rows=limit)
    run(tmp_path, path, lambda: len(answered(tmp_path)) >= limit - 1)
    assert len(answered(tmp_path)) == limit  # all rows are kept, and none was made in vain


def test_a_second_engine_shares_the_lots(plain: dict[str, str], tmp_path: Path) -> None:
    """The asks take a while, so that the second engine is open before the first has made them all."""
    path = recipe(tmp_path, {"replicas": 2}, topics(0), seconds=0.2)
    run(tmp_path, path, lambda: len(answered(tmp_path)) == NUM_ASKS - 1)
    commits = [json.loads(line) for p in sorted((tmp_path / "out/events").iterdir()) for line in p.open()]
    assert len({e["replica"] for e in commits if e["event"] == "commit"}) == 2
    assert kept_hashes(str(tmp_path / "out")) == plain
