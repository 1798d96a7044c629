"""TOML files that people write: recipes of every verb, with `--set a.b=c` applied."""

import copy
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gristmill.jobs.recipes.kind_change import leave_out_other_keys
from gristmill.records.errors import UserError
from gristmill.records.literals import toml_tables
from gristmill.records.masking.masks import masked_setting, remember
from gristmill.records.plugins import look_in
from gristmill.records.readers.places import is_place
from gristmill.records.shipped import PREFIX, shipped_names, shipped_path
from gristmill.records.spec import nearest

logger = logging.getLogger(__name__)

# Keys of places, which are relative to the working folder or to the recipe's, and those of the flags of a flow.
PATH_KEYS = frozenset({"path", "file", "uri", "against", "table", "marginals"})
FLAG_KEYS = frozenset({"facts", "without", "real_train", "real_holdout", "schema", "student"})
TomlSource = str | Mapping[str, Any]  # the path of a TOML file, or the tables themselves


def label_of(source: TomlSource) -> str:
    """The name of a TOML source in messages."""
    return source if isinstance(source, str) else "the recipe"


def load_table(path: TomlSource, settings: Sequence[str] = ()) -> dict[str, Any]:
    """A TOML file, or tables that a program made, with the settings applied. Raises UserError, naming file and key."""
    if not isinstance(path, str):
        table = copy.deepcopy(dict(path))
        return _with_settings(table, settings)
    try:
        with open(shipped_path(path), "rb") as file:
            data = file.read()
    except FileNotFoundError:
        name = path.removeprefix(PREFIX)
        hint = f"{nearest(name, shipped_names())}; `gristmill recipes` lists them" if name != path else ""
        raise UserError(f"{path}: no such recipe file{hint}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # a path with a NUL or a lone surrogate
        raise UserError(f"{path}: cannot be read ({error})") from None
    try:
        table = toml_tables(data.decode())
    except ValueError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None
    folder = Path(shipped_path(path)).parent
    look_in(folder)
    table = _with_settings(table, settings)
    _find_beside(table, folder)
    return table


def _find_beside(value: Any, folder: Path, where: str = "", keys: frozenset[str] = PATH_KEYS) -> None:
    """Paths that are not in the working folder but beside the recipe become those. Where both exist, a line says so."""
    if isinstance(value, list):
        for number, entry in enumerate(value):
            _find_beside(entry, folder, f"{where}[{number}]")
    if not isinstance(value, dict):
        return
    for key, entry in value.items():
        place = f"{where}.{key}" if where else key
        if key in keys and isinstance(entry, str):
            value[key] = _beside(entry, folder, place)
        elif key in keys and isinstance(entry, list) and all(isinstance(path, str) for path in entry):
            value[key] = [_beside(path, folder, place) for path in entry]
        elif key != "items":  # rows of a source
            _find_beside(entry, folder, place, PATH_KEYS | FLAG_KEYS if key == "flags" else PATH_KEYS)


def _beside(path: str, folder: Path, where: str) -> str:
    """The path, or the one beside the recipe."""
    if not path or os.path.isabs(path) or ":" in path or path[0] == "~":
        return path
    beside = str(folder / path)
    is_here, is_beside = is_place(path), is_place(beside)
    if is_here and is_beside and os.path.realpath(path) != os.path.realpath(beside):
        logger.info(f"{where} {path}: taken from the working folder; {beside} exists, too")
    return beside if is_beside and not is_here else path


def _with_settings(table: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The table with the settings applied. From now on, messages of this process do not show its secrets."""
    before = copy.deepcopy(table) if settings else table
    for setting in settings:
        apply(table, setting)
    remember(table)
    if settings:
        leave_out_other_keys(before, table)
    return table


def apply(table: dict[str, Any], setting: str) -> None:
    """Put "a.b.0.c=value" into the table; the value is TOML, or a plain string where it is not valid TOML."""
    address, sep, text = setting.partition("=")
    if not sep or not address.strip():
        raise UserError(f"--set {masked_setting(setting)}: write it as key=value, e.g. --set limits.asks=100")
    try:
        value = toml_tables(f"x = {text}")["x"]
    except (ValueError, KeyError):
        value = text
    try:
        put(table, address, value)
    except (IndexError, ValueError, TypeError, AttributeError):
        raise UserError(f"--set {masked_setting(setting)}: there is no '{address}' to set") from None


def put(table: dict[str, Any], address: str, value: Any) -> None:
    """Put a value at "a.b.0.c". A table in a list is addressed by its place or by its `name`.

    Raises IndexError, ValueError, TypeError or AttributeError when there is no such place.
    """
    *parents, last = address.strip().split(".")
    place: Any = table
    for key in parents:
        place = place[_index(place, key)] if isinstance(place, list) else place.setdefault(key, {})
    place[_index(place, last) if isinstance(place, list) else last] = value


def _index(tables: list[Any], key: str) -> int:
    names = [entry.get("name") if isinstance(entry, dict) else None for entry in tables]
    return names.index(key) if key in names else int(key)


def parted(table: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """(kind, the other keys) of a table that names a class."""
    rest = dict(table)
    kind = rest.pop("kind", None)
    if not isinstance(kind, str):
        raise UserError(f"{where}: key 'kind' is missing")
    return kind, rest
