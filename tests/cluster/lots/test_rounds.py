"""Rounds: lots that read what earlier rounds kept, to the same bytes whatever the run lived through."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.rounds import RoundSource, RoundsSpec
from gristmill.records.stores.opening import open_store
from tests.conftest import gristmill
from tests.outputs import kept_hashes, shard_paths
from tests.recipes import AT_ONCE, canned

SEEDS = [{"instruction": f"Say how {what} is made."} for what in ("bread", "glass", "paper", "rope", "ink", "soap")]
WITH_WHO = {"items": [{**seed, "who": "a child"} for seed in SEEDS], "cycle": None}
ROUNDS = {"num": 3, "lots": 3}
LOT = 8


def recipe(folder: Path, kind: str, **changes: Any) -> str:
    # The canned engine draws what it says in JSON: half of the evolutions gain nothing, fail and are tried again.
    return canned(
        folder,
        lot_size=LOT,
        source={"items": SEEDS, "cycle": None},
        generator={"num_words": 40, "seconds_per_ask": 0.02, "contaminated": 0.0, "bad": 0.0},
        method={"kind": kind, "template": None},
        rounds=ROUNDS,
        limits={"asks": 10_000},
        stages=[{"kind": "dedup", "threshold": 0.9, "column": "instruction"}, {"kind": "novelty", "max_rouge_l": 0.95}],
        **changes,
    )


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [row for path in shard_paths(out) for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def evolved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evolved")
    done = gristmill("produce", recipe(folder, "evol_instruct"), "--out", str(folder / "out"), *AT_ONCE)
    assert done.returncode == 0, done.stderr
    return folder / "out"


def test_each_round_evolves_what_the_last_one_kept(evolved: Path) -> None:
    kept = {row["id"]: row for row in rows_of(evolved)}
    seeds = {f"items:{n}" for n in range(len(SEEDS))}
    by_round: dict[int, list[dict[str, Any]]] = {0: [], 1: [], 2: []}
    for row in kept.values():
        by_round[row["lot"] // ROUNDS["lots"]].append(row)
    assert all(by_round.values())
    assert all(row["source_id"] in seeds and row["depth"] == 1 for row in by_round[0])
    for number in (1, 2):
        for row in by_round[number]:
            parent = kept.get(row["source_id"])
            if parent is None:
                assert row["source_id"] in seeds and row["depth"] == 1  # a line that had failed until now
            else:
                assert parent["lot"] // ROUNDS["lots"] < number
                assert row["parent"] == parent["instruction"] and row["depth"] == parent["depth"] + 1
    assert max(row["depth"] for row in kept.values()) == 3
    assert gristmill("audit", str(evolved)).returncode == 0


def test_a_stop_in_a_later_round_and_another_window_change_no_byte(evolved: Path, tmp_path: Path) -> None:
    out, narrow = str(tmp_path / "out"), recipe(tmp_path, "evol_instruct", cluster={"window": 2})
    part = f"limits.asks={(ROUNDS['lots'] + 1) * LOT}"
    for settings in (["--set", part], []):
        done = gristmill("produce", narrow, "--out", out, *AT_ONCE, *settings)
        assert done.returncode == 0, done.stderr
    assert "going on after" in done.stderr
    assert kept_hashes(out) == kept_hashes(str(evolved))


def test_examples_are_seeds_until_rows_are_kept(evolved: Path, tmp_path: Path) -> None:
    source = open_source(SourceSpec(items=tuple(SEEDS)))
    spec = RoundsSpec(num=3, lots=3, seed_examples=3, own_examples=2)
    kept, mark = open_store(str(evolved)), "0" * 31 + "7"
    made = RoundSource(source, kept, spec, "examples", ["instruction"], mark, LOT)
    again = RoundSource(source, kept, spec, "examples", ["instruction"], mark, LOT)
    own = {row["instruction"] for row in rows_of(evolved) if row["lot"] < 2 * ROUNDS["lots"]}
    given = {row["instruction"] for row in SEEDS}
    by_id = {f"items:{n}": seed["instruction"] for n, seed in enumerate(SEEDS)}
    by_id |= {row["id"]: row["instruction"] for row in rows_of(evolved)}
    drawn: list[tuple[str, ...]] = []
    for ask in (0, 5, 3 * LOT, 6 * LOT, 6 * LOT + 1):
        [(name, text)] = made.ask_rows(ask, ask + 1, len(SEEDS))
        assert (
            again.ask_rows(6 * LOT, 6 * LOT + 1, len(SEEDS)) and again.ask_rows(ask, ask + 1, len(SEEDS))[0][0] == name
        )
        fields = json.loads(text)
        told = [e["instruction"] for e in fields["examples"]]
        assert [by_id[row_id] for row_id in fields["example_ids"]] == told
        assert fields["instruction"] == SEEDS[ask % len(SEEDS)]["instruction"] and name == f"items:{ask % len(SEEDS)}"
        assert len(told) == len(set(told)) == 5
        assert sum(t in given for t in told) == (5 if ask < 3 * LOT else 3) and set(told) <= given | own
        drawn.append(tuple(told))
    assert len(set(drawn)) == len(drawn)
    fresh = RoundSource(source, kept, spec, "examples", ["instruction"], mark, LOT)
    assert fresh.ask_rows(6 * LOT, 7 * LOT, len(SEEDS)) == made.ask_rows(6 * LOT, 7 * LOT, len(SEEDS))


def test_self_instruct_in_rounds_is_the_same_again(tmp_path: Path) -> None:
    outs = [tmp_path / "one", tmp_path / "other"]
    for out, window in zip(outs, (1, 9)):
        path = recipe(tmp_path / f"w{window}", "self_instruct", cluster={"window": window})
        done = gristmill("produce", path, "--out", str(out), *AT_ONCE)
        assert done.returncode == 0, done.stderr
    assert kept_hashes(str(outs[0])) == kept_hashes(str(outs[1]))
    rows = rows_of(outs[0])
    ids, seeds = {row["id"] for row in rows}, {f"items:{n}" for n in range(len(SEEDS))}
    shown = [set(row["example_ids"]) for row in rows]
    assert all(each and each <= ids | seeds for each in shown) and any(each & ids for each in shown)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"source": {"items": SEEDS, "cycle": True}}, "remove source.samples and source.cycle"),
        (
            {"method": {"kind": "evol_instruct", "template": None, "system": "For {who}."}, "source": WITH_WHO},
            "reads the source column 'who', which the rows of later rounds have only if source.carry names it",
        ),
        ({"rounds": {"num": 0}}, "num and lots must be at least 1"),
        ({"rounds": {"num": 1, "seed_examples": 0, "own_examples": 0}}, "nor both 0"),
    ],
)
def test_rounds_that_cannot_be_are_refused(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    table = {
        "method": {"kind": "evol_instruct", "template": None},
        "rounds": ROUNDS,
        "source": {"items": SEEDS, "cycle": None},
        **changes,
    }
    done = gristmill("produce", canned(tmp_path, **table), "--out", str(tmp_path / "out"), "--dry-run")
    assert done.returncode == 2 and told in done.stderr
