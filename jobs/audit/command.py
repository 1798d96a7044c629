"""`gristmill audit URI`: re-read an output and prove it, or say what is wrong and where."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import track

from gristmill.jobs.audit.admission import AdmissionAudit
from gristmill.records import ledger, manifest
from gristmill.records.errors import UserError
from gristmill.records.ids import row_id
from gristmill.records.manifest import Manifest
from gristmill.records.readers.parquet import columns_of, open_parquet, read_parquet
from gristmill.records.schema import REJECT
from gristmill.records.shards import KEPT, REJECTED, Summary, data_sha256, parse_meta, shard_name, summarise
from gristmill.records.spec import build
from gristmill.records.stores.contract import Store, open_store
from gristmill.stages.admission.contract import Admission, tally
from gristmill.stages.dedup.bandindex import NOBODY
from gristmill.stages.dedup.contract import DUPLICATE, PROBABLE, Duplicates
from gristmill.stages.registry import ADMISSION, DEDUP, stage_class

MAX_SHOWN = 20
SAMPLE_PER_LOT = 4  # signatures made anew from what they sign


@dataclass
class Findings:
    """What is wrong, one line each, and what was looked at."""

    wrong: list[str] = field(default_factory=list)
    num_checked: dict[str, int] = field(default_factory=dict)

    def add(self, line: str) -> None:
        self.wrong.append(line)

    def count(self, what: str, number: int) -> None:
        self.num_checked[what] = self.num_checked.get(what, 0) + number


def audit(uri: str, as_json: bool = False) -> int:
    """Print the findings; returns 0 when the output is proven and 1 when it is not. Raises UserError for no output."""
    store = open_store(uri)
    store.check(write=False)
    book = manifest.load(store)
    study = store.read_if_there("study.json") if book is None else None
    if study is not None:
        from gristmill.jobs.audit.study import examine_study

        findings = examine_study(store, study)
    elif book is None and (mixture := store.read_if_there("mixture.json")) is not None:
        from gristmill.jobs.audit.mixture import examine_mixture

        findings = examine_mixture(store, mixture)
    elif book is None:
        raise UserError(
            f"{store.uri}: none of {manifest.NAME}, study.json and mixture.json is there, so this is no output to audit"
        )
    else:
        findings = examine(store, book)
    if as_json:
        print(
            json.dumps({"ok": not findings.wrong, "wrong": findings.wrong, "checked": findings.num_checked}, indent=2)
        )
        return 1 if findings.wrong else 0
    console = Console(highlight=False)
    for line in findings.wrong[:MAX_SHOWN]:
        console.print(f"WRONG  {line}", markup=False, soft_wrap=True)
    if len(findings.wrong) > MAX_SHOWN:
        console.print(f"... and {len(findings.wrong) - MAX_SHOWN} more")
    checked = ", ".join(f"{number:,} {what}" for what, number in findings.num_checked.items())
    verdict = f"{len(findings.wrong)} findings" if findings.wrong else "ok"
    console.print(f"audit of {store.uri}: {verdict} ({checked})", markup=False, soft_wrap=True)
    return 1 if findings.wrong else 0


def examine(store: Store, book: Manifest) -> Findings:
    """Every check over every shard; memory grows with kept rows only by the dedup index (some 200 bytes a row)."""
    findings = Findings()
    kept, rejected = ledger.lots_in(store, KEPT), ledger.lots_in(store, REJECTED)
    last = max(kept, default=-1)
    for lot in range(last + 1):
        if lot not in kept:
            findings.add(f"{shard_name(KEPT, lot)} is missing, though lots up to {last} are committed")
    is_over = book.state in ("complete", "exhausted")
    for lot in sorted(rejected):
        # Past the last commit of a run that can go on, it is the leftover of a stop, and the resumed run removes it.
        if lot not in kept and (is_over or lot <= last):
            findings.add(f"{shard_name(REJECTED, lot)} has no kept shard: its lot was never committed")
    counts, told = Summary(), Summary()
    walk = _Walk(store, book, findings)
    walk.note_duplicates(sorted(rejected))
    for lot in track(sorted(kept), description="audit", console=Console(stderr=True), transient=True):
        summary = walk.lot(lot)
        summary.kept_bytes = kept[lot]
        counts.add(summary)
        if lot < book.totals.num_lots:
            told.add(summary)
    walk.close()
    for name, said, found in _disagreements(book.totals, counts if is_over else told):
        findings.add(f"{manifest.NAME} says {name} = {said}, the shards hold {found}")
    if counts.asks != counts.kept + counts.num_rejected:
        findings.add(f"{counts.asks} asks are not {counts.kept} kept + {counts.num_rejected} rejected")
    findings.count("kept rows", counts.kept)
    findings.count("rejected rows", counts.num_rejected)
    findings.count("lots", counts.num_lots)
    return findings


def _disagreements(told: Summary, found: Summary) -> Iterator[tuple[str, object, object]]:
    for name, value in told.literals().items():
        other = getattr(found, name)
        if value != other:
            yield name, value, other


class _Walk:
    """The state that one pass over the lots needs."""

    def __init__(self, store: Store, book: Manifest, findings: Findings) -> None:
        self.store, self.book, self.findings = store, book, findings
        self.lot_size = int(book.recipe["lot_size"])
        self.schema: pa.Schema | None = None
        self.dedup = self._dedup()
        self.admissions: list[Admission] = list(self._stages(ADMISSION))
        self.replay = AdmissionAudit(self.admissions, self.lot_size)
        self.index = self.dedup.exact_index(self.dedup.bands) if self.dedup else None
        self.wanted: dict[str, str] = {}  # id of a kept row that a duplicate names -> where it is named

    def note_duplicates(self, lots: Iterable[int]) -> None:
        """Collect what duplicates name, before the pass that looks for it: the kept row comes first."""
        if not self.dedup:
            return
        for lot in lots:
            name = shard_name(REJECTED, lot)
            try:
                with self.store.open(name) as file:
                    named = read_parquet(file, ["duplicate_of"]).column(0)
            except (pa.ArrowInvalid, OSError):
                continue  # found out again, and reported, when the lot is read
            self.wanted.update({other: name for other in named.drop_null().to_pylist()})

    def _dedup(self) -> Duplicates | None:
        return next(self._stages(DEDUP), None)

    def _stages(self, kinds: frozenset[str]) -> Iterator[Any]:
        """The stages of these kinds, as the run had them."""
        for table in self.book.recipe["stages"]:
            if table["kind"] in kinds:
                spec = {k: v for k, v in table.items() if k not in ("kind", "name")}
                made: Any = stage_class(table["kind"])
                yield made(build(made.Spec, spec, manifest.NAME), table["name"])

    def lot(self, lot: int) -> Summary:
        name = shard_name(KEPT, lot)
        data = self.store.read(name)
        try:
            file = open_parquet(pa.BufferReader(data), check_pages=True)
            table, meta = columns_of(file), parse_meta(file.metadata)
        except (pa.ArrowInvalid, OSError) as error:
            self.findings.add(f"{name}: not readable as Parquet ({str(error).splitlines()[0]})")
            return Summary(num_lots=1)
        except (KeyError, ValueError, TypeError):
            self.findings.add(f"{name}: its footer holds no summary, so it was not written by a run")
            return Summary(num_lots=1)
        if data_sha256(data) != meta["data_sha256"]:
            self.findings.add(f"{name}: altered after its commit (its bytes do not have the checksum in its footer)")
        tables = [table, *self._rejected(lot, meta["rejected_sha256"])]
        for part, folder in zip(tables, (KEPT, REJECTED)):
            self._rows(part, lot, shard_name(folder, lot), is_kept=folder == KEPT)
        whole = pa.concat_tables(tables)
        self._complete(whole, lot)
        summary = summarise(whole)
        summary.offered, summary.admitted = tally(self.admissions, whole)
        for line in self.replay.lot(whole, lot):
            self.findings.add(line)
        for what, told, found in _disagreements(meta["summary"], summary):
            self.findings.add(f"{name}: its footer says {what} = {told}, its rows say {found}")
        if self.dedup:
            self._distinct(table, name)
        return summary

    def _rejected(self, lot: int, sha256: str | None) -> list[pa.Table]:
        name = shard_name(REJECTED, lot)
        data = self.store.read_if_there(name)
        if data is None:
            if sha256:
                self.findings.add(f"{name} is missing: lot {lot} has rejected rows")
            return []
        if hashlib.sha256(data).hexdigest() != sha256:
            self.findings.add(f"{name}: altered after its commit (not the file that {shard_name(KEPT, lot)} names)")
        try:
            return [read_parquet(pa.BufferReader(data), check_pages=True)]
        except (pa.ArrowInvalid, OSError) as error:
            self.findings.add(f"{name}: not readable as Parquet ({str(error).splitlines()[0]})")
            return []

    def _rows(self, table: pa.Table, lot: int, name: str, is_kept: bool) -> None:
        if self.schema is None:
            self.schema = table.schema.remove_metadata()
        elif not table.schema.remove_metadata().equals(self.schema):
            self.findings.add(f"{name}: its schema differs from that of the first shard")
            return
        mark = self.book.fingerprint
        wrong = [
            row
            for row, found, recipe, generation in zip(
                table.column("row").to_pylist(),
                table.column("id").to_pylist(),
                table.column("recipe").to_pylist(),
                table.column("generation").to_pylist(),
            )
            if found != row_id(mark, generation, lot, row) or recipe != mark
        ]
        if wrong:
            self.findings.add(f"{name}: row {wrong[0]} does not bear its own id ({len(wrong)} such rows)")
        num_dead = table.num_rows - table.column(REJECT.name).null_count
        if num_dead != (0 if is_kept else table.num_rows):
            self.findings.add(f"{name}: kept and rejected rows are mixed")
        if "duplicate_of" in table.schema.names:
            named = table.column("duplicate_of").to_pylist()
            if is_kept and any(named):
                self.findings.add(f"{name}: a kept row is marked as a duplicate")
            elif not is_kept:
                self._named(table.column("row").to_pylist(), table.column(REJECT.name).to_pylist(), named, name)

    def _named(self, rows: list[int], rejects: list[str | None], named: list[str | None], name: str) -> None:
        """A duplicate names its kept row; a probable one (Bloom filters find them) and any other row name none."""
        assert self.dedup
        certain, probable = f"{self.dedup.name}:{DUPLICATE}", f"{self.dedup.name}:{PROBABLE}"
        for row, reject, other in zip(rows, rejects, named):
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
        for one in ids:
            self.wanted.pop(one, None)
        if not table.num_rows:
            return
        signature = self.dedup.signature
        column = table.column(signature).combine_chunks()
        some = table.slice(0, SAMPLE_PER_LOT).combine_chunks().to_batches()[0]
        anew = self.dedup.find(some).columns[signature]
        if not self.dedup.agree(column.slice(0, SAMPLE_PER_LOT), anew):
            self.findings.add(
                f"{name}: a row's {signature} is not that of its {self.dedup.signature_source}: "
                "one of the two was altered"
            )
        keys = self.dedup.keys(column)
        first = self.findings.num_checked.get("signatures", 0)
        # As at commit: two rows of the same lot must not collide either.
        near = self.dedup.resolve(keys, self.index.query(keys), np.ones(len(keys), bool), first)
        for row in np.flatnonzero(near != NOBODY).tolist():
            self.findings.add(f"{name}: kept row {ids[row]} is a near-duplicate of an earlier kept row")
        self.index.insert(keys, first + np.arange(len(keys)))
        self.findings.count("signatures", table.num_rows)

    def close(self) -> None:
        for other, name in list(self.wanted.items())[:MAX_SHOWN]:
            self.findings.add(f"{name}: duplicate_of names {other}, which is no kept row")
