"""The parts of a mixture: runs and releases, whose rows say what they are, and data files, of which the user does."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs.release.formats import made_as
from gristmill.jobs.release.mixture.files import (
    DATA,
    TEXTS,
    Chunk,
    json_schema,
    line_chunks,
    parquet_chunks,
    read_chunk,
)
from gristmill.jobs.release.mixture.spec import ADDED, COPY, WEIGHT, PartSpec
from gristmill.records import ledger, manifest
from gristmill.records.errors import UserError
from gristmill.records.manifest import Manifest
from gristmill.records.readers.datasets import PACKAGE, data_spec, read_table
from gristmill.records.readers.sources import find_files
from gristmill.records.schema import IDENTITY, IMAGE, PROVENANCE, RESERVED
from gristmill.records.shards import KEPT, shard_name
from gristmill.records.spec import nearest
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store
from gristmill.stages.dedup.rows import row_hashes

LEFT_OUT = {"minhash", "image_hash", "row_hash", "embedding", "duplicate_of"}  # of use inside a run only
MIXTURE, CARD = "mixture.json", "README.md"
OURS = {"id", "origin", "generation", "recipe"}
SPLITS = ("#train", "#holdout")
OF_ROWS = [f.with_nullable(f.name not in ("id", "origin", "generation")) for f in (*IDENTITY, *PROVENANCE)]


@dataclass
class Part:
    """An opened part. Pickles: its rows are read by workers."""

    spec: PartSpec
    store: Store | None
    is_ours: bool
    chunks: list[Chunk]
    own: pa.Schema  # of the columns that may be payload, by their names in the release
    read_as: pa.Schema | None = None  # of JSON files
    facts: dict[str, Any] = field(default_factory=dict)  # what is told of it in mixture.json

    @property
    def title(self) -> str:
        return self.spec.title

    def read(self, chunk: Chunk, payload: pa.Schema) -> pa.Table:
        """Identity, provenance and payload of a chunk's rows. Raises UserError when they do not fit."""
        theirs = {f.name: self.spec.columns.get(f.name, f.name) for f in payload if f.name in self.own.names}
        wanted = {*theirs.values()} | ({self.spec.id_column} if self.spec.id_column else set())
        if self.is_ours:
            wanted |= {f.name for f in OF_ROWS}
        table = read_chunk(self.store, chunk, self.read_as, sorted(wanted))
        where = f"part '{self.title}', {chunk.file}"
        columns = []
        for one in payload:
            if one.name not in theirs:
                columns.append(pa.nulls(table.num_rows, one.type))
                continue
            if theirs[one.name] not in table.column_names:
                raise UserError(f"{where}: there is no column '{theirs[one.name]}', which other files have")
            column = _plain(table.column(theirs[one.name]))
            try:
                columns.append(column.cast(one.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise UserError(f"{where}: column '{theirs[one.name]}': {str(error).splitlines()[0]}") from None
        rows = pa.table(columns, schema=payload)
        known = {f.name: table.column(f.name) for f in OF_ROWS} if self.is_ours else self._named(table, rows, chunk)
        for one in OF_ROWS:
            column = known.get(one.name)
            column = pa.nulls(rows.num_rows, one.type) if column is None else column.cast(one.type)
            rows = rows.append_column(one, column)
        return rows

    def _named(self, table: pa.Table, rows: pa.Table, chunk: Chunk) -> dict[str, Any]:
        """Identity and provenance of rows of data files: an id from part, file, place and content."""
        places = table.column("").to_pylist()
        file = chunk.file.rpartition("/")[2] if chunk.kind == "table" else chunk.file  # never where it lies
        start = hashlib.blake2b(f"{self.title}/{file}/".encode(), digest_size=16)
        ids = []
        for place, content in zip(places, content_hashes(rows)):
            whole = start.copy()
            whole.update(f"{place}/".encode() + content)
            ids.append(whole.hexdigest())
        sources = [f"{file}:{place}" for place in places]
        if self.spec.id_column:
            given = table.column(self.spec.id_column).to_pylist()
            sources = [source if value is None else str(value) for source, value in zip(sources, given)]
        return {
            "id": pa.array(ids, pa.string()),
            "origin": pa.array([self.spec.origin] * rows.num_rows, pa.string()),
            "generation": pa.array(np.full(rows.num_rows, self.spec.generation, np.int32)),
            "source_id": pa.array(sources, pa.string()),
        }


def content_hashes(rows: pa.Table) -> list[bytes]:
    """16 bytes over all values of each row; of an image its bytes alone."""
    columns = [pc.struct_field(c, "bytes") if c.type == IMAGE else c for c in rows.columns]
    plain = pa.table(columns, names=rows.column_names).combine_chunks().to_batches()
    return [found for batch in plain for found in row_hashes(batch)]


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _type(kind: pa.DataType) -> pa.DataType:
    """One type for all the ways in which Parquet files hold the same thing."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_large_binary(kind) else kind


def at_rest(store: Store) -> Manifest:
    """The manifest of a run that has ended. Raises UserError for a run that goes on, and where there is none."""
    book = manifest.load(store)
    if book is None:
        raise UserError(f"{store.uri}: no {manifest.NAME} there, so this is not the output of a run")
    if book.state == "running":
        raise UserError(f"{store.uri}: the run is still going on (or was killed); run its produce command to the end")
    return book


def open_part(spec: PartSpec) -> Part:
    """Find its files and columns. Reads listings, footers and the first lines; raises UserError when nothing fits."""
    where = f"part '{spec.title}'"
    part = _open_ours(spec) if spec.uri else _open_files(spec)
    own = part.own
    for new, old in spec.columns.items():
        if old not in own.names:
            raise UserError(f"{where}: columns.{new} names '{old}', which is not there{nearest(old, own.names)}")
    if spec.id_column and spec.id_column not in own.names:
        raise UserError(f"{where}: there is no id_column '{spec.id_column}'{nearest(spec.id_column, own.names)}")
    if not part.is_ours and set(own.names) >= OURS:
        raise UserError(f"{where}: its files hold rows of a run or a release; give the address of that as uri")
    moved = set(spec.columns.values())
    kept = [f for f in own if f.name not in moved and f.name not in RESERVED | LEFT_OUT and f.name not in ADDED]
    mapped = [pa.field(new, own.field(old).type) for new, old in spec.columns.items()]
    fields = {f.name: pa.field(f.name, _type(f.type)) for f in [*kept, *mapped]}
    part.own = pa.schema(list(fields.values()))
    return part


def _common(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Columns that all have, in the types that hold them all."""
    names = [n for n in schemas[0].names if all(n in s.names for s in schemas)]
    alike = [pa.schema([(n, _type(s.field(n).type)) for n in names]) for s in schemas]
    return pa.unify_schemas(alike, promote_options="permissive")


def _open_ours(spec: PartSpec) -> Part:
    assert spec.uri
    store = open_store(spec.uri)
    store.check(write=False)
    shards = [e.name for e in store.list("train-") if e.name.endswith(".parquet")]
    if not shards:
        book = at_rest(store)
        names = [shard_name(KEPT, lot) for lot in sorted(ledger.committed(store))]
        if not names:
            raise UserError(f"part '{spec.title}': no row was kept by {store.uri}")
        _, schemas = parquet_chunks(store, names[:1])
        chunks = [Chunk("parquet", name, start=-1) for name in names]
        return Part(spec, store, True, chunks, schemas[0], facts={"kind": "run", "fingerprint": book.fingerprint})
    told = re.fullmatch(r"train-\d{5,}-of-(\d{5,})\.parquet", shards[0])
    if told is None:
        raise UserError(f"part '{spec.title}': {store.uri} is no release of gristmill; give its files as path")
    if not store.exists(CARD) or len(shards) != int(told[1]):
        raise UserError(f"part '{spec.title}': {store.uri} is a release that was not finished; pack it anew")
    chunks, schemas = parquet_chunks(store, shards)
    columns = set(schemas[0].names)
    if form := made_as(schemas[0]):
        raise UserError(
            f"part '{spec.title}': {store.uri} was packed as {form}, so its rows do not say what they are; take the "
            "run itself, or a release as rows"
        )
    if not columns >= OURS:
        raise UserError(f"part '{spec.title}': {store.uri} is no release of gristmill; give its files as path")
    if columns & {COPY, WEIGHT}:
        raise UserError(
            f"part '{spec.title}': rows of {store.uri} are repeated or weighted; take its own parts instead"
        )
    return Part(spec, store, True, chunks, schemas[0], facts={"kind": "release"})


def _open_files(spec: PartSpec) -> Part:
    assert spec.path
    where = f"part '{spec.title}': path"
    base = spec.path
    if any(mark in base for mark in SPLITS):
        base = base.rpartition("#")[0]
    if base.startswith(PACKAGE):
        return _open_tables(spec, [spec.path], None)
    found = find_files(base, where)
    names = {name for _, name, _ in found}
    if manifest.NAME in names or MIXTURE in names:
        raise UserError(
            f"{where} {base} is the output of a run or a pack: give it as uri, so that its rows say what they are"
        )
    if base != spec.path:
        return _open_tables(spec, [spec.path], found[0][0])
    rows = [entry for entry in found if entry[1].endswith(DATA)] or [e for e in found if e[1].endswith(TEXTS)]
    if not rows:
        raise UserError(f"{where} {base}: no {', '.join([*DATA, *TEXTS])} file there")
    endings = {DATA.index("." + name.rpartition(".")[2]) if name.endswith(DATA) else -1 for _, name, _ in rows}
    if len(endings) > 1 and endings != {2, 3}:
        raise UserError(f"{where} {base} holds files of several kinds; make a part of each")
    store, names_in_order = rows[0][0], [name for _, name, _ in rows]
    if any(other.uri != store.uri for other, _, _ in rows):
        raise UserError(f"{where} {base} matches files in several folders; name the folder above them")
    if endings == {0}:
        chunks, schemas = parquet_chunks(store, names_in_order)
        if spec.origin == "real" and (form := next(filter(None, map(made_as, schemas)), None)):
            raise UserError(f"{where} {base} holds rows of a run, packed as {form}: set origin = 'synthetic'")
        return _of_files(spec, store, chunks, _merged(where, schemas))
    if endings == {1}:
        return _open_tables(spec, [store.path(name) for name in names_in_order], store)
    if endings == {-1}:
        texts = pa.schema([("text", pa.string())])
        if spec.sample_by == "document":
            return _of_files(spec, store, [Chunk("document", name) for name in names_in_order], texts)
        chunks = [chunk for _, name, size in rows for chunk in line_chunks("lines", name, size)]
        return _of_files(spec, store, chunks, texts)
    schema = json_schema(store, names_in_order[0], rows[0][2])
    chunks = [chunk for _, name, size in rows for chunk in line_chunks("json", name, size)]
    part = _of_files(spec, store, chunks, schema)
    part.read_as = schema
    return part


def _of_files(spec: PartSpec, store: Store | None, chunks: list[Chunk], schema: pa.Schema) -> Part:
    if not chunks or not len(schema):
        raise UserError(f"part '{spec.title}': {spec.path} holds no rows")
    return Part(spec, store, False, chunks, schema, facts={"kind": "files"})


def _merged(where: str, schemas: Sequence[pa.Schema]) -> pa.Schema:
    try:
        return _common(schemas)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(f"{where}: its files have different columns ({str(error).splitlines()[0]})") from None


def _open_tables(spec: PartSpec, addresses: list[str], store: Store | None) -> Part:
    """Tables that are read whole: CSV, packaged data sets, and sides of a split."""
    schemas = [read_table(data_spec(address)).schema for address in addresses]
    chunks = [Chunk("table", address) for address in addresses]
    return _of_files(spec, store, chunks, _merged(f"part '{spec.title}': path", schemas))
