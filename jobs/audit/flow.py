"""Audit of a flow: every step, and the links between them: what a step has read is what the step before holds."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from gristmill.jobs.audit.findings import Findings
from gristmill.jobs.flow.contents import content_of
from gristmill.jobs.flow.state import FlowFile, StepRecord
from gristmill.records.committed import CommittedRows, Upstream, extent_of, kept_digest
from gristmill.records.errors import UserError
from gristmill.records.lots import Plan, asks
from gristmill.records.output import ledger
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.manifest import load as read_manifest
from gristmill.records.output.shard_names import KEPT, shard_name
from gristmill.records.output.shard_reading import UnreadableShard, name_of, read_shard
from gristmill.records.readers.parquet import read_parquet
from gristmill.records.readers.sources import SourceSpec
from gristmill.records.spec import build
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

AUDITED = ("manifest.json", "study.json", "mixture.json")  # of a step: there is an audit for it
SOURCE = "source.path"


def examine_flow(store: Store, flow: FlowFile, examine: Callable[[Store], Findings]) -> Findings:
    """Examine each step that has begun, and each link that it has read. `examine` is the audit of one output."""
    findings = Findings()
    for record in flow.steps:
        output = open_store(store.path(record.name))
        if any(output.exists(name) for name in AUDITED):
            step = examine(output)
            for line in step.errors:
                findings.add(f"{record.name}: {line}")
            for kind, number in step.num_checked.items():
                findings.count(kind, number)
        elif record.is_done and not next(iter(output.list()), None):
            findings.add(f"{record.name}: flow.json says that it is complete, but its output is gone")
        if record.state != "waiting":
            for link in record.inputs:
                _examine_link(store, record, link, findings)
                findings.count("links", 1)
        findings.count("steps", 1)
    return findings


def _examine_link(store: Store, record: StepRecord, link: dict[str, str], findings: Findings) -> None:
    """A link: the digest of what was read, and for rows that a run or a release has taken, each row."""
    before, output = open_store(store.path(link["step"])), open_store(store.path(record.name))
    where = f"{record.name}: {link['key']} = step:{link['step']}"
    try:
        if link["by"] == "content" and content_of(before) != link["identity"]:
            findings.add(f"{where}: the output of that step is not the one that was read")
            return
        upstream, run = read_manifest(before), read_manifest(output)
        if upstream is None:
            return
        if run is not None and link["key"] == SOURCE:
            _examine_source(before, upstream, output, run, link, where, findings)
        elif record.verb == "pack" and link["key"] == "run":
            _examine_release(before, upstream, output, where, findings)
    except UserError as error:
        findings.add(f"{where}: {error}")


def _examine_source(
    before: Store,
    upstream: Manifest,
    output: Store,
    run: Manifest,
    link: dict[str, str],
    where: str,
    findings: Findings,
) -> None:
    """The rows of a run are of the committed rows of the run before, in their order."""
    read = run.inputs.get("source") or {}
    extent = extent_of(upstream.recipe)
    step = Upstream(link["step"], upstream.fingerprint, extent, True, ())
    if link["by"] == "plan" and step.identity != link["identity"]:
        findings.add(f"{where}: that step has another fingerprint or other limits than the one that was read")
        return
    if (run.identity.get("source") or {}).get("content") != link["identity"]:
        findings.add(f"{where}: flow.json names another input than manifest.json")
    if "num_shards" not in read or kept_digest(before, read["num_shards"]) != read["content"]:
        findings.add(f"{where}: the lots that were read are not those of that step")
        return
    spec = build(SourceSpec, run.recipe["source"], "source")
    if run.recipe.get("rounds"):
        return  # later rounds read the run's own rows
    source = CommittedRows(before, step, spec, link["by"] == "plan")
    lot_size = int(run.recipe["lot_size"])
    committed = ledger.committed(output, run)
    num_asks = source.num_rows * spec.samples if not spec.cycle else None
    total = sum(meta["summary"].asks for meta in ledger.metas(output, committed))
    if num_asks is not None and total > num_asks:
        findings.add(f"{where}: {total} asks read {source.num_rows} rows, {spec.samples} times each at most")
        return
    plan = Plan(run.fingerprint, lot_size, total, source.num_rows, "", carry=spec.carry)
    for lot in sorted(committed):
        if line := _examine_lot(output, lot, asks(plan, source, lot), spec.carry):
            findings.add(f"{where}: {line}")
        findings.count("rows compared with their source", plan.span(lot)[1] - plan.span(lot)[0])


def _examine_lot(output: Store, lot: int, expected: pa.RecordBatch, carry: Sequence[str]) -> str | None:
    """What is wrong with the source ids and the carried columns of a lot."""
    columns = ["row", "source_id", *carry]
    names = [shard_name(KEPT, lot), *([rejected] if (rejected := name_of(output, "rejected", lot)) else [])]
    rows = pa.concat_tables([read_shard(output, name, columns).select(columns) for name in names]).sort_by("row")
    for name in columns:
        actual, wanted = rows.column(name).to_pylist(), expected.column(name).to_pylist()
        if actual != wanted:
            row = next((at for at, pair in enumerate(zip(actual, wanted)) if pair[0] != pair[1]), len(wanted))
            return f"lot {lot}, row {row}: its {name} is not that of the committed row it was made of"
    return None


def _examine_release(before: Store, upstream: Manifest, release: Store, where: str, findings: Findings) -> None:
    """A release of a run holds its kept rows, each once: compared by the sums of their ids."""
    shards = sorted(entry.name for entry in release.list("train-"))
    if not shards:
        return
    packed, kept = _IdSum(), _IdSum()
    for lot in ledger.committed(before, upstream):
        kept.add(read_shard(before, shard_name(KEPT, lot), ["id"]))
    for name in shards:
        with release.open(name) as file:
            try:
                packed.add(read_parquet(file, ["id"], where=release.path(name)))
            except UserError as error:
                raise UnreadableShard(release.uri, name, str(error)) from None
    if (packed.num_rows, packed.total) != (kept.num_rows, kept.total):
        findings.add(f"{where}: the release holds {packed.num_rows} rows, which are not the {kept.num_rows} kept rows")
    findings.count("packed rows", packed.num_rows)


class _IdSum:
    """Number and sum of ids modulo 2^128: equal for the same rows in any order."""

    def __init__(self) -> None:
        self.num_rows, self.total = 0, 0

    def add(self, table: pa.Table) -> None:
        ids = table.column("id").to_pylist()
        words = np.frombuffer(bytes.fromhex("".join(ids)), dtype=">u4").astype(np.uint64).reshape(-1, 4)
        self.num_rows += len(ids)
        sums = words.sum(axis=0).tolist()
        self.total = (self.total + sum(word << (32 * (3 - at)) for at, word in enumerate(sums))) % (1 << 128)
