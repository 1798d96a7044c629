"""Whether no row of a release is on its take-down list, or was made from one that is."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gristmill.cluster.reading import is_on_cluster, ordered_reads
from gristmill.jobs.audit.findings import Findings
from gristmill.jobs.release.takedown.facts import NAME, Absence
from gristmill.records.readers.parquet import columns_of, open_parquet
from gristmill.records.stores.contract import Store

# Columns that say what a row is and what it was made from.
ORIGIN_COLUMNS = ("id", "source_id", "other_source_id", "example_ids")
MIN_SHARDS, MIN_SHARDS_LOCAL = 4, 16  # from which they are read by Ray tasks: on a cluster, and on a local Ray
CARD = "README.md"


def present_rows(absence: Absence, table: pa.Table, name: str) -> list[str]:
    """An error for a shard with rows that should have been left out."""
    columns = [table.column(column).to_pylist() for column in ORIGIN_COLUMNS if column in table.column_names]
    rows = absence.present(*columns)
    more = f" and {len(rows) - 1:,} more" if len(rows) > 1 else ""
    return [f"{name}: row {rows[0]}{more} should have been left out: {NAME} holds the hash of its id"] if rows else []


@dataclass(frozen=True)
class ShardAudit:
    """Checks shards of a release of a run, each for itself. It can be pickled."""

    store: Store
    absence: Absence

    def shards(self, names: Sequence[str]) -> list[tuple[str, str, int, list[str]]]:
        """(name, sha256, rows, errors) of each."""
        return [self._shard(name) for name in names]

    def _shard(self, name: str) -> tuple[str, str, int, list[str]]:
        data = self.store.read(name)
        digest = hashlib.sha256(data).hexdigest()
        try:
            with open_parquet(data) as file:
                present = [column for column in ORIGIN_COLUMNS if column in file.schema_arrow.names]
                table = columns_of(file, present)
        except (pa.ArrowInvalid, OSError) as error:
            return name, digest, 0, [f"{name}: not readable as Parquet ({str(error).splitlines()[0]})"]
        return name, digest, table.num_rows, present_rows(self.absence, table, name)


def examine_takedown(store: Store) -> Findings:
    """Check the release of a run that was packed with a take-down list.

    Shards have their checksums, the card states the counts, and no row bears a hidden id. Raises UserError when
    takedown.json cannot be read.
    """
    findings, absence = Findings(), Absence(store)
    checksums = _checksums(store, findings)
    names = [entry.name for entry in store.list("train-")]
    for name in sorted({*checksums} ^ {*names}):
        findings.add(f"{name} is {'missing' if name in checksums else 'there, but croissant.json does not name it'}")
    use_tasks = len(names) >= (MIN_SHARDS if is_on_cluster() else MIN_SHARDS_LOCAL)
    audit = ShardAudit(store, absence)
    for name, digest, num_rows, errors in ordered_reads(store, audit.shards, [[name] for name in names], use_tasks):
        if checksums.get(name, digest) != digest:
            findings.add(f"{name}: altered after it was packed (its sha256 is not the one in croissant.json)")
        findings.errors += errors
        findings.count("rows", num_rows)
    card = (store.read_if_there(CARD) or b"").decode("utf-8", "replace")
    if absence.section.strip() not in card:
        findings.add(f"{CARD} does not state the counts of {NAME}")
    findings.count("shards", len(names))
    findings.count("hidden ids", len(absence))
    return findings


def _checksums(store: Store, findings: Findings) -> dict[str, Any]:
    """The sha256 of each shard, as croissant.json states them."""
    try:
        entries = json.loads(store.read("croissant.json"))["distribution"]
        return {entry["name"]: entry["sha256"] for entry in entries if entry["@type"] == "cr:FileObject"}
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        findings.add("croissant.json is missing or cannot be read")
        return {}
