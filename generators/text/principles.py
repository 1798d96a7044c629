"""A constitution: principles in a TOML file, by which answers are criticised, revised and judged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.generators.text.contract import Template, mix
from gristmill.generators.text.steps import Steps
from gristmill.records.errors import UserError
from gristmill.records.literals import toml_tables
from gristmill.records.spec import build, literals, nearest
from gristmill.records.stores.opening import read_bytes


@dataclass(frozen=True)
class Principle:
    """One [[principles]] table; recipes/principles/constitution.toml says what each key is for."""

    id: str
    critique: str
    revision: str
    judge: str

    def __post_init__(self) -> None:
        for name, text in self.__dict__.items():
            if not text.strip():
                raise ValueError(f"{name} is empty")


@dataclass(frozen=True)
class Constitution:
    """The file as a whole."""

    principles: tuple[Principle, ...]

    def __post_init__(self) -> None:
        ids = [p.id for p in self.principles]
        if not ids:
            raise ValueError("there is no [[principles]] table")
        for name in ids:
            if ids.count(name) > 1:
                raise ValueError(f"two principles have the id '{name}'")


def load_principles(path: str, only: Sequence[str] = ()) -> tuple[Principle, ...]:
    """The principles of a local or s3:// file, in its order; those with the ids `only`, where any are given.

    Raises UserError for a file that is missing or no constitution, and for an id that is not in it.
    """
    try:
        table = toml_tables(read_bytes(path).decode())
    except ValueError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None
    principles = build(Constitution, table, path).principles
    known = [p.id for p in principles]
    for name in only:
        if name not in known:
            raise UserError(f"method.only: no principle '{name}' in {path}{nearest(name, known)}")
    return tuple(p for p in principles if not only or p.id in only)


def draw(principles: Sequence[Principle], num: int, seed: int) -> list[Principle]:
    """`num` different principles, drawn from the seed, in the order of the draws."""
    left = list(principles)
    return [left.pop(mix(mix(seed, -2), at) % len(left)) for at in range(num)]


class PrincipledSteps(Steps):
    """Base of the methods that go by a constitution. Their specs have `prompt`, `file` and `only`."""

    def __init__(self, spec: Any) -> None:
        super().__init__(spec)
        self._prompt = Template(spec.prompt)
        self._principles = load_principles(spec.file, spec.only)

    def fields_read(self) -> list[str]:
        return self.columns_of(self._prompt)

    def identity(self) -> dict[str, Any]:
        # The content of the file, not its path.
        kept = {name: value for name, value in super().identity().items() if name != "file"}
        return {**kept, "principles": literals(self._principles)}
