"""Opens the parts of a mixture: runs and releases, whose rows state their provenance, and data files."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs.release.croissant import stated_by
from gristmill.jobs.release.facts import FactsFile, ended_on, release_spec
from gristmill.jobs.release.formats import format_of_schema
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
from gristmill.records.errors import UserError
from gristmill.records.licenses import UNKNOWN, license_id
from gristmill.records.output import ledger, manifest
from gristmill.records.output.listing import listed_entries
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shard_names import KEPT, kept_lot
from gristmill.records.pins import Pins, active
from gristmill.records.readers.datasets import PACKAGE, data_spec, read_table
from gristmill.records.readers.sources import find_files
from gristmill.records.schema import IDENTITY, IMAGE, PROVENANCE, RESERVED
from gristmill.records.spec import nearest
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store
from gristmill.stages.dedup.rows import row_hashes

RUN_COLUMNS = {"minhash", "image_hash", "row_hash", "embedding", "duplicate_of"}  # useful inside a run only
MIXTURE, CARD, METADATA = "mixture.json", "README.md", "croissant.json"
GRISTMILL_COLUMNS = {"id", "origin", "generation", "recipe"}
SPLITS = ("#train", "#holdout")
SWELLING = 4  # bytes in memory for each byte of a shard, about
ROW_FIELDS = [f.with_nullable(f.name not in ("id", "origin", "generation")) for f in (*IDENTITY, *PROVENANCE)]


@dataclass
class Part:
    """An open part. Workers read its rows, so it can be pickled."""

    spec: PartSpec
    store: Store | None
    has_provenance: bool  # a run or a release
    chunks: list[Chunk]
    schema: pa.Schema  # columns that may be payload, by their names in the release
    json_schema: pa.Schema | None = None  # of JSON files
    facts: dict[str, Any] = field(default_factory=dict)  # its entry in mixture.json
    pins: Pins | None = None  # of tables; other chunks bear the version of their file
    date: str = ""  # "2026-01-31", as the run or release states it
    stated_license: str = UNKNOWN  # as the run or release states it

    @property
    def title(self) -> str:
        return self.spec.title

    @property
    def license(self) -> str:
        return license_id(self.spec.license) if self.spec.license else self.stated_license

    def read(self, chunk: Chunk, payload: pa.Schema) -> pa.Table:
        """Payload, identity and provenance of the rows of a chunk. Raises UserError when they do not fit."""
        sources = {f.name: self.spec.columns.get(f.name, f.name) for f in payload if f.name in self.schema.names}
        names = {*sources.values()} | ({self.spec.id_column} if self.spec.id_column else set())
        if self.has_provenance:
            names |= {f.name for f in ROW_FIELDS}
        with active(self.pins):
            table = read_chunk(self.store, chunk, self.json_schema, sorted(names))
        where = f"part '{self.title}', {chunk.file}"
        columns = []
        for output in payload:
            source = sources.get(output.name)
            if source is None:
                columns.append(pa.nulls(table.num_rows, output.type))
                continue
            if source not in table.column_names:
                raise UserError(f"{where}: there is no column '{source}', which other files have")
            try:
                columns.append(_decoded(table.column(source)).cast(output.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise UserError(f"{where}: column '{source}': {str(error).splitlines()[0]}") from None
        rows = pa.table(columns, schema=payload)
        if self.has_provenance:
            provenance = {f.name: table.column(f.name) for f in ROW_FIELDS}
        else:
            provenance = self._provenance(table, rows, chunk)
        for output in ROW_FIELDS:
            column = provenance.get(output.name)
            column = pa.nulls(rows.num_rows, output.type) if column is None else column.cast(output.type)
            rows = rows.append_column(output, column)
        return rows

    def _provenance(self, table: pa.Table, rows: pa.Table, chunk: Chunk) -> dict[str, Any]:
        """Identity and provenance for rows of data files. The id is a hash of part, file, position and content."""
        places = table.column("").to_pylist()
        file = (
            chunk.file.rpartition("/")[2] if chunk.kind == "table" else chunk.file
        )  # not the folder: moved files keep their ids
        prefix = hashlib.blake2b(f"{self.title}/{file}/".encode(), digest_size=16)
        ids = []
        for place, content in zip(places, content_hashes(rows)):
            digest = prefix.copy()
            digest.update(f"{place}/".encode() + content)
            ids.append(digest.hexdigest())
        sources = [f"{file}:{place}" for place in places]
        if self.spec.id_column:
            values = table.column(self.spec.id_column).to_pylist()
            sources = [source if value is None else str(value) for source, value in zip(sources, values)]
        return {
            "id": pa.array(ids, pa.string()),
            "origin": pa.array([self.spec.origin] * rows.num_rows, pa.string()),
            "generation": pa.array(np.full(rows.num_rows, self.spec.generation, np.int32)),
            "source_id": pa.array(sources, pa.string()),
        }


def content_hashes(rows: pa.Table) -> list[bytes]:
    """A 16-byte hash of all values of each row; an image counts by its bytes alone."""
    columns = [pc.struct_field(c, "bytes") if c.type == IMAGE else c for c in rows.columns]
    batches = pa.table(columns, names=rows.column_names).combine_chunks().to_batches()
    return [digest for batch in batches for digest in row_hashes(batch)]


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _type(kind: pa.DataType) -> pa.DataType:
    """One type for the equivalent Parquet types of strings and bytes, dictionaries decoded."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_large_binary(kind) else kind


def finished_manifest(store: Store) -> Manifest:
    """The manifest of a run that has ended. Raises UserError for a run in progress, and without a manifest."""
    content = manifest.load(store)
    if content is None:
        raise UserError(f"{store.uri}: no {manifest.NAME} there, so this is not the output of a run")
    if content.state == "running":
        raise UserError(f"{store.uri}: the run is still going on (or was killed); run its produce command to the end")
    return content


def open_part(spec: PartSpec) -> Part:
    """Find the files and columns of a part. Reads listings, footers and first lines. Raises UserError."""
    where = f"part '{spec.title}'"
    part = _open_output(spec) if spec.uri else _open_files(spec)
    schema = part.schema
    for new, old in spec.columns.items():
        if old not in schema.names:
            raise UserError(f"{where}: columns.{new} names '{old}', which is not there{nearest(old, schema.names)}")
    if spec.id_column and spec.id_column not in schema.names:
        raise UserError(f"{where}: there is no id_column '{spec.id_column}'{nearest(spec.id_column, schema.names)}")
    if not part.has_provenance and set(schema.names) >= GRISTMILL_COLUMNS:
        raise UserError(f"{where}: its files hold rows of a run or a release; give its address as uri")
    renamed = set(spec.columns.values())
    kept = [f for f in schema if f.name not in renamed and f.name not in RESERVED | RUN_COLUMNS and f.name not in ADDED]
    mapped = [pa.field(new, schema.field(old).type) for new, old in spec.columns.items()]
    fields = {f.name: pa.field(f.name, _type(f.type)) for f in [*kept, *mapped]}
    part.schema = pa.schema(list(fields.values()))
    return part


def _common(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """The columns that all schemas share, in types that hold all values."""
    names = [n for n in schemas[0].names if all(n in s.names for s in schemas)]
    unified = [pa.schema([(n, _type(s.field(n).type)) for n in names]) for s in schemas]
    return pa.unify_schemas(unified, promote_options="permissive")


def _open_output(spec: PartSpec) -> Part:
    assert spec.uri
    store = open_store(spec.uri)
    store.check(write=False)
    shards = [e for e in store.list("train-") if e.name.endswith(".parquet")]
    if not shards:
        content = finished_manifest(store)
        num_lots = len(ledger.committed(store, content))
        entries = listed_entries(store, KEPT, num_lots)
        files = [e for e in entries if (lot := kept_lot(e.name)) is not None and lot < num_lots]
        if not files:
            raise UserError(f"part '{spec.title}': the run {store.uri} kept no row")
        _, schemas = parquet_chunks(store, files[:1])
        chunks = [Chunk("parquet", e.name, start=-1, version=e.version, num_bytes=SWELLING * e.size) for e in files]
        part = Part(spec, store, True, chunks, schemas[0], facts={"kind": "run", "fingerprint": content.fingerprint})
        stated = release_spec(content.recipe.get("release") or {}, FactsFile())
        part.date, part.stated_license = stated.date or ended_on(content), ", ".join(stated.licenses) or UNKNOWN
        return part
    match = re.fullmatch(r"train-\d{5,}-of-(\d{5,})\.parquet", shards[0].name)
    if match is None:
        raise UserError(f"part '{spec.title}': {store.uri} is not a release of gristmill; give its files as path")
    if not store.exists(CARD) or len(shards) != int(match[1]):
        raise UserError(f"part '{spec.title}': {store.uri} is an incomplete release; pack it again")
    chunks, schemas = parquet_chunks(store, shards)
    columns = set(schemas[0].names)
    if row_format := format_of_schema(schemas[0]):
        raise UserError(
            f"part '{spec.title}': {store.uri} was packed as {row_format}, so its rows lack provenance; take the run "
            "itself, or a release as rows"
        )
    if not columns >= GRISTMILL_COLUMNS:
        raise UserError(f"part '{spec.title}': {store.uri} is not a release of gristmill; give its files as path")
    if columns & {COPY, WEIGHT}:
        raise UserError(f"part '{spec.title}': rows of {store.uri} are repeated or weighted; use its parts instead")
    date, license = stated_by(store.read_if_there(METADATA))
    return Part(
        spec, store, True, chunks, schemas[0], facts={"kind": "release"}, date=date, stated_license=license or UNKNOWN
    )


def _open_files(spec: PartSpec) -> Part:
    assert spec.path
    where = f"part '{spec.title}': path"
    base = spec.path
    if any(mark in base for mark in SPLITS):
        base = base.rpartition("#")[0]
    if base.startswith(PACKAGE):
        return _open_tables(spec, [spec.path], None)
    files = find_files(base, where)
    names = {entry.name for _, entry in files}
    if manifest.NAME in names or MIXTURE in names:
        raise UserError(
            f"{where} {base} is the output of a run or a pack: give it as uri, which keeps the provenance of its rows"
        )
    if base != spec.path:
        return _open_tables(spec, [spec.path], files[0][0])
    rows = [f for f in files if f[1].name.endswith(DATA)] or [f for f in files if f[1].name.endswith(TEXTS)]
    if not rows:
        raise UserError(f"{where} {base}: no {', '.join([*DATA, *TEXTS])} file there")
    store, entries = rows[0][0], [entry for _, entry in rows]
    endings = {DATA.index("." + e.name.rpartition(".")[2]) if e.name.endswith(DATA) else -1 for e in entries}
    if len(endings) > 1 and endings != {2, 3}:
        raise UserError(f"{where} {base} holds files of several kinds; make one part per kind")
    if any(other.uri != store.uri for other, _ in rows):
        raise UserError(f"{where} {base} matches files in several folders; name the folder above them")
    if endings == {0}:
        chunks, schemas = parquet_chunks(store, entries)
        if spec.origin == "real" and (row_format := next(filter(None, map(format_of_schema, schemas)), None)):
            raise UserError(f"{where} {base} holds rows of a run, packed as {row_format}: set origin = 'synthetic'")
        return _of_files(spec, store, chunks, _merged(where, schemas))
    if endings == {1}:
        return _open_tables(spec, [store.path(entry.name) for entry in entries], store)
    if endings == {-1}:
        texts = pa.schema([("text", pa.string())])
        if spec.sample_by == "document":
            return _of_files(
                spec, store, [Chunk("document", e.name, version=e.version, num_bytes=e.size) for e in entries], texts
            )
        chunks = [chunk for entry in entries for chunk in line_chunks("lines", entry)]
        return _of_files(spec, store, chunks, texts)
    schema = json_schema(store, entries[0])
    chunks = [chunk for entry in entries for chunk in line_chunks("json", entry)]
    part = _of_files(spec, store, chunks, schema)
    part.json_schema = schema
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
    """Tables that one chunk reads as a whole: CSV, packaged data sets, and sides of a split."""
    pins = Pins()
    with pins.active():
        schemas = [read_table(data_spec(address)).schema for address in addresses]
    chunks = [Chunk("table", address) for address in addresses]
    part = _of_files(spec, store, chunks, _merged(f"part '{spec.title}': path", schemas))
    part.pins = pins
    return part
