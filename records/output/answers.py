"""Answers that cost money, kept in the output until their lot is committed.

A part of a run (the generator, a judge) keeps the answers of a lot in batches. Each batch is an object of its own,
answers/lot-00000042-WRITER-NUMBER.jsonl.zst, put only if absent. WRITER is random, so writers never meet. The first
line is {"format", "run", "cost"}, each further line a record: {"part", "row", "key", "value", "cost"}. Objects that are
torn, foreign or of another run are skipped with a warning: a lost answer costs a call, and never a row.

The rows of a lot come from its records as long as the lot is not committed, and from its shards afterwards. So the
records of a committed lot may be deleted at any time, and no verdict, audit or reader depends on them.
"""

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from gristmill.records.errors import Conflict, UserError
from gristmill.records.ordered_map import ordered_map
from gristmill.records.stores.contract import Entry, Store

logger = logging.getLogger(__name__)

FOLDER = "answers"
FORMAT = 1
NUM_THREADS = 16  # requests to the store at once
T = TypeVar("T")
NAME = re.compile(rf"{FOLDER}/lot-(\d{{8,}})-[0-9a-f]{{16}}-\d{{6,}}\.jsonl\.zst", re.ASCII)


class AnswerStore(Protocol):
    """What the records of a run need of its store."""

    uri: str

    def list(self, prefix: str = "") -> Iterable[Entry]: ...

    def read_if_there(self, name: str) -> bytes | None: ...

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None: ...


@dataclass(frozen=True)
class AnswerFolder:
    """Where the parts of a run keep answers. It pickles, and goes to the workers with the parts."""

    store: AnswerStore
    run: str  # the fingerprint


@dataclass(frozen=True, slots=True)
class Record:
    """A kept answer: literals under a key of a row."""

    part: str  # "generator", or the name of a stage
    row: str  # id of the row
    key: str
    value: Any  # literals
    cost: float = 0.0  # money paid for it, in the currency of the run


def prefix_of(lot: int) -> str:
    return f"{FOLDER}/lot-{lot:08d}-"


def name_of(lot: int, writer: str, number: int) -> str:
    """`writer`: 16 random hex digits; `number`: of its batch."""
    return f"{prefix_of(lot)}{writer}-{number:06d}.jsonl.zst"


def lot_of(name: str) -> int | None:
    """The lot of a batch of records, None for any other object."""
    match = NAME.fullmatch(name)
    return int(match[1]) if match and name.startswith(prefix_of(int(match[1]))) else None


def encode(run: str, records: Sequence[Record]) -> bytes:
    """The bytes of a batch."""
    head = {"format": FORMAT, "run": run, "cost": sum(record.cost for record in records)}
    rows = [{name: getattr(record, name) for name in Record.__slots__} for record in records]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in [head, *rows])
    return bytes(pa.compress(text.encode("utf-8", "surrogatepass"), codec="zstd", asbytes=True))


def decode(run: str, data: bytes) -> list[Record]:
    """The records in a batch of this run. Raises ValueError for anything else, and for a torn batch."""
    _, lines = _parts(run, data)
    try:
        literals = [json.loads(line) for line in lines]
        return [Record(line["part"], line["row"], line["key"], line["value"], float(line["cost"])) for line in literals]
    except (KeyError, TypeError) as error:
        raise ValueError(f"a line is no record ({error!r})") from None


def cost_of(run: str, data: bytes) -> float:
    """The money in a batch of this run. Raises ValueError as `decode` does."""
    head, _ = _parts(run, data)
    return float(head["cost"])


def _parts(run: str, data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """The first line of a batch, and the lines of its records."""
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
            text = stream.read()
    except OSError as error:
        raise ValueError(str(error).splitlines()[0]) from None
    if not text.endswith(b"\n"):
        raise ValueError("it ends too early")
    first, *lines = text.splitlines()
    head = json.loads(first)
    if not isinstance(head, dict) or head.get("format") != FORMAT or not isinstance(head.get("cost"), int | float):
        raise ValueError("it states no format that this version reads")
    if head.get("run") != run:
        raise ValueError("it is of another run")
    return head, lines


def records_of(folder: AnswerFolder, lot: int) -> Iterator[Record]:
    """The records of a lot, in the order of the names of their batches."""
    names = sorted(entry.name for entry in folder.store.list(prefix_of(lot)))

    def read(name: str) -> list[Record]:
        return _read(folder, name, decode, [])

    for records in ordered_map(read, names, min(len(names), NUM_THREADS)):
        yield from records


def _read(folder: AnswerFolder, name: str, parse: Callable[[str, bytes], T], default: T) -> T:
    """What `parse` finds in a batch; `default` for one that cannot be read, with a warning."""
    where = f"{folder.store.uri.rstrip('/')}/{name}"
    if lot_of(name) is None:
        logger.warning(f"{where} holds no answers of this run; it is skipped")
        return default
    if (data := folder.store.read_if_there(name)) is None:
        return default  # its lot was committed since the listing
    try:
        return parse(folder.run, data)
    except (ValueError, RecursionError) as error:
        logger.warning(f"{where} cannot be read ({error}); its answers are requested again")
        return default


def keep(folder: AnswerFolder, name: str, records: Sequence[Record]) -> None:
    """Put a batch. Raises UserError or OSError for a store in trouble; another try under the same name is safe."""
    try:
        folder.store.put(name, encode(folder.run, records), if_absent=True)
    except Conflict:
        return  # an earlier try whose answer was lost: no other writer has this name


def settle(store: Store, run: str, num_lots: int) -> float:
    """Delete the records of the first `num_lots` lots, which are committed; returns the money in all others."""
    kept: list[str] = []
    committed: list[str] = []
    for entry in store.list(f"{FOLDER}/"):
        lot = lot_of(entry.name)
        (committed if lot is not None and lot < num_lots else kept).append(entry.name)
    _delete(store, committed)
    if not kept:
        store.drop_folder(FOLDER)
    return _money(AnswerFolder(store, run), kept)


def money(store: Store, run: str, num_lots: int) -> float:
    """The money in the records of all lots but the first `num_lots`, which are committed."""
    names = (entry.name for entry in store.list(f"{FOLDER}/"))
    return _money(AnswerFolder(store, run), [n for n in names if (lot := lot_of(n)) is None or lot >= num_lots])


def _money(folder: AnswerFolder, names: Sequence[str]) -> float:
    costs = ordered_map(lambda name: _read(folder, name, cost_of, 0.0), sorted(names), min(len(names), NUM_THREADS))
    return math.fsum(costs)


def _delete(store: Store, names: Sequence[str]) -> None:
    for _ in ordered_map(store.delete, names, min(len(names), NUM_THREADS)):
        pass


def delete(store: Store, lot: int | None = None) -> None:
    """Delete the records of a committed lot, by default of all lots. What cannot be deleted is left to the next start.

    Objects with other names are not deleted.
    """
    try:
        names = [entry.name for entry in store.list(f"{FOLDER}/" if lot is None else prefix_of(lot))]
        _delete(store, [name for name in names if lot_of(name) is not None])
        if lot is None:
            store.drop_folder(FOLDER)
    except (UserError, OSError) as error:
        logger.warning(f"{store.uri}: answers of committed lots are not deleted ({error}); the next start does that")


def leftovers(store: Store, num_lots: int) -> int:
    """The number of batches of the first `num_lots` lots, which are committed."""
    lots = (lot_of(entry.name) for entry in store.list(f"{FOLDER}/"))
    return sum(lot is not None and lot < num_lots for lot in lots)
