"""Opens the parts of a mixture: runs and releases, whose rows state their provenance, and data files."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs.release.croissant import stated_by
from gristmill.jobs.release.facts import FactsFile, ended_on, release_spec
from gristmill.jobs.release.formats import format_of_schema
from gristmill.jobs.release.mixture.files import SWELLING, Chunk, parquet_chunks, read_chunk, table_spec, text_chunks
from gristmill.jobs.release.mixture.spec import ADDED, COPY, WEIGHT, PartSpec
from gristmill.records.errors import UserError
from gristmill.records.licenses import UNKNOWN, license_id
from gristmill.records.output import ledger, manifest
from gristmill.records.output.listing import listed_entries
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shard_names import KEPT, kept_lot
from gristmill.records.pins import Pins, active
from gristmill.records.readers.arrow_columns import unified_schema
from gristmill.records.readers.column_types import as_type
from gristmill.records.readers.datasets import PACKAGE, read_table
from gristmill.records.readers.formats import Format
from gristmill.records.readers.outputs import RUN
from gristmill.records.readers.places import DataFile, find_files
from gristmill.records.schema import IDENTITY, IMAGE, INNER_COLUMNS, PROVENANCE, RESERVED, cost_columns
from gristmill.records.spec import nearest
from gristmill.records.stores.contract import Entry, Store
from gristmill.records.stores.opening import open_store
from gristmill.stages.dedup.rows import row_hashes

MIXTURE, CARD, METADATA = "mixture.json", "README.md", "croissant.json"
GRISTMILL_COLUMNS = {"id", "origin", "generation", "recipe"}
SPLITS = ("#train", "#holdout")
ROW_FIELDS = [f.with_nullable(f.name not in ("id", "origin", "generation")) for f in (*IDENTITY, *PROVENANCE)]


@dataclass
class Part:
    """An open part. Workers read its rows, so it can be pickled."""

    spec: PartSpec
    store: Store | None
    has_provenance: bool  # a run or a release
    chunks: list[Chunk]
    schemas: list[pa.Schema] = field(default_factory=list)  # of the files that state their columns
    untyped: list[Chunk] = field(default_factory=list)  # chunks of files that do not
    schema: pa.Schema = field(default_factory=lambda: pa.schema([]))  # columns that may be payload, by release names
    file_schema: pa.Schema = field(default_factory=lambda: pa.schema([]))  # all columns, by their names in the files
    facts: dict[str, Any] = field(default_factory=dict)  # its entry in mixture.json
    pins: Pins | None = None  # of tables; other chunks bear the version of their file
    date: str = ""  # "2026-01-31", as the run or release states it
    stated_license: str = UNKNOWN  # as the run or release states it
    removal: Any = None  # Removal, with a take-down list

    @property
    def title(self) -> str:
        return self.spec.title

    @property
    def license(self) -> str:
        return license_id(self.spec.license) if self.spec.license else self.stated_license

    def content_of(self, chunk: Chunk) -> tuple[pa.Schema, int]:
        """(columns, number of rows) of a chunk of text, which is read for them. Raises UserError."""
        assert self.store is not None
        tables = chunk.tables(self.store, self.spec.options)
        tables.has_places = False
        return tables.schema(), tables.num_rows

    def read(self, chunk: Chunk, payload: pa.Schema) -> Iterator[pa.Table]:
        """Payload, identity and provenance of the rows of a chunk, in batches. Raises UserError."""
        sources = {f.name: self.spec.columns.get(f.name, f.name) for f in payload if f.name in self.schema.names}
        names = {*sources.values()} | ({self.spec.id_column} if self.spec.id_column else set())
        if self.has_provenance:
            names |= {f.name for f in ROW_FIELDS}
        schema = pa.schema([column for column in self.file_schema if column.name in names])
        with active(self.pins):
            for table in read_chunk(self.store, chunk, schema, self.spec.options):
                yield self._rows(table, chunk, payload, sources)

    def _rows(self, table: pa.Table, chunk: Chunk, payload: pa.Schema, sources: dict[str, str]) -> pa.Table:
        where = f"part '{self.title}', {chunk.file}"
        columns = []
        for output in payload:
            source = sources.get(output.name)
            if source is None:
                columns.append(pa.nulls(table.num_rows, output.type))
                continue
            try:
                columns.append(as_type(table.column(source), output.type))
            except ValueError as error:
                raise UserError(f"{where}: column '{source}': {error}") from None
        rows = pa.table(columns, schema=payload)
        if self.has_provenance:
            provenance = {f.name: table.column(f.name) for f in ROW_FIELDS if f.name in table.column_names}
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


def finished_manifest(store: Store) -> Manifest:
    """The manifest of a run that has ended. Raises UserError for a run in progress, and without a manifest."""
    content = manifest.load(store)
    if content is None:
        raise UserError(f"{store.uri}: no {manifest.NAME} there, so this is not the output of a run")
    if content.state == "running":
        raise UserError(f"{store.uri}: the run is still going on (or was killed); run its produce command to the end")
    return content


def open_part(spec: PartSpec) -> Part:
    """A part with its files and columns; reads text files to their ends. Raises UserError."""
    part = find_part(spec)
    return complete(part, [part.content_of(chunk) for chunk in part.untyped])


def find_part(spec: PartSpec) -> Part:
    """A part with its files, and the columns of those that state them. Reads listings and footers. Raises UserError."""
    return _find_output(spec) if spec.uri else _find_files(spec)


def complete(part: Part, contents: Sequence[tuple[pa.Schema, int]]) -> Part:
    """The part with its columns, also those of `untyped` chunks, and with the numbers of their rows.

    `contents`: (columns, number of rows) of each `untyped` chunk. Raises UserError.
    """
    spec, where = part.spec, f"part '{part.title}'"
    schema = unified_schema([*part.schemas, *(columns for columns, _ in contents)])
    part.chunks = _numbered(part.chunks, dict(zip(part.untyped, (num for _, num in contents), strict=True)))
    if not part.chunks or not len(schema):
        raise UserError(f"{where}: {spec.path or spec.uri} holds no rows")
    for new, old in spec.columns.items():
        if old not in schema.names:
            raise UserError(f"{where}: columns.{new} names '{old}', which is not there{nearest(old, schema.names)}")
    if spec.id_column and spec.id_column not in schema.names:
        raise UserError(f"{where}: there is no id_column '{spec.id_column}'{nearest(spec.id_column, schema.names)}")
    if not part.has_provenance and set(schema.names) >= GRISTMILL_COLUMNS:
        raise UserError(f"{where}: its files hold rows of a run or a release; give its address as uri")
    renamed = set(spec.columns.values())
    money = [name for one in part.schemas for name in cost_columns(one)]  # of runs, in their currencies
    left_out = {*renamed, *RESERVED, *INNER_COLUMNS, *ADDED, *money}
    kept = [f for f in schema if f.name not in left_out]
    mapped = [pa.field(new, schema.field(old).type) for new, old in spec.columns.items()]
    part.file_schema = schema
    part.schema = pa.schema(list({f.name: f for f in [*kept, *mapped]}.values()))
    return part


def _numbered(chunks: Sequence[Chunk], num_rows: Mapping[Chunk, int]) -> list[Chunk]:
    """The chunks with the numbers of their first rows: of ranges of lines, the rows of the ranges before."""
    numbered, firsts = [], Counter[str]()
    for chunk in chunks:
        if chunk.kind == "lines":
            numbered.append(replace(chunk, first=firsts[chunk.file]))
            firsts[chunk.file] += num_rows[chunk]
        else:
            numbered.append(chunk)
    return numbered


def _find_output(spec: PartSpec) -> Part:
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
        _, schemas = parquet_chunks(_data_files(store, files[:1]))
        chunks = [Chunk("parquet", e.name, start=-1, version=e.version, num_bytes=SWELLING * e.size) for e in files]
        facts = {"kind": "run", "fingerprint": content.fingerprint}
        stated = release_spec(content.recipe.get("release") or {}, FactsFile())
        date, license = stated.date or ended_on(content), ", ".join(stated.licenses) or UNKNOWN
        return Part(spec, store, True, chunks, schemas=schemas, facts=facts, date=date, stated_license=license)
    match = re.fullmatch(r"train-\d{5,}-of-(\d{5,})\.parquet", shards[0].name)
    if match is None:
        raise UserError(f"part '{spec.title}': {store.uri} is not a release of gristmill; give its files as path")
    if not store.exists(CARD) or len(shards) != int(match[1]):
        raise UserError(f"part '{spec.title}': {store.uri} is an incomplete release; pack it again")
    chunks, schemas = parquet_chunks(_data_files(store, shards))
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
    part = Part(spec, store, True, chunks, schemas=schemas[:1], facts={"kind": "release"}, date=date)
    part.stated_license = license or UNKNOWN
    return part


def _data_files(store: Store, entries: Sequence[Entry]) -> list[DataFile]:
    return [DataFile(store, entry, Format("parquet", ".parquet")) for entry in entries]


def _find_files(spec: PartSpec) -> Part:
    assert spec.path
    where = f"part '{spec.title}': path"
    base = spec.path
    if any(mark in base for mark in SPLITS):
        base = base.rpartition("#")[0]
    if base.startswith(PACKAGE):
        return _table_part(spec, None)
    place = find_files(base, where)
    if any(file.owner == RUN for file in place.files):
        raise UserError(
            f"{where} {base} is the output of a run: give it as uri, which keeps the provenance of its rows"
        )
    place.log()
    store, facts = place.files[0].store, dict[str, Any](kind="files")
    if place.counts:
        facts["skipped"] = place.counts
    if base != spec.path:
        return _table_part(spec, store)
    # A release shows its own columns here, so that `complete` can refuse rows that state their provenance.
    parquet = [file._replace(owner=None) for file in place.files if file.format.kind == "parquet"]
    chunks, schemas = parquet_chunks(parquet)
    if spec.origin == "real" and (row_format := next(filter(None, map(format_of_schema, schemas)), None)):
        raise UserError(f"{where} {base} holds rows of a run, packed as {row_format}: set origin = 'synthetic'")
    untyped = text_chunks([file for file in place.files if file.format.kind != "parquet"], spec.options)
    order = {file.name: number for number, file in enumerate(place.files)}
    ordered = sorted([*chunks, *untyped], key=lambda chunk: (order[chunk.file], chunk.first, chunk.start))
    return Part(spec, store, False, ordered, schemas=schemas, untyped=untyped, facts=facts)


def _table_part(spec: PartSpec, store: Store | None) -> Part:
    """A table that one chunk reads as a whole: a packaged data set, or a side of a split."""
    assert spec.path
    pins = Pins()
    with pins.active():
        schema = read_table(table_spec(spec.path, spec.options)).schema
    return Part(spec, store, False, [Chunk("table", spec.path)], schemas=[schema], facts={"kind": "files"}, pins=pins)
