"""Formats of the JSON files that gristmill writes and reads again.

Each file states its format. A later version that changes the meaning of a file adds a number here, and upgrades the
literals of the older formats where the file is read.
"""

from typing import Any

from gristmill.records.errors import UserError
from gristmill.records.literals import json_value

READABLE = {  # the formats that this version reads; it writes the newest of them
    "manifest.json": {3, 4},  # a run: 3 since 0.2; 4: rejected shards are counted, and named by their content
    "model.json": {1},
    "audit.json": {1},
    "study.json": {1},
    "mixture.json": {1},
    "metrics.json": {1},
    "pack.json": {1},
    "flow.json": {1},
    "takedown.json": {1},
    "compare.json": {1},
}


def newest(name: str) -> int:
    """The format in which this version writes the file `name`."""
    return max(READABLE[name])


def parse(data: bytes, name: str, where: str) -> dict[str, Any]:
    """The JSON object in `data`, a file of the kind `name`, in a readable format; `where` is its address for messages.

    Raises UserError for another format and for anything that is not a JSON object.
    """
    literals = parse_json(data, where)
    number = literals.get("format") if isinstance(literals, dict) else None
    if not isinstance(number, int) or isinstance(number, bool):
        raise UserError(f"{where} cannot be read: it states no format")
    if number not in READABLE[name]:
        formats = ", ".join(map(str, sorted(READABLE[name])))
        raise UserError(f"{where} has format {number}; this version of gristmill reads format {formats}")
    return dict(literals)


def parse_json(data: bytes, where: str) -> Any:
    """The literals in `data`. Raises UserError, which names the file `where`, for anything that is not JSON."""
    try:
        return json_value(data)
    except ValueError as error:
        raise UserError(f"{where} cannot be read: {str(error).splitlines()[0]}") from None
