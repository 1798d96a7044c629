"""The shape of machine-written JSON, checked against type annotations where a file is read.

A TypedDict or a dataclass states the keys that readers use. A file that was altered or cut is refused in one line that
names the key, so that readers need no checks of their own.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from gristmill.records.errors import UserError

T = TypeVar("T")
MAX_INT = 2**63
NAMES = {str: "a text", bool: "true or false", int: "an integer", float: "a number", type(None): "null"}


def check_shape(value: Any, hint: Any, where: str, key: str = "") -> None:
    """Raise UserError unless JSON literals have the shape of `hint`; `where` is the file.

    Tables of a TypedDict may hold further keys; those of a dataclass may not. Numbers are finite, and integers fit 64
    bits. `Any` stands for any literals. A `datetime` is a text in ISO format with a time zone.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return
    if origin in (typing.NotRequired, typing.Required, typing.Annotated):
        check_shape(value, args[0], where, key)
    elif origin in (typing.Union, types.UnionType):
        _check_union(value, args, where, key)
    elif origin is typing.Literal:
        if value not in args or isinstance(value, bool) != any(isinstance(a, bool) for a in args if a == value):
            _refuse(value, f"one of {', '.join(map(repr, args))}", where, key)
    elif origin in (list, tuple, Sequence):
        if not isinstance(value, list):
            _refuse(value, "a list", where, key)
        for at, item in enumerate(value):
            check_shape(item, args[0], where, f"{key}[{at}]")
    elif origin in (dict, Mapping) or hint is dict:
        if not isinstance(value, dict):
            _refuse(value, "a table", where, key)
        for name, item in value.items() if args else ():
            check_shape(item, args[1], where, _under(key, name))
    elif typing.is_typeddict(hint) or dataclasses.is_dataclass(hint):
        _check_table(value, hint, where, key)
    else:
        _check_scalar(value, hint, where, key)


def _check_table(value: Any, hint: Any, where: str, key: str) -> None:
    if not isinstance(value, dict):
        _refuse(value, "a table", where, key)
    hints = typing.get_type_hints(hint, include_extras=True)
    if dataclasses.is_dataclass(hint):
        fields = {f.name: f for f in dataclasses.fields(hint)}
        required = {
            n
            for n, f in fields.items()
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        }
        for name in value:
            if name not in fields:
                raise UserError(f"{where} cannot be read: {_under(key, name)} is no key of this version")
    else:
        required = set(hint.__required_keys__)
    for name in sorted(required):
        if name not in value:
            raise UserError(f"{where} cannot be read: {_under(key, name)} is missing")
    for name, item in value.items():
        if name in hints:
            check_shape(item, hints[name], where, _under(key, name))


def _check_union(value: Any, args: Sequence[Any], where: str, key: str) -> None:
    if value is None and type(None) in args:
        return
    choices = [a for a in args if a is not type(None)]
    for choice in choices[:-1]:
        try:
            return check_shape(value, choice, where, key)
        except UserError:
            continue
    check_shape(value, choices[-1], where, key)


def _check_scalar(value: Any, hint: Any, where: str, key: str) -> None:
    if hint is datetime:
        try:
            if datetime.fromisoformat(value).tzinfo is not None:
                return
        except (ValueError, TypeError):
            pass
        _refuse(value, "a time with its zone", where, key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and is_number and abs(value) < MAX_INT * 1e60 and math.isfinite(value):
        return
    if hint is int and is_number and isinstance(value, int) and abs(value) < MAX_INT:
        return
    if hint in (str, bool, type(None)) and isinstance(value, hint):
        return
    _refuse(value, NAMES.get(hint, hint.__name__), where, key)


def _refuse(value: Any, expected: str, where: str, key: str) -> typing.NoReturn:
    text = repr(value)
    text = text if len(text) <= 40 else f"{text[:37]}..."
    raise UserError(f"{where} cannot be read: {key or 'its content'} is {text}, not {expected}")


def _under(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)
