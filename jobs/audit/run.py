"""Audit of a run: every check over every shard. Lots are read in parallel, and checked against one another in order."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from gristmill.cluster.reading import is_on_cluster, ordered_reads
from gristmill.jobs.audit.admission import AdmissionAudit
from gristmill.jobs.audit.closing import ClosingAudit
from gristmill.jobs.audit.existing import ExistingAudit
from gristmill.jobs.audit.findings import MAX_SHOWN, Findings
from gristmill.jobs.audit.lots import LotAudit, LotFacts, differences
from gristmill.jobs.terminal.bar import Bar
from gristmill.jobs.terminal.console import open_console
from gristmill.records.output import answers, ledger, manifest
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shard_names import KEPT, shard_name
from gristmill.records.output.shard_reading import UnreadableShard, meta_of, read_footer
from gristmill.records.output.summary import Summary
from gristmill.records.stores.contract import Store
from gristmill.stages.dedup.bandindex import NOBODY

LOTS_PER_TASK = 128
MIN_LOTS_LOCAL = 4000  # fewer are read here before a local Ray has started
MIN_LOTS = 500  # on a cluster
PLAIN_EVERY_S = 10.0  # between two progress lines where there is no terminal


def examine_run(store: Store, run: Manifest) -> Findings:
    """Read every shard once.

    With dedup, memory grows by about 200 bytes for each kept row: the index and the ids. Nothing else grows with rows.
    """
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
    if num_answers := answers.leftovers(store, num_lots):
        findings.count("kept answers of committed lots, which the next start deletes", num_answers)
    is_over = run.state in ("complete", "exhausted")
    counts, counted_lots = Summary(), Summary()  # of all lots, and of those that the manifest counts
    lots = sorted(kept)
    audit = LotAudit(store, run, _schema(store, run, lots))
    walk = _Walk(audit, findings, ExistingAudit(audit.dedup, store, run, findings))
    entries = [(lot, rejected.get(lot, ())) for lot in lots]
    tasks = [entries[at : at + LOTS_PER_TASK] for at in range(0, len(entries), LOTS_PER_TASK)]
    use_tasks = len(lots) >= (MIN_LOTS if is_on_cluster() else MIN_LOTS_LOCAL)
    with Bar(open_console(is_error=True), "audit", PLAIN_EVERY_S) as bar:
        for number, facts in enumerate(ordered_reads(store, audit.lots, tasks, use_tasks), 1):
            walk.lot(facts)
            facts.summary.kept_bytes = kept[facts.lot]
            counts.add(facts.summary)
            if facts.lot < run.totals.num_lots:
                counted_lots.add(facts.summary)
            if number % LOTS_PER_TASK == 0:
                bar.show(number, len(lots), f"{number:,} of {len(lots):,} lots checked")
    walk.close(rejected)
    for line in walk.closing.close(is_over):
        findings.add(line)
    for name, stated, actual in differences(run.totals, counts if is_over else counted_lots):
        findings.add(f"{manifest.NAME} says {name} = {stated}, the shards hold {actual}")
    if counts.asks != counts.kept + counts.num_rejected:
        findings.add(f"{counts.asks} asks are not {counts.kept} kept + {counts.num_rejected} rejected")
    findings.count("kept rows", counts.kept)
    findings.count("rejected rows", counts.num_rejected)
    findings.count("lots", counts.num_lots)
    return findings


def _schema(store: Store, run: Manifest, lots: Sequence[int]) -> pa.Schema | None:
    """The schema of the first shard that this run may have written; None if there is none."""
    audit = LotAudit(store, run, None)
    for lot in lots:
        try:
            footer = read_footer(store, shard_name(KEPT, lot))
            meta_of(footer, store, lot)
            schema = footer.schema.to_arrow_schema().remove_metadata()
        except UnreadableShard:
            continue  # reported with its lot
        if not audit.missing_columns(schema):
            return schema
    return None


class _Walk:
    """The checks across lots, in lot order."""

    def __init__(self, audit: LotAudit, findings: Findings, existing: ExistingAudit) -> None:
        self.findings, self.dedup, self.existing = findings, audit.dedup, existing
        self.closing = ClosingAudit(audit.run)
        self.replay = AdmissionAudit(audit.admissions, int(audit.run.recipe["lot_size"]))
        self.index = self.dedup.exact_index(self.dedup.bands) if self.dedup else None
        self.ids: list[np.ndarray] = []  # of kept rows
        self.owners: list[tuple[int, np.ndarray]] = []  # by lot: the kept rows that its duplicates name

    def lot(self, facts: LotFacts) -> None:
        for line in facts.errors:
            self.findings.add(line)
        self.closing.lot(facts.lot, facts.closing, facts.summary.kept)
        if facts.admission is not None:
            for line in self.replay.lot(facts.admission, facts.lot):
                self.findings.add(line)
        if facts.keys is not None:
            self._distinct(facts.keys, facts)
        self.existing.lot(shard_name(KEPT, facts.lot), facts.keys, facts.ids, facts.existing)
        if len(facts.ids):
            self.ids.append(facts.ids)
        if len(facts.owners):
            self.owners.append((facts.lot, facts.owners))

    def _distinct(self, keys: np.ndarray, facts: LotFacts) -> None:
        assert self.dedup and self.index
        first = self.findings.num_checked.get("signatures", 0)
        # As at commit, two rows of one lot must not collide.
        owners = self.dedup.resolve(keys, self.index.query(keys), np.ones(len(keys), bool), first)
        for row in np.flatnonzero(owners != NOBODY).tolist():
            name, row_id = shard_name(KEPT, facts.lot), _hex(facts.ids[row])
            self.findings.add(f"{name}: kept row {row_id} is a near-duplicate of an earlier kept row")
        self.index.insert(keys, first + np.arange(len(keys)))
        self.findings.count("signatures", len(keys))

    def close(self, rejected: dict[int, list[str]]) -> None:
        """Report duplicates whose kept row no shard holds; `rejected`: the rejected shards by lot."""
        self.existing.close()
        if not self.owners:
            return
        kept = np.sort(np.concatenate(self.ids)) if self.ids else np.zeros(0, "S16")
        num_left = MAX_SHOWN
        for lot, owners in self.owners:
            at = np.searchsorted(kept, owners)
            is_absent = np.ones(len(owners), bool)
            inside = at < len(kept)
            is_absent[inside] = kept[at[inside]] != owners[inside]
            for owner in owners[is_absent][:num_left]:
                name = (rejected.get(lot) or [shard_name(KEPT, lot)])[0]
                self.findings.add(f"{name}: duplicate_of names {_hex(owner)}, which is no kept row")
                num_left -= 1


def _hex(key: bytes) -> str:
    return bytes(key).ljust(16, b"\0").hex()
