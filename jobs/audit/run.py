"""Audit of a run: every check over every shard."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from rich.progress import track

from gristmill.jobs.audit.admission import AdmissionAudit
from gristmill.jobs.audit.findings import MAX_SHOWN, Findings
from gristmill.jobs.terminal.console import open_console
from gristmill.records.ids import row_id
from gristmill.records.output import ledger, manifest
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shard_names import KEPT, shard_name
from gristmill.records.output.shard_reading import UnreadableShard, meta_of, read_shard, read_whole
from gristmill.records.output.summary import Summary, summarise
from gristmill.records.schema import REJECT
from gristmill.records.spec import build
from gristmill.records.stores.contract import Store
from gristmill.stages.admission.contract import Admission, tally
from gristmill.stages.dedup.bandindex import NOBODY
from gristmill.stages.dedup.contract import DUPLICATE, PROBABLE, Duplicates
from gristmill.stages.registry import ADMISSION, DEDUP, stage_class

SAMPLE_PER_LOT = 4  # rows of a lot whose signatures are recomputed


def examine_run(store: Store, run: Manifest) -> Findings:
    """Read every shard once. The dedup index takes about 200 bytes per kept row; nothing else grows with the rows."""
    manifest.check_recipe(run, store)
    findings = Findings()
    strangers: list[str] = []
    kept = ledger.kept_lots(store, strangers, run.totals.num_lots)
    _, rejected = ledger.rejected_shards(store, strangers, run.totals.num_lots)
    num_lots = max(run.totals.num_lots, max(kept, default=-1) + 1)
    for lot in range(num_lots):
        if lot not in kept:
            findings.add(f"{shard_name(KEPT, lot)} is missing, though {num_lots} lots are committed")
    for name in strangers:
        findings.add(f"{name} is no shard of this run, but readers of its folder take it for one")
    for lot in sorted(rejected):
        if lot in kept:
            continue
        if lot < num_lots:
            findings.add(f"{rejected[lot][0]} has no kept shard: its lot was never committed")
        else:  # a driver that was stopped may still commit the lot
            findings.count("rejected shards of lots that are not committed", len(rejected[lot]))
    is_over = run.state in ("complete", "exhausted")
    counts, counted_lots = Summary(), Summary()  # of all lots, and of those that the manifest counts
    walk = _Walk(store, run, findings)
    walk.note_duplicates(name for lot in sorted(kept) for name in rejected.get(lot, ()))
    for lot in track(sorted(kept), description="audit", console=open_console(is_error=True), transient=True):
        summary = walk.lot(lot, rejected.get(lot, []))
        summary.kept_bytes = kept[lot]
        counts.add(summary)
        if lot < run.totals.num_lots:
            counted_lots.add(summary)
    walk.close()
    for name, stated, actual in _differences(run.totals, counts if is_over else counted_lots):
        findings.add(f"{manifest.NAME} says {name} = {stated}, the shards hold {actual}")
    if counts.asks != counts.kept + counts.num_rejected:
        findings.add(f"{counts.asks} asks are not {counts.kept} kept + {counts.num_rejected} rejected")
    findings.count("kept rows", counts.kept)
    findings.count("rejected rows", counts.num_rejected)
    findings.count("lots", counts.num_lots)
    return findings


def _differences(stated: Summary, actual: Summary) -> Iterator[tuple[str, object, object]]:
    for name, value in stated.literals().items():
        other = getattr(actual, name)
        if value != other:
            yield name, value, other


class _Walk:
    """The state that one pass over the lots needs."""

    def __init__(self, store: Store, run: Manifest, findings: Findings) -> None:
        self.store, self.run, self.findings = store, run, findings
        self.lot_size = int(run.recipe["lot_size"])
        self.schema: pa.Schema | None = None
        self.dedup = self._dedup()
        self.admissions: list[Admission] = list(self._stages(ADMISSION))
        self.replay = AdmissionAudit(self.admissions, self.lot_size)
        self.index = self.dedup.exact_index(self.dedup.bands) if self.dedup else None
        self.unseen: dict[str, str] = {}  # id that a duplicate names as its kept row -> the shard that names it

    def note_duplicates(self, names: Iterable[str]) -> None:
        """Collect the ids that duplicates name. This pass comes first: a kept row may precede its duplicate."""
        if not self.dedup:
            return
        for name in names:
            try:
                owners = read_shard(self.store, name, ["duplicate_of"]).column(0)
            except UnreadableShard:
                continue  # reported when the lot itself is read
            self.unseen.update(dict.fromkeys(owners.drop_null().to_pylist(), name))

    def _dedup(self) -> Duplicates | None:
        return next(self._stages(DEDUP), None)

    def _stages(self, kinds: frozenset[str]) -> Iterator[Any]:
        """The stages of these kinds, with the keys that the run had."""
        for table in self.run.recipe["stages"]:
            if table["kind"] in kinds:
                spec = {k: v for k, v in table.items() if k not in ("kind", "name")}
                stage: Any = stage_class(table["kind"])
                yield stage(build(stage.Spec, spec, manifest.NAME), table["name"])

    def lot(self, lot: int, rejected: Sequence[str]) -> Summary:
        """Check the kept and rejected rows of a lot. Returns the summary that they add up to.

        `rejected`: the rejected shards of the lot that the store holds.
        """
        name = shard_name(KEPT, lot)
        try:
            shard = read_whole(self.store, name)
            table, meta = shard.table, meta_of(shard.metadata, self.store, lot)
        except UnreadableShard as error:
            self.findings.add(f"{error.name}: {error.reason}")
            return Summary(num_lots=1)
        for stranger in rejected:
            if stranger != meta["rejected"]:
                self.findings.add(f"{stranger}: {name} does not name it, so its rows were never committed")
        if not self._fits(table, name):
            return Summary(num_lots=1)
        tables = [table]
        self._rows(table, lot, name, is_kept=True)
        rejects = self._rejected(meta["rejected"], meta["rejected_sha256"], name) if meta["rejected"] else None
        if rejects is not None and self._fits(rejects, meta["rejected"]):
            tables.append(rejects)
            self._rows(rejects, lot, meta["rejected"], is_kept=False)
        whole = pa.concat_tables(tables)
        self._complete(whole, lot)
        summary = summarise(whole)
        summary.offered, summary.admitted = tally(self.admissions, whole)
        for line in self.replay.lot(whole, lot):
            self.findings.add(line)
        for key, stated, actual in _differences(meta["summary"], summary):
            self.findings.add(f"{name}: its footer says {key} = {stated}, its rows say {actual}")
        if self.dedup:
            self._distinct(table, name)
        return summary

    def _rejected(self, name: str, sha256: str, kept: str) -> pa.Table | None:
        try:
            shard = read_whole(self.store, name)
        except UnreadableShard as error:
            self.findings.add(f"{name}: {error.reason}; {kept} names it")
            return None
        if hashlib.sha256(shard.data).hexdigest() != sha256:
            self.findings.add(f"{name}: altered after it was written (not the file that {kept} names)")
        return shard.table

    def _fits(self, table: pa.Table, name: str) -> bool:
        """Whether the table has the columns that the stages need, and the schema of the first shard."""
        schema, stages = table.schema.remove_metadata(), [*self.admissions, *([self.dedup] if self.dedup else [])]
        needed = {n for stage in stages for n in (*stage.reads(), *(f.name for f in stage.columns()))}
        if missing := sorted(needed - set(schema.names)):
            self.findings.add(f"{name}: it has no column {', '.join(missing)}, so this run did not write it")
        elif self.schema is not None and not schema.equals(self.schema):
            self.findings.add(f"{name}: its schema differs from that of the first shard")
        else:
            self.schema = schema
            return True
        return False

    def _rows(self, table: pa.Table, lot: int, name: str, is_kept: bool) -> None:
        mark = self.run.fingerprint
        strange_rows = [
            row
            for row, row_identity, recipe, generation in zip(
                table.column("row").to_pylist(),
                table.column("id").to_pylist(),
                table.column("recipe").to_pylist(),
                table.column("generation").to_pylist(),
            )
            if row_identity != row_id(mark, generation, lot, row) or recipe != mark
        ]
        if strange_rows:
            self.findings.add(f"{name}: row {strange_rows[0]} has an id of another row ({len(strange_rows)} rows do)")
        num_dead = table.num_rows - table.column(REJECT.name).null_count
        if num_dead != (0 if is_kept else table.num_rows):
            self.findings.add(f"{name}: kept and rejected rows are mixed")
        if "duplicate_of" in table.schema.names:
            owners = table.column("duplicate_of").to_pylist()
            if is_kept and any(owners):
                self.findings.add(f"{name}: a kept row is marked as a duplicate")
            elif not is_kept:
                self._owners(table.column("row").to_pylist(), table.column(REJECT.name).to_pylist(), owners, name)

    def _owners(self, rows: list[int], rejects: list[str | None], owners: list[str | None], name: str) -> None:
        """A duplicate names its kept row. A probable duplicate (of a Bloom filter) and any other row name none."""
        assert self.dedup
        certain, probable = f"{self.dedup.name}:{DUPLICATE}", f"{self.dedup.name}:{PROBABLE}"
        for row, reject, other in zip(rows, rejects, owners):
            if (reject == certain) != (other is not None):
                names = "no kept row" if other is None else "a kept row"
                self.findings.add(f"{name}: row {row} is {reject} and names {names} in duplicate_of")
            elif reject == probable and self.dedup.is_exact:
                self.findings.add(f"{name}: row {row} is {reject}, but the recipe's index is exact")

    def _complete(self, whole: pa.Table, lot: int) -> None:
        rows = np.sort(whole.column("row").to_numpy())
        unique, counts = np.unique(rows, return_counts=True)
        if len(unique) and (counts > 1).any():
            self.findings.add(f"lot {lot}: row {int(unique[counts > 1][0])} is there {int(counts.max())} times")
        if not np.array_equal(unique, np.arange(len(unique))) or len(unique) > self.lot_size:
            absent = np.setdiff1d(np.arange(int(unique.max(initial=-1)) + 1), unique)
            where = f"row {int(absent[0])}" if len(absent) else "a row"
            self.findings.add(f"lot {lot}: {where} is neither kept nor rejected")

    def _distinct(self, table: pa.Table, name: str) -> None:
        assert self.dedup and self.index
        ids = table.column("id").to_pylist()
        for kept_id in ids:
            self.unseen.pop(kept_id, None)
        if not table.num_rows:
            return
        signature = self.dedup.signature
        column = table.column(signature).combine_chunks()
        sample = table.slice(0, SAMPLE_PER_LOT).combine_chunks().to_batches()[0]
        recomputed = self.dedup.find(sample).columns[signature]
        if not self.dedup.agree(column.slice(0, SAMPLE_PER_LOT), recomputed):
            self.findings.add(
                f"{name}: a row's {signature} is not that of its {self.dedup.signature_source}: "
                "one of the two was altered"
            )
        keys = self.dedup.keys(column)
        first = self.findings.num_checked.get("signatures", 0)
        # As at commit, two rows of one lot must not collide.
        owners = self.dedup.resolve(keys, self.index.query(keys), np.ones(len(keys), bool), first)
        for row in np.flatnonzero(owners != NOBODY).tolist():
            self.findings.add(f"{name}: kept row {ids[row]} is a near-duplicate of an earlier kept row")
        self.index.insert(keys, first + np.arange(len(keys)))
        self.findings.count("signatures", table.num_rows)

    def close(self) -> None:
        """Report duplicates whose kept row no shard holds."""
        for other, name in list(self.unseen.items())[:MAX_SHOWN]:
            self.findings.add(f"{name}: duplicate_of names {other}, which is no kept row")
