"""From `source.kind` to its class."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from gristmill.records.errors import UserError
from gristmill.records.functions.contract import RowFunction
from gristmill.records.kinds import kind_class
from gristmill.records.spec import build, nearest

GROUP = "gristmill.sources"
KINDS = {
    "personas": ("gristmill.records.personas.rows", "PersonaRows"),
    "tasks": ("gristmill.records.tasks.rows", "TaskRows"),
}


def function_class(kind: str) -> Any:
    """The class of `kind`. Raises UserError for an unknown kind."""
    return kind_class(KINDS, kind, "source", RowFunction, GROUP)


def row_function(kind: str, keys: dict[str, Any], source_keys: Iterable[str] = ()) -> RowFunction:
    """The function of `kind` with its keys; `source_keys` are those of `[source]` itself.

    Raises UserError for unknown kinds, keys and values, and for a kind that has a key of `[source]`.
    """
    cls = function_class(kind)
    own_keys = [field.name for field in dataclasses.fields(cls.Spec)]
    for name in set(own_keys) & set(source_keys):
        raise UserError(f"source: kind '{kind}': its key '{name}' is a key of [source]; give it another name")
    for key in keys:
        if key not in own_keys:
            raise UserError(f"source ({kind}): unknown key '{key}'{nearest(key, [*own_keys, *source_keys])}")
    function: RowFunction = cls(build(cls.Spec, keys, f"source ({kind})"))
    return function
