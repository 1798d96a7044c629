"""What the audit of a run finds in one lot alone. Lots are read anywhere and in any order."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.jobs.audit.admission import AdmissionRows
from gristmill.jobs.audit.closing import Closing
from gristmill.jobs.audit.existing import ExistingRow, naming_errors, rejected_rows
from gristmill.records.ids import row_id
from gristmill.records.ordered_map import read_ahead
from gristmill.records.output import manifest
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shard_names import KEPT, shard_name
from gristmill.records.output.shard_reading import UnreadableShard, meta_of, read_whole
from gristmill.records.output.shards import CLOSED_AT
from gristmill.records.output.summary import Summary, by_generator, summarise
from gristmill.records.output.templates import num_texts
from gristmill.records.schema import REJECT
from gristmill.records.spec import build
from gristmill.records.stores.contract import Store
from gristmill.stages.admission.contract import Admission, tally
from gristmill.stages.dedup.contract import DUPLICATE, EXISTING_COLUMNS, PROBABLE, Duplicates
from gristmill.stages.registry import ADMISSION, DEDUP, stage_class

SAMPLE_PER_LOT = 4  # rows of a lot whose signatures are recomputed
NO_IDS = np.zeros(0, "S16")


@dataclass
class LotFacts:
    """What a lot alone says: findings, counts, and what the checks across lots need."""

    lot: int
    errors: list[str] = field(default_factory=list)
    summary: Summary = field(default_factory=lambda: Summary(num_lots=1))
    admission: AdmissionRows | None = None
    closing: Closing = field(default_factory=Closing)
    ids: np.ndarray = field(default_factory=lambda: NO_IDS)  # S16, of kept rows
    owners: np.ndarray = field(default_factory=lambda: NO_IDS)  # S16, the kept rows that duplicates name
    keys: np.ndarray | None = None  # of the dedup index, for the kept rows
    existing: list[ExistingRow] = field(default_factory=list)  # some rows that corpora of `against` rejected


def id_keys(ids: Sequence[str]) -> np.ndarray:
    """Row ids as 16 bytes each, S16 (n,)."""
    return np.array([_id_key(row_id) for row_id in ids], "S16") if len(ids) else NO_IDS


def _id_key(row: str) -> bytes:
    try:
        key = bytes.fromhex(row)
    except ValueError:
        key = b""
    return key if len(key) == 16 else hashlib.md5(row.encode(), usedforsecurity=False).digest()


@dataclass(frozen=True)
class Fetched:
    """Objects of a store at `uri` that were read before: their bytes, or the error of the read."""

    uri: str
    objects: Mapping[str, bytes | OSError]

    def read(self, name: str) -> bytes:
        """The whole object. Raises FileNotFoundError, or the error of its read."""
        data = self.objects.get(name, FileNotFoundError(name))
        if isinstance(data, OSError):
            raise data
        return data


def _fetch(store: Store, name: str) -> tuple[str, bytes | OSError]:
    try:
        return name, store.read_small(name)
    except OSError as error:
        return name, error


@dataclass(frozen=True)
class LotAudit:
    """Checks lots, each for itself. It can be pickled."""

    store: Store
    run: Manifest
    schema: pa.Schema | None  # of every shard

    @cached_property
    def dedup(self) -> Duplicates | None:
        return next(self._stages(DEDUP), None)

    @cached_property
    def admissions(self) -> list[Admission]:
        """Those that decide as they did in the run."""
        return [stage for stage in self._stages(ADMISSION) if self._is_current(stage)]

    @cached_property
    def at_commit(self) -> frozenset[str]:
        """Reject reasons of dedup and names of admission stages: what is decided when a lot commits."""
        names = {table["name"] for table in self.run.recipe["stages"] if table["kind"] in ADMISSION}
        duplicates = {f"{self.dedup.name}:{reason}" for reason in (DUPLICATE, PROBABLE)} if self.dedup else set()
        return frozenset(names | duplicates)

    def _is_current(self, stage: Any) -> bool:
        """Whether the run had the stage in its present revision, so that the same rows get the same findings."""
        revisions = {table.get("name"): table.get("revision", 1) for table in self.run.identity.get("stages", [])}
        return bool(revisions.get(stage.name, stage.revision) == stage.revision)

    def _stages(self, kinds: frozenset[str]) -> Iterator[Any]:
        """The stages of these kinds, with the keys that the run had."""
        for table in self.run.recipe["stages"]:
            if table["kind"] in kinds:
                spec = {k: v for k, v in table.items() if k not in ("kind", "name")}
                stage: Any = stage_class(table["kind"])
                yield stage(build(stage.Spec, spec, manifest.NAME), table["name"])

    @property
    def has_several(self) -> bool:
        """Whether the run has several generators."""
        return bool(self.run.recipe.get("generators"))

    def __reduce__(self) -> tuple[Any, ...]:
        return LotAudit, (self.store, self.run, self.schema)  # stages are built again where they are needed

    def lots(self, lots: Sequence[tuple[int, Sequence[str]]]) -> list[LotFacts]:
        """`lot` of each. Bytes are fetched many at once and checked one by one: more threads would wait for another."""
        names = [[shard_name(KEPT, lot), *rejected] for lot, rejected in lots]
        fetched = read_ahead(self.store, partial(_fetch, self.store), chain.from_iterable(names))
        return [self.lot(*entry, Fetched(self.store.uri, dict(islice(fetched, len(names[at])))))
                for at, entry in enumerate(lots)]  # fmt: skip

    def lot(self, lot: int, rejected: Sequence[str], store: "Fetched") -> LotFacts:
        """Check the kept and rejected rows of a lot.

        `rejected`: the rejected shards of the lot that the store holds.
        """
        name, facts = shard_name(KEPT, lot), LotFacts(lot)
        add = facts.errors.append
        try:
            shard = read_whole(store, name)
            table, meta = shard.table, meta_of(shard.metadata, self.store, lot)
        except UnreadableShard as error:
            add(f"{error.name}: {error.reason}")
            return facts
        for stranger in rejected:
            if stranger != meta["rejected"]:
                add(f"{stranger}: {name} does not name it, so its rows were never committed")
        if not self._fits(table, name, facts):
            return facts
        tables = [table]
        self._rows(table, name, facts, is_kept=True)
        if meta["rejected"]:
            rejects = self._rejected(store, meta["rejected"], meta["rejected_sha256"], facts)
            if rejects is not None and self._fits(rejects, meta["rejected"], facts):
                tables.append(rejects)
                self._rows(rejects, meta["rejected"], facts, is_kept=False)
        whole = pa.concat_tables(tables)
        self._complete(whole, facts)
        facts.summary = summarise(whole)
        facts.summary.offered, facts.summary.admitted = tally(self.admissions, whole)
        if self.has_several:
            facts.summary.generators = by_generator(whole)
        if self.admissions and whole.num_rows:
            facts.admission = AdmissionRows.of(self.admissions, whole)
        facts.closing = Closing.of(whole, meta.get(CLOSED_AT), self.at_commit)
        for key, stated, actual in differences(meta["summary"], facts.summary):
            add(f"{name}: its footer says {key} = {stated}, its rows say {actual}")
        if self.dedup:
            self._signatures(table, name, facts)
        return facts

    def _rejected(self, store: "Fetched", name: str, sha256: str, facts: LotFacts) -> pa.Table | None:
        kept = shard_name(KEPT, facts.lot)
        try:
            shard = read_whole(store, name)
        except UnreadableShard as error:
            facts.errors.append(f"{name}: {error.reason}; {kept} names it")
            return None
        if hashlib.sha256(shard.data).hexdigest() != sha256:
            facts.errors.append(f"{name}: altered after it was written (not the file that {kept} names)")
        return shard.table

    def missing_columns(self, schema: pa.Schema) -> list[str]:
        """Columns that the stages of the run need and the schema lacks."""
        stages = [*self.admissions, *([self.dedup] if self.dedup else [])]
        needed = {n for stage in stages for n in (*stage.reads(), *(f.name for f in stage.columns()))}
        return sorted(needed - set(schema.names))

    def _fits(self, table: pa.Table, name: str, facts: LotFacts) -> bool:
        """Whether the table has the columns that the stages need, and the schema of the run."""
        if missing := self.missing_columns(table.schema):
            facts.errors.append(f"{name}: it has no column {', '.join(missing)}, so this run did not write it")
        elif self.schema is not None and not table.schema.remove_metadata().equals(self.schema):
            facts.errors.append(f"{name}: its schema differs from that of the first shard")
        else:
            return True
        return False

    def _rows(self, table: pa.Table, name: str, facts: LotFacts, is_kept: bool) -> None:
        mark, add = self.run.fingerprint, facts.errors.append
        names = ("row", "id", "recipe", "generation")
        strange_rows = [
            row
            for row, row_identity, recipe, generation in zip(*(table.column(n).to_pylist() for n in names))
            if row_identity != row_id(mark, generation, facts.lot, row) or recipe != mark
        ]
        if strange_rows:
            add(f"{name}: row {strange_rows[0]} has an id of another row ({len(strange_rows)} rows do)")
        num_dead = table.num_rows - table.column(REJECT.name).null_count
        if num_dead != (0 if is_kept else table.num_rows):
            add(f"{name}: kept and rejected rows are mixed")
        if is_kept and self.dedup:
            facts.ids = id_keys(table.column("id").to_pylist())
        if "duplicate_of" in table.schema.names:
            owners = table.column("duplicate_of")
            if is_kept and owners.null_count < len(owners) and any(owners.to_pylist()):
                add(f"{name}: a kept row is marked as a duplicate")
            elif not is_kept:
                self._owners(table, owners.to_pylist(), name, facts)
        if self.dedup and EXISTING_COLUMNS[0].name in table.schema.names:
            facts.errors += naming_errors(self.dedup, table, name, is_kept)
            facts.existing += [] if is_kept else rejected_rows(self.dedup, table, name)

    def _owners(self, table: pa.Table, owners: list[str | None], name: str, facts: LotFacts) -> None:
        """A duplicate names its kept row. A probable duplicate (of a Bloom filter) and any other row name none."""
        if not self.dedup:
            return
        facts.owners = id_keys([owner for owner in owners if owner is not None])
        certain, probable = f"{self.dedup.name}:{DUPLICATE}", f"{self.dedup.name}:{PROBABLE}"
        rows, rejects = table.column("row").to_pylist(), table.column(REJECT.name).to_pylist()
        for row, reject, other in zip(rows, rejects, owners):
            if (reject == certain) != (other is not None):
                named = "no kept row" if other is None else "a kept row"
                facts.errors.append(f"{name}: row {row} is {reject} and names {named} in duplicate_of")
            elif reject == probable and self.dedup.is_exact:
                facts.errors.append(f"{name}: row {row} is {reject}, but the recipe's index is exact")

    def _complete(self, whole: pa.Table, facts: LotFacts) -> None:
        rows = np.sort(whole.column("row").to_numpy())
        if np.array_equal(rows, np.arange(len(rows))) and len(rows) <= int(self.run.recipe["lot_size"]):
            return
        add = facts.errors.append
        unique, counts = np.unique(rows, return_counts=True)
        if len(unique) and (counts > 1).any():
            add(f"lot {facts.lot}: row {int(unique[counts > 1][0])} is there {int(counts.max())} times")
        if not np.array_equal(unique, np.arange(len(unique))) or len(unique) > int(self.run.recipe["lot_size"]):
            absent = np.setdiff1d(np.arange(int(unique.max(initial=-1)) + 1), unique)
            where = f"row {int(absent[0])}" if len(absent) else "a row"
            add(f"lot {facts.lot}: {where} is neither kept nor rejected")

    def _signatures(self, table: pa.Table, name: str, facts: LotFacts) -> None:
        """Recompute some signatures, and note the keys of all kept rows."""
        if not self.dedup or not table.num_rows:
            return
        signature = self.dedup.signature
        column = table.column(signature).combine_chunks()
        sample = table.slice(0, SAMPLE_PER_LOT).combine_chunks().to_batches()[0]
        stored = column.slice(0, SAMPLE_PER_LOT)
        if self._is_current(self.dedup) and not self.dedup.agree(stored, self.dedup.signatures(sample)):
            facts.errors.append(
                f"{name}: a row's {signature} is not that of its {self.dedup.signature_source}: "
                "one of the two was altered"
            )
        facts.keys = self.dedup.keys(column)


def differences(stated: Summary, actual: Summary) -> Iterator[tuple[str, object, object]]:
    """(name, stated, actual) of the counts that differ. Lots of 0.2 count no templates."""
    for name, value in stated.counts.items():
        other = getattr(actual, name)
        if name == "templates" and num_texts(value) < num_texts(other):
            continue
        if value != other:
            yield name, value, other
