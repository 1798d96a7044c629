"""From a TOML table to a frozen spec. Unknown keys are refused with the nearest key, and types are checked.

A spec is a frozen dataclass beside the class that it configures. `build` reads the annotations, so a spec needs no
separate schema. Checks across fields belong in `__post_init__` and raise `ValueError` with a one-line message.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from gristmill.records.errors import UserError
from gristmill.records.masking.masks import shown

T = TypeVar("T")
LATER, PLACEMENT, USED_IF, OF_KIND = "later", "placement", "used_if", "of_kind"


def nearest(word: str, candidates: typing.Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` when a candidate is close to `word`, else `" (known: ...)"`."""
    names = sorted(candidates)
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (known: {', '.join(names)})" if names else ""


def later(default: Any) -> Any:
    """Mark a field added later. At its default it is omitted from the fingerprint, so old outputs stay resumable."""
    return dataclasses.field(default=default, metadata={LATER: True})


def placement(default: Any) -> Any:
    """Mark a field that only decides where and how concurrently work is done. It is not part of the identity."""
    return dataclasses.field(default=default, metadata={PLACEMENT: True})


def keys_of_kind() -> Any:
    """A field for the keys that belong to the class that `kind` names; in TOML and in literals they stand beside it."""
    return dataclasses.field(default=None, metadata={LATER: True, OF_KIND: True})


def used_if(switch: str) -> dict[str, str]:
    """Metadata of a field that has an effect, and is part of the identity, only when the field `switch` is true."""
    return {USED_IF: switch}


def build(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """The frozen dataclass `cls` from `table`; `where` names the table in messages, e.g. "stages[2]".

    Raises UserError for an unknown key, a missing key, a value of the wrong type or a value the spec refuses.
    """
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    of_kind = next((name for name, field in fields.items() if field.metadata.get(OF_KIND)), None)
    if of_kind is not None:
        fields.pop(of_kind)
    others = {key: value for key, value in table.items() if key not in fields}
    for key in others:
        if of_kind is None or table.get("kind") is None:
            raise UserError(f"{where}: unknown key '{key}'{nearest(key, fields)}")
    hints = typing.get_type_hints(cls)
    values = {}
    for name, field in fields.items():
        if name in table:
            values[name] = convert(table[name], hints[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{where}: key '{name}' is missing")
    if of_kind is not None and others:
        values[of_kind] = plain(others, where)
    try:
        return cls(**values)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as the annotated type: lists become tuples, ints widen to float, tables become nested specs."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return plain(value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        inner = [a for a in args if a is not type(None)]
        for kind in inner[:-1]:
            try:
                return convert(value, kind, where)
            except UserError:
                continue
        return convert(value, inner[-1], where)
    if origin is typing.Literal:
        if value not in args:
            raise UserError(f"{where}: {shown(value, where)} is not one of {', '.join(repr(a) for a in args)}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where}: expected a list, got {type(value).__name__}")
        return tuple(convert(v, args[0], f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict or hint is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{where}: expected a table, got {type(value).__name__}")
        return {k: convert(v, args[1] if args else Any, f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        if dataclasses.is_dataclass(value):
            return value
        if not isinstance(value, Mapping):
            raise UserError(f"{where}: expected a table, got {type(value).__name__}")
        return build(hint, value, where)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: {value} is not a finite number")
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UserError(f"{where}: expected {hint.__name__}, got {type(value).__name__} {shown(value, where)}")
    return value


def plain(value: Any, where: str) -> Any:
    """`value` if JSON can express it. Raises UserError for dates, NaN and other values."""
    if isinstance(value, Mapping):
        return {k: plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if value is None or isinstance(value, str | int | bool) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise UserError(f"{where}: {value} is neither text, number, boolean, list nor table")


def literals(spec: Any, identity: bool = False) -> Any:
    """A spec as literals for JSON (dicts, lists, scalars): for a manifest, or with `identity` for a fingerprint.

    Raises TypeError for a value without a stable serialisation.
    """
    if dataclasses.is_dataclass(spec) and not isinstance(spec, type):
        fields = [f for f in dataclasses.fields(spec) if f.init and not _is_left_out(spec, f, identity)]
        beside = {f.name for f in fields if f.metadata.get(OF_KIND)}
        values = {f.name: literals(getattr(spec, f.name), identity) for f in fields if f.name not in beside}
        return {**values, **{k: v for name in beside for k, v in literals(getattr(spec, name), identity).items()}}
    if isinstance(spec, Mapping):
        return {str(k): literals(v, identity) for k, v in spec.items()}
    if isinstance(spec, list | tuple):
        return [literals(v, identity) for v in spec]
    if spec is None or isinstance(spec, str | int | float | bool):
        return spec
    raise TypeError(f"{type(spec).__name__} has no stable serialisation")


def _is_left_out(spec: Any, field: "dataclasses.Field[Any]", identity: bool) -> bool:
    marks = field.metadata
    if marks.get(LATER) and getattr(spec, field.name) == field.default:
        return True
    return identity and bool(marks.get(PLACEMENT) or (USED_IF in marks and not getattr(spec, marks[USED_IF])))
