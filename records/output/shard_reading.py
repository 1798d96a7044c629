"""Reads the shards of a run, proven by their checksums."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar

import pyarrow as pa

from gristmill.records.errors import UserError
from gristmill.records.output.shard_names import KEPT, REJECTED, shard_name
from gristmill.records.output.summary import Summary
from gristmill.records.readers.parquet import SUMMARY_KEY, columns_of, open_parquet, open_whole, read_metadata
from gristmill.records.schema import IDENTITY, PROVENANCE, REJECT
from gristmill.records.stores.contract import Store

if TYPE_CHECKING:
    import pyarrow.parquet as pq

T = TypeVar("T")
Columns: TypeAlias = "Sequence[str] | Callable[[pq.ParquetFile], Sequence[str]] | None"

MISSING = "missing"
WHOLE_BELOW = 8192  # rows per lot; smaller remote shards are fetched whole: one request, where columns need four
WHOLE_BELOW_LOCAL = 128
NO_SUMMARY = "its footer holds no summary, so no run wrote it"
# What Arrow and the parsing of a summary raise for files that are damaged or of others.
UNREADABLE = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError)


class UnreadableShard(UserError):
    """A shard that is missing, altered or damaged: its `name` in the store, and the `reason`."""

    def __init__(self, uri: str, name: str, reason: str) -> None:
        super().__init__(f"{uri.rstrip('/')}/{name}: {reason}; put a good copy in its place, or start in a new --out")
        self.uri, self.name, self.reason = uri, name, reason

    def __reduce__(self) -> tuple[type["UnreadableShard"], tuple[str, str, str]]:
        return type(self), (self.uri, self.name, self.reason)


def if_stored(read: Callable[..., T], store: Store, name: str) -> T | None:
    """`read(store, name)`, or None where there is no such object. Raises UnreadableShard for an altered one."""
    try:
        return read(store, name)
    except UnreadableShard as error:
        if error.reason == MISSING:
            return None
        raise


def read_shard(store: Store, name: str, columns: Columns = None) -> pa.Table:
    """The rows of a shard, proven by its checksums; some columns, or those that a function chooses.

    Raises UnreadableShard when it is missing, altered or no Parquet.
    """
    try:
        with store.open(name) as source, open_parquet(source) as file:
            _check_columns(name, file.schema_arrow)
            return columns_of(file, columns(file) if callable(columns) else columns)
    except UNREADABLE as error:
        raise UnreadableShard(store.uri, name, why_unreadable(error)) from None


class WholeShard(NamedTuple):
    """A shard that was read by one request."""

    table: pa.Table
    metadata: "pq.FileMetaData"
    data: bytes


class Readable(Protocol):
    """What a whole shard is read from: a store, or objects that were fetched before."""

    @property
    def uri(self) -> str:
        """Its address, for messages."""

    def read(self, name: str) -> bytes:
        """The whole object. Raises FileNotFoundError."""


def read_whole(store: Readable, name: str, columns: Sequence[str] | None = None) -> WholeShard:
    """A shard by one request; `table` has some of its columns. Raises UnreadableShard, as `read_shard`."""
    try:
        data = store.read(name)
        with open_whole(data) as file:
            _check_columns(name, file.schema_arrow)
            return WholeShard(columns_of(file, columns), file.metadata, data)
    except UNREADABLE as error:
        raise UnreadableShard(store.uri, name, why_unreadable(error)) from None


def read_columns(store: Store, name: str, columns: Sequence[str], lot_size: int) -> pa.Table:
    """Columns of the kept shard of a lot, by one request where that is faster. Raises UnreadableShard."""
    if lot_size < (WHOLE_BELOW if store.is_remote else WHOLE_BELOW_LOCAL):
        return read_whole(store, name, columns).table
    return read_shard(store, name, columns)


def read_footer(store: Store, name: str) -> "pq.FileMetaData":
    """The footer of a shard, proven by its checksum. Raises UnreadableShard."""
    try:
        with store.open(name) as file:
            return read_metadata(file)
    except UNREADABLE as error:
        raise UnreadableShard(store.uri, name, why_unreadable(error)) from None


def _check_columns(name: str, schema: pa.Schema) -> None:
    """Raise ValueError for a shard that lacks the columns of every row of a run."""
    if not name.startswith((f"{KEPT}/", f"{REJECTED}/")):
        return
    types = dict(zip(schema.names, schema.types))
    for field in (*IDENTITY, *PROVENANCE, REJECT):
        if types.get(field.name) != field.type:
            raise ValueError(f"it has no column '{field.name}' of type {field.type}, so no run wrote it")


def why_unreadable(error: BaseException) -> str:
    """One of UNREADABLE in words."""
    if isinstance(error, FileNotFoundError):
        return MISSING
    lines = str(error).splitlines()
    text = lines[0] if lines else type(error).__name__
    return text if text.startswith("altered") else f"not readable as Parquet ({text})"


def name_of(store: Store, folder: str, lot: int) -> str | None:
    """The name of the kept or the rejected shard of a committed lot; None for a lot without rejected rows.

    Raises UnreadableShard when the kept shard cannot be read.
    """
    return shard_name(KEPT, lot) if folder == KEPT else read_meta(store, lot)["rejected"]


def read_meta(store: Store, lot: int) -> dict[str, Any]:
    """`meta_of` the kept shard of a committed lot; only the footer is read. Raises UnreadableShard."""
    return meta_of(read_footer(store, shard_name(KEPT, lot)), store, lot)


def meta_of(metadata: "pq.FileMetaData", store: Store, lot: int) -> dict[str, Any]:
    """{"lot", "summary": Summary, "rejected": name of the rejected shard or None, "rejected_sha256", "data_sha256"}.

    Raises UnreadableShard when the footer does not hold them, or those of another lot.
    """
    name = shard_name(KEPT, lot)
    try:
        meta = json.loads((metadata.metadata or {})[SUMMARY_KEY])
        summary, sha256, stated_lot = Summary(**meta["summary"]), meta["rejected_sha256"], meta["lot"]
    except (ValueError, KeyError, TypeError):
        raise UnreadableShard(store.uri, name, NO_SUMMARY) from None
    if stated_lot != lot:
        raise UnreadableShard(store.uri, name, f"it is lot {stated_lot}, under the name of another lot")
    summary.rejected_shards = int(sha256 is not None)  # shards of 0.2 do not state it
    rejected = meta.get("rejected", shard_name(REJECTED, lot) if sha256 else None)
    return {**meta, "summary": summary, "rejected": rejected}
