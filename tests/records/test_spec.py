"""Specs refuse what they do not know and say what was meant."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from gristmill.records.errors import UserError
from gristmill.records.ids import fingerprint
from gristmill.records.spec import build, later, literals, placement, used_if


@dataclass(frozen=True)
class Inner:
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError("share must lie in 0..1")


@dataclass(frozen=True)
class Outer:
    name: str
    mode: Literal["fast", "slow"] = "fast"
    sizes: tuple[int, ...] = ()
    inner: Inner = Inner()
    note: str | None = None


def test_builds_nested_specs() -> None:
    spec = build(Outer, {"name": "x", "sizes": [1, 2], "inner": {"share": 1}}, "recipe")
    assert spec == Outer("x", sizes=(1, 2), inner=Inner(1.0))
    assert literals(spec)["inner"] == {"share": 1.0}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"nam": "x"}, r"recipe: unknown key 'nam' \(did you mean 'name'\?\)"),
        ({}, "recipe: key 'name' is missing"),
        ({"name": 3}, "recipe.name: expected str, got int 3"),
        ({"name": "x", "mode": "quick"}, "recipe.mode: 'quick' is not one of"),
        ({"name": "x", "sizes": [1, "b"]}, r"recipe.sizes\[1\]: expected int"),
        ({"name": "x", "inner": {"share": 2.0}}, "recipe.inner: share must lie in 0..1"),
        ({"name": "x", "inner": {"shar": 2.0}}, "recipe.inner: unknown key 'shar'"),
        ({"name": "x", "sizes": [True]}, "expected int, got bool"),
    ],
)
def test_refuses_in_one_line(table: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(Outer, table, "recipe")


def test_what_has_no_stable_form_bears_no_identity() -> None:
    with pytest.raises(TypeError):
        literals({"f": lambda: 0})
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1}) != fingerprint({"a": 1, "b": [3]})


@dataclass(frozen=True)
class Grown:
    first: int = 1
    second: int = later(2)


@dataclass(frozen=True)
class Placed:
    deadline_s: int = 1
    workers: int = placement(1)


@dataclass(frozen=True)
class Switched:
    math: bool = False
    inner: Placed = field(default_factory=Placed, metadata=used_if("math"))


def test_identity_leaves_out_what_places_work_and_what_is_not_used() -> None:
    def identity(**table: Any) -> Any:
        return literals({"it": [build(Switched, table, "x")]}, identity=True)["it"][0]

    assert (
        identity(math=True) == identity(math=True, inner={"workers": 9}) == {"math": True, "inner": {"deadline_s": 1}}
    )
    assert identity(math=True, inner={"deadline_s": 2}) != identity(math=True)
    assert identity() == identity(inner={"deadline_s": 2}) == {"math": False}
    whole = build(Switched, {"inner": {"workers": 9}}, "x")
    assert literals(whole) == {"math": False, "inner": {"deadline_s": 1, "workers": 9}}, "a manifest shows all"
    assert build(Switched, literals(whole), "x") == whole


def test_a_later_key_bears_identity_only_where_it_is_given() -> None:
    assert literals(build(Grown, {}, "x")) == literals(build(Grown, {"second": 2}, "x")) == {"first": 1}
    assert literals(build(Grown, {"second": 3}, "x")) == {"first": 1, "second": 3}
