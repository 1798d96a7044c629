"""The list of a take-down: row ids, source ids and source digests."""

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gristmill.records.errors import UserError
from gristmill.records.literals import json_value
from gristmill.records.stores.digest import NUM_HEX
from gristmill.records.stores.opening import read_bytes

Kind = Literal["id", "source_id", "source_digest"]
KINDS: dict[Kind, str] = {"id": "row ids", "source_id": "source ids", "source_digest": "source digests"}
LINES, TABLES = (".jsonl", ".ndjson"), {".csv": ",", ".tsv": "\t"}
NUM_BYTES = 16  # of a key
MAX_NAMED = 3  # lines in a message
SHA256 = re.compile("[0-9a-f]{64}")


def key(value: str) -> bytes:
    """A hash of 16 bytes that stands for an id, so that sets of ids take little memory."""
    return hashlib.blake2b(value.encode("utf-8", "replace"), digest_size=NUM_BYTES).digest()


@dataclass(frozen=True)
class Listing:
    """The entries of a list. An entry without a kind is looked for in all kinds of columns."""

    entries: tuple[tuple[str, Kind | None], ...]

    @property
    def digest(self) -> str:
        """32 hex characters over the entries, in any order."""
        return hashlib.blake2b(repr(sorted(self.entries, key=repr)).encode(), digest_size=16).hexdigest()

    @property
    def files(self) -> dict[str, int]:
        """Number of the entry by the first half of a SHA-256, of those that may be one of a file."""
        may_be = [
            (at, value.lower()) for at, (value, kind) in enumerate(self.entries) if kind in (None, "source_digest")
        ]
        return {value[:NUM_HEX]: at for at, value in may_be if SHA256.fullmatch(value)}

    def keys(self, kind: Kind) -> dict[bytes, int]:
        """Number of the entry by key, of those that may be of this kind."""
        return {key(value): at for at, (value, own_kind) in enumerate(self.entries) if own_kind in (None, kind)}


def read_listing(uri: str) -> Listing:
    """The list in a file: one value a line; JSONL or CSV with a column `id`, `source_id` or `source_digest`.

    Raises UserError for a file without entries, and for a line that cannot be read.
    """
    try:
        text = read_bytes(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"--without {uri}: it is not UTF-8 (byte {error.start})") from None
    entries = dict.fromkeys((value.strip(), kind) for value, kind in _entries(uri, text) if value.strip())
    if not entries:
        raise UserError(f"--without {uri}: it lists nothing; give a row id, source id or source digest a line")
    return Listing(tuple(entries))


def _entries(uri: str, text: str) -> Iterator[tuple[str, Kind | None]]:
    name = uri.lower()
    if name.endswith(LINES):
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield from _of_row(_json(uri, number, line), f"--without {uri} line {number}")
        return
    separator = next((mark for ending, mark in TABLES.items() if name.endswith(ending)), None)
    if separator is None:
        yield from ((line, None) for line in text.split("\n"))
        return
    rows = csv.DictReader(io.StringIO(text), delimiter=separator)
    if not set(rows.fieldnames or ()) & set(KINDS):
        raise UserError(f"--without {uri}: its first line names none of the columns {', '.join(KINDS)}")
    for row in rows:
        yield from _of_row(row, f"--without {uri} line {rows.line_num}", can_be_empty=True)


def _json(uri: str, number: int, line: str) -> Any:
    try:
        return json_value(line)
    except ValueError as error:
        raise UserError(f"--without {uri} line {number} is not JSON ({str(error).splitlines()[0]})") from None


def _of_row(row: Any, where: str, can_be_empty: bool = False) -> Iterator[tuple[str, Kind | None]]:
    if isinstance(row, str):
        yield row, None
        return
    values = [(row[kind], kind) for kind in KINDS if row.get(kind) is not None] if isinstance(row, dict) else []
    if not values and not can_be_empty:
        raise UserError(f"{where} has none of the columns {', '.join(KINDS)}")
    yield from ((str(value), kind) for value, kind in values)


class Keys:
    """A set of keys that tasks get as one bytes object."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._data, self._set = b"".join(sorted(set(keys))), frozenset[bytes]()

    def __len__(self) -> int:
        return len(self._data) // NUM_BYTES

    def __getstate__(self) -> dict[str, Any]:
        return {"_data": self._data, "_set": frozenset()}

    def has(self, values: Sequence[str | None]) -> np.ndarray:
        """bool (n,): which of these ids are in the set."""
        if len(self._set) != len(self):
            self._set = frozenset(self._data[at : at + NUM_BYTES] for at in range(0, len(self._data), NUM_BYTES))
        return np.array([value is not None and key(value) in self._set for value in values], bool)
