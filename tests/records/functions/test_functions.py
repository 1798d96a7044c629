"""Sources of computed rows: any row from anywhere, the same in every process, and one line for what does not fit."""

import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.jobs.produce.forecast import plan_table
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.errors import UserError
from gristmill.records.functions.contract import RowFunction
from gristmill.records.functions.draws import Draws
from gristmill.records.functions.registry import KINDS, row_function
from gristmill.records.lots import Plan, ask_batch, source_lot
from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.rounds import RoundsSpec, check_rounds
from gristmill.records.spec import build, literals
from gristmill.records.tasks.rows import TaskRowsSpec
from gristmill.testing import check_row_function
from tests.recipes import write

TASKS: dict[str, Any] = {"kind": "tasks", "families": ["arithmetic", "sets"], "levels": [1, 2]}
PLUGIN = """
from dataclasses import dataclass
from gristmill import RowFunction

@dataclass(frozen=True)
class Spec:
    step: int = 2

class Squares(RowFunction):
    '''Squares.'''
    Spec = Spec
    columns = ("text",)

    def row(self, number, draws):
        return {"text": f"{(number * self.spec.step) ** 2} {draws.below(10)}"}
"""


def opened(of_recipe: int = 0, **keys: Any) -> Any:
    return open_source(build(SourceSpec, {**TASKS, **keys}, "source"), of_recipe)


def recipe(folder: Path, source: dict[str, Any], **changes: Any) -> str:
    tables = {
        "name": "computed",
        "source": source,
        "generator": {"kind": "passthrough", "columns": ["question"], "origin": "synthetic"},
        "limits": {"asks": 40},
        "lot_size": 16,
        **changes,
    }
    return write(folder / "recipe.toml", tables)


@given(st.integers(0, 10**9), st.integers(0, 30), st.integers(1, 20))
def test_rows_can_be_read_from_anywhere(first: int, offset: int, count: int) -> None:
    source = opened()
    rows = source.rows(first, first + 60)
    assert source.rows(first + offset, first + offset + count) == rows[offset : offset + count]
    assert [source_id for source_id, _ in rows[:2]] == [f"tasks:{first}", f"tasks:{first + 1}"]


@given(st.integers(0, 99), st.integers(1, 7), st.integers(1, 12), st.integers(1, 4), st.booleans())
def test_asks_are_those_of_a_list_of_the_rows(
    start: int, num_rows: int, count: int, samples: int, is_together: bool
) -> None:
    together = is_together and samples > 1
    keys = {"num_rows": num_rows, "samples": samples, **({"together": True} if together else {})}
    source = opened(**keys)
    rows = source.rows(0, num_rows)
    stop = min(start + count, num_rows * samples)
    asks = list(source.ask_rows(start, stop, num_rows)) if stop > start else []
    assert asks == [rows[at // samples if together else at % num_rows] for at in range(start, stop)]


def test_a_lot_in_flight_carries_the_function_and_not_the_rows() -> None:
    plan = Plan("ab" * 16, 5000, None, 1 << 62, "canned", carry=("reference",))
    lot = source_lot(plan, opened(), 3)
    message = pickle.dumps(lot)
    assert len(message) < 4000 and lot.nbytes < 4000
    batch = ask_batch(pickle.loads(message))
    assert batch.equals(ask_batch(lot)) and batch.num_rows == 5000
    assert batch.column("source_id")[7].as_py() == "tasks:15007"
    assert json.loads(batch.column("ask")[7].as_py())["reference"] == batch.column("reference")[7].as_py()


def test_identity_covers_what_changes_rows() -> None:
    digest = opened().digest()
    assert digest == opened(carry=["reference"], license="mit").digest() == opened(seed=0).digest()
    others = (opened(1), opened(levels=[1]), opened(families=["sets"]), opened(num_rows=5))
    assert len({digest, *(other.digest() for other in others)}) == 5
    assert opened(3).rows(0, 9) == opened(0, seed=3).rows(0, 9) != opened().rows(0, 9)
    assert opened(-1).rows(0, 1) != opened(1).rows(0, 1)


def test_keys_of_the_kind_stand_beside_those_of_the_source() -> None:
    spec = build(SourceSpec, TASKS, "source")
    assert literals(spec)["families"] == ["arithmetic", "sets"] and "keys" not in literals(spec)
    assert build(SourceSpec, literals(spec), "source") == spec
    assert "kind" not in literals(SourceSpec(path="rows.jsonl"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "task"}, r"source: unknown kind 'task' \(did you mean 'tasks'\?\)"),
        ({"familes": ["sets"]}, r"unknown key 'familes' \(did you mean 'families'\?\)"),
        ({"sample": 2}, r"unknown key 'sample' \(did you mean 'samples'\?\)"),
        ({"families": ["set"]}, r"no family 'set' \(did you mean 'sets'\?\)"),
        ({"families": ["sets", "list_programs"]}, "make a run of each"),
        ({"levels": [0]}, "levels: 0 is not in 1 to 10"),
        ({"levels": []}, "at least one each"),
        ({"levels": [1, 1]}, "1 is named twice"),
        ({"cycle": True}, "cycle needs num_rows"),
        ({"samples": 2}, "samples needs together = true or num_rows"),
        ({"num_rows": 0}, "num_rows must be at least 1"),
        ({"path": "rows.jsonl"}, "set one of 'items', 'path' and 'kind'"),
        ({"columns": {"a": "b"}}, "for the files of path, not for kind"),
        ({"kind": None, "path": "rows.jsonl", "num_rows": 3}, "unknown key|num_rows and seed are for"),
        ({"carry": ["answer"]}, "source.carry names the source column 'answer'"),
        ({"kind": "personas"}, "unknown key 'families'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    source = {key: value for key, value in {**TASKS, **keys}.items() if value is not None}
    with pytest.raises(UserError, match=message) as caught:
        compile_recipe(load(recipe(tmp_path, source)))
    assert "\n" not in str(caught.value)


def test_rows_without_end_need_a_limit_or_a_number(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="without num_rows has no end"):
        load(recipe(tmp_path, TASKS, limits={}))
    assert compile_recipe(load(recipe(tmp_path, {**TASKS, "num_rows": 30}, limits={}))).plan.num_asks == 30
    assert compile_recipe(load(recipe(tmp_path, {**TASKS, "num_rows": 30, "samples": 2}))).plan.num_asks == 40
    with pytest.raises(UserError, match="too long for that: tasks of 2 families at levels 1, 2; without end"):
        check_rounds(RoundsSpec(num=2), opened(), 1, False)


def test_computed_rows_are_never_called_real(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='set generator.origin = "synthetic"'):
        compile_recipe(load(recipe(tmp_path, TASKS), ["generator.origin=real"]))


def test_the_plan_says_what_the_source_is(tmp_path: Path) -> None:
    compiled = compile_recipe(load(recipe(tmp_path, TASKS)))
    table = plan_table(compiled, "out")
    shown = dict(zip(table.columns[0].cells, table.columns[1].cells))
    assert shown["source"] == "tasks of 2 families at levels 1, 2; without end"
    assert compiled.identity["source"]["function"]["families"] == ["arithmetic", "sets"]


def test_a_plug_in_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "squares_plugin.py").write_text(PLUGIN)
    source = {"kind": "squares_plugin:Squares", "step": 3, "num_rows": 20}
    path = recipe(tmp_path, source, generator={"kind": "passthrough", "columns": ["text"], "origin": "synthetic"})
    compiled = compile_recipe(load(path))
    assert [json.loads(text)["text"].split()[0] for _, text in compiled.source.rows(0, 3)] == ["0", "9", "36"]
    (tmp_path / "squares_plugin.py").write_text(PLUGIN.replace("** 2", "** 3"))
    assert compile_recipe(load(path)).fingerprint != compiled.fingerprint
    with pytest.raises(UserError, match="unknown key 'stp'"):
        compile_recipe(load(path, ["source.stp=2"]))
    (tmp_path / "squares_plugin.py").write_text(PLUGIN.replace("step", "samples"))
    with pytest.raises(UserError, match="its key 'samples' is a key of"):
        compile_recipe(load(recipe(tmp_path, {"kind": "squares_plugin:Squares", "num_rows": 20})))


class Numbers(RowFunction):
    """Rows that break the law in their spec."""

    Spec = TaskRowsSpec
    kind = "numbers"
    columns = ("text",)

    def __init__(self, law: int) -> None:
        super().__init__(TaskRowsSpec())
        self.law, self.num_rows = law, 0

    def row(self, number: int, draws: Draws) -> dict[str, Any]:
        self.num_rows += 1
        rows: dict[int, dict[str, Any]] = {1: {"other": 1}, 2: {"text": {1, 2}}, 3: {"text": self.num_rows}}
        return rows.get(self.law, {"text": draws.below(9)})

    def identity(self) -> dict[str, Any]:
        return {"at": id(self)} if self.law == 4 else super().identity()


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_keep_the_laws(kind: str) -> None:
    check_row_function(row_function(kind, {}))


@pytest.mark.parametrize("law", [1, 2, 3, 4])
def test_a_broken_law_is_named(law: int) -> None:
    check_row_function(Numbers(0))
    with pytest.raises(AssertionError, match=f"Numbers breaks law {law}"):
        check_row_function(Numbers(law))


def test_draws_are_uniform_and_have_fixed_values() -> None:
    assert [Draws(7, 3).below(1000) for _ in range(2)] == [Draws(7, 3).below(1000)] * 2
    counts = [0] * 7
    for number in range(7000):
        counts[Draws(1, number).below(7)] += 1
    assert sum((count - 1000) ** 2 / 1000 for count in counts) < 22.5  # chi-square, 6 degrees of freedom, p = 0.001
    draws = Draws(0, 0)
    orders = {tuple(draws.shuffled("abc")) for _ in range(200)}
    assert len(orders) == math.factorial(3)
    weighted = [draws.weighted([1, 1, 4]) for _ in range(4000)]
    assert 1 not in weighted and 900 < weighted.count(0) < 1100
    # The values on any machine and with any version of numpy: outputs depend on them.
    assert [Draws(0, number).below(10**6) for number in (0, 1, 1 << 40)] == FIXED
    with pytest.raises(ValueError, match="3 of 2 values"):
        draws.sample("ab", 3)


FIXED = [426240, 822872, 754488]
