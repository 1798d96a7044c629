"""The money of an output whose driver was killed: every verb tells what its rows and its kept answers have cost."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.jobs.cli import main
from gristmill.jobs.release.mixture.parts import open_part
from gristmill.jobs.release.mixture.spec import PartSpec
from gristmill.jobs.terminal.console import open_console
from gristmill.jobs.terminal.tables import cost_table
from gristmill.records.exit_codes import CANNOT, DONE
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.summary import Summary
from gristmill.records.schema import cost_field, release_columns
from tests.outputs import commit_lots
from tests.paid import PRICE
from tests.recipes import write

LOT_SIZE, NUM_LOTS = 12, 3
ROWS = LOT_SIZE * PRICE


def recipe(folder: Path, **keys: Any) -> str:
    table = {
        "name": "paid-test",
        "lot_size": LOT_SIZE,
        "source": {"items": ["a river", "a bridge"], "cycle": True},
        "generator": {"kind": "tests.paid:Paid", "folder": str(folder), **keys},
        "method": {"kind": "prompt"},
        "limits": {"asks": NUM_LOTS * LOT_SIZE},
        "cluster": {"num_cpus": 2, "currency": "EUR"},
    }
    return write(folder / "recipe.toml", table)


def status(out: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["status", out, "--json"]) == DONE
    return dict(json.loads(capsys.readouterr().out))


def check(cost: dict[str, Any], paid: float, kept: int) -> None:
    assert cost["paid"] == cost["cost"] == paid and cost["currency"] == "EUR"
    assert cost["per_kept_row"] == paid / kept


def test_after_a_kill_at_the_end_every_verb_tells_the_same_money(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out, kept = recipe(tmp_path), str(tmp_path / "out"), NUM_LOTS * LOT_SIZE
    commit_lots(path, out, NUM_LOTS)
    before = status(out, capsys)
    assert before["state"] == "stopped" and before["totals"]["paid"] == NUM_LOTS * ROWS
    check(before["cost"], NUM_LOTS * ROWS, kept)
    assert main(["produce", path, "--out", out]) == DONE
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["state"] == "complete" and not (tmp_path / "out" / "answers").exists()
    check(manifest["cost"], NUM_LOTS * ROWS, kept)
    assert "of it for calls" in capsys.readouterr().out


def test_a_killed_run_with_kept_answers_is_read_by_every_verb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    commit_lots(recipe(tmp_path), out, NUM_LOTS - 1, num_in_flight=1)
    names = sorted(path.name for path in (tmp_path / "out" / "answers").iterdir())
    run = status(out, capsys)
    check(run["cost"], NUM_LOTS * ROWS, (NUM_LOTS - 1) * LOT_SIZE)  # the lot in flight is paid, too
    assert main(["audit", out]) == DONE
    assert main(["report", out]) == DONE
    assert f"EUR, of it {NUM_LOTS * ROWS:.2f} for calls" in (tmp_path / "out" / "report.html").read_text()
    pack = ["pack", out, "--to", str(tmp_path / "release"), "--dry-run"]
    capsys.readouterr()
    assert main(pack) == CANNOT
    assert "command to the end" in capsys.readouterr().err
    path = tmp_path / "out" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "state": "budget", "ended": "cost"}))
    assert main(pack) == DONE
    assert sorted(path.name for path in (tmp_path / "out" / "answers").iterdir()) == names  # readers change nothing


@pytest.mark.parametrize(
    ("price", "words"), [(0.000012, "0.0000120 EUR"), (1.5e-7, "0.000000150 EUR"), (2.5, "2.50 EUR")]
)
def test_money_is_shown_to_three_digits_however_little_it_is(
    price: float, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Manifest("f" * 32, {"cluster": {"currency": "EUR"}}, {}, starts=[{}])
    run.recount(Summary(num_lots=1, asks=1, kept=1, kept_tokens=1000, paid=price))
    assert run.cost["cost"] == run.cost["paid"] == run.cost["per_kept_row"] == run.cost["per_1000_kept_tokens"] == price
    open_console().print(cost_table(run.totals, [], run.cost))
    assert " ".join(capsys.readouterr().out.split()).count(words) == 4


def test_a_release_has_the_reasoning_of_its_rows_and_not_their_cost(tmp_path: Path) -> None:
    """What a row has cost is in the currency of its run; a column `cost` of the source is a column as any other."""
    names = ["id", "text", "reasoning", "tokens_reasoning"]
    paid = pa.schema([*(pa.field(n, pa.string()) for n in [*names, "minhash", "reject"]), cost_field("judge_cost")])
    assert release_columns(paid.append(cost_field("cost"))) == names
    assert release_columns(paid.append(pa.field("cost", pa.float64()))) == [*names, "cost"]
    out = str(tmp_path / "out")
    commit_lots(recipe(tmp_path), out, NUM_LOTS)
    path = tmp_path / "out" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "state": "complete"}))
    assert "cost" in pq.read_schema(tmp_path / "out" / "kept" / "part-00000000.parquet").names
    part = open_part(PartSpec(uri=out))
    assert part.schema is not None and "text" in part.schema.names and "cost" not in part.schema.names
