"""The gate audit: counts by stage and label, intervals, the breakdown share, and a run whose page tells them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import GateAuditSpec, Recipe, load
from gristmill.jobs.report import gate_audit
from gristmill.jobs.report.command import page
from gristmill.jobs.report.gate_audit import LabelledRows, count, gate_rates, gates, rate
from gristmill.jobs.report.gate_plot import plane
from gristmill.jobs.status.life import load_manifest
from gristmill.records.errors import UserError
from gristmill.records.spec import build
from gristmill.records.stores.opening import open_store
from tests.conftest import ROOT, gristmill
from tests.recipes import write

COUNTS = st.dictionaries(st.sampled_from(["", "generator", "first", "second"]), st.integers(0, 40))


@given(COUNTS, COUNTS)
def test_every_labelled_row_passes_or_stops_at_one_gate(right: dict[str, int], wrong: dict[str, int]) -> None:
    found = LabelledRows()
    found.right.update(right)
    found.wrong.update(wrong)
    first, second, together = gates(found, ["first", "second"])
    for side, counts in (("right", right), ("wrong", wrong)):
        one, two, all_ = (getattr(gate, side) for gate in (first, second, together))
        assert all_.of == one.of == sum(counts.values()) - counts.get("generator", 0)
        assert two.of == one.passed == one.of - counts.get("first", 0)
        assert two.passed == all_.passed == counts.get("", 0)
        if two.of:
            assert all_.value == pytest.approx(one.value * two.value)
    if first.breakdown and second.breakdown and together.breakdown:
        # Odds of the breakdown share are phi/psi: those of gates in a row multiply.
        odds = [
            float("inf") if g.breakdown == 1 else g.breakdown / (1 - g.breakdown) for g in (first, second, together)
        ]
        assert odds[2] == pytest.approx(odds[0] * odds[1])


@given(st.integers(0, 300).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_wilsons_interval(passed_of: tuple[int, int]) -> None:
    found = rate(*passed_of)
    assert 0 <= found.low <= found.high <= 1
    if found.value is None:
        assert (found.low, found.high) == (0, 1)
        return
    assert found.low <= found.value <= found.high
    turned = rate(found.of - found.passed, found.of)
    assert (turned.low, turned.high) == (pytest.approx(1 - found.high), pytest.approx(1 - found.low))
    # Its ends are the rates at which the share lies Z standard errors away (Wilson 1927).
    for end in (found.low, found.high):
        if 0 < end < 1:
            off = abs(found.value - end) / (end * (1 - end) / found.of) ** 0.5
            assert off == pytest.approx(gate_audit.Z, rel=1e-6)


def test_known_intervals_and_shares() -> None:
    assert rate(81, 263).low == pytest.approx(0.2553, abs=1e-4) and rate(81, 263).high == pytest.approx(
        0.3662, abs=1e-4
    )
    gate = gate_rates("g", (90, 100), (10, 100))
    assert gate.breakdown == pytest.approx(0.9) and gate.low is not None and gate.high is not None
    assert gate.low < 0.9 < gate.high
    assert gate_rates("g", (5, 5), (0, 5)).breakdown == 1.0
    assert gate_rates("g", (0, 5), (1, 5)).breakdown == 0.0
    assert gate_rates("g", (0, 5), (0, 5)).breakdown is None
    assert gate_rates("g", (0, 0), (1, 5)).breakdown is None


def test_the_figure_shows_what_can_be_told() -> None:
    shown = [
        gate_rates("<evil>", (9, 10), (2, 10)),
        gate_rates("h", (8, 9), (1, 2)),
        gate_rates("all", (8, 10), (1, 10)),
    ]
    assert "evil" not in plane(shown) and ">all<" in plane(shown) and plane(shown) == plane(shown)
    assert plane([]) == plane([gate_rates("all", (0, 0), (0, 0))]) == ""


def recipe(folder: Path, **changes: Any) -> str:
    """Sums with answers: half of them labelled; some say wrong what is right, and one holds an address."""
    items: list[dict[str, Any]] = []
    for n in range(40):
        label = {0: "right", 1: "wrong"}.get(n % 4)
        is_right = n % 4 != 1 or n == 37  # the gate lets one wrong row pass: its reference agrees with it
        text = f"{n} and {n} is {2 * n if is_right else 2 * n + 1}" + (", ask jo@mill.town" if n in (0, 1, 2) else "")
        items.append({"text": text, "answer": text.split(",")[0].split()[-1], "sum": f"{2 * n}.0", "label": label})
    items.append({"text": "no answer", "label": "right"})
    return write(
        folder / "recipe.toml",
        {
            "name": "sums",
            "lot_size": 16,
            "source": {"items": [{k: v for k, v in i.items() if v is not None} for i in items], "carry": ["label"]},
            "generator": {"kind": "passthrough", "columns": ["text", "answer", "sum"]},
            "stages": [{"kind": "pii"}, {"kind": "answer", "reference": "sum", "math": False}],
            "gate_audit": {"column": "label"},
            "cluster": {"num_cpus": 1},
            **changes,
        },
    )


def test_a_run_tells_what_its_gates_did(tmp_path: Path) -> None:
    done = gristmill("produce", recipe(tmp_path), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    store = open_store(str(tmp_path / "out"))
    found = count(store, 3, GateAuditSpec("label"))
    assert found.num_lots == 3 and found.unreadable == []
    assert found.right == {"": 9, "pii": 1, "generator": 1} and found.wrong == {"": 1, "pii": 1, "answer": 8}
    pii, answer, together = gates(found, ["pii", "answer"])
    assert (pii.right.passed, pii.right.of, pii.wrong.passed, pii.wrong.of) == (9, 10, 9, 10)
    assert pii.breakdown == pytest.approx(0.5), "a gate that does not look at what is wrong saves nothing"
    assert answer.breakdown == pytest.approx(1 / (1 + (1 / 9) / 1)) and together.breakdown == pytest.approx(0.9)
    assert "breakdown" in done.stdout and "0.900" in done.stdout
    told = page(store, load_manifest(store))
    assert "Gates, by rows of known label" in told and "0.900" in told and "9 of 10" in told
    # Labels are of the report alone: other ones, or none, are the same run.
    relabelled = compile_recipe(load(recipe(tmp_path, gate_audit={"column": "text", "right": "yes"})))
    assert relabelled.fingerprint == load_manifest(store).fingerprint
    other = count(store, 3, GateAuditSpec("label", right="wrong", wrong="right"))
    assert (other.right, other.wrong) == (found.wrong, found.right)
    (tmp_path / "out" / "kept" / "part-00000001.parquet").write_bytes(b"nothing")
    assert len(count(store, 3, GateAuditSpec("label")).unreadable) == 1


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gate_audit: right and wrong"):
        build(Recipe, {"name": "x", "generator": {}, "gate_audit": {"column": "a", "right": "wrong"}}, "recipe")
    with pytest.raises(UserError, match=r"rows have no column 'labl' \(did you mean 'label'"):
        compile_recipe(load(recipe(tmp_path, gate_audit={"column": "labl"})))
    with pytest.raises(UserError, match="pii_spans' is list"):
        compile_recipe(load(recipe(tmp_path, gate_audit={"column": "pii_spans"})))


@pytest.mark.nightly
def test_the_shipped_recipe_keeps_every_right_program(tmp_path: Path) -> None:
    done = gristmill("produce", str(ROOT / "recipes" / "verify-code.toml"), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    found = count(open_store(str(tmp_path / "out")), 8, GateAuditSpec(**manifest["recipe"]["gate_audit"]))
    (execute, _) = gates(found, ["execute"])
    assert (execute.right.passed, execute.right.of) == (164, 164) and execute.wrong.of == 492
    # What gets by is among the 164 programs that are wrong for a quarter of the inputs; 28 at the time of writing.
    assert execute.wrong.passed < 40 and execute.breakdown is not None and execute.breakdown > 0.9
