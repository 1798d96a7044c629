"""Whether a run kept no row like those of the corpora in `dedup.against`, and rejected none that is unlike them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs.audit.findings import Findings
from gristmill.jobs.produce.existing import prepare
from gristmill.records.errors import UserError
from gristmill.records.output.manifest import Manifest
from gristmill.records.schema import REJECT
from gristmill.records.stores.contract import Store
from gristmill.stages.dedup.bandindex import NOBODY
from gristmill.stages.dedup.contract import EXISTING, EXISTING_COLUMNS, Duplicates
from gristmill.stages.dedup.existing import Existing

MAX_PIECES = 4  # pieces of the corpora that are read again
SAMPLE_PER_LOT = 4  # rejected rows that are compared


@dataclass(frozen=True)
class ExistingRow:
    """A row that was rejected as existing: what it names, and its keys uint64 (bands,)."""

    shard: str
    row: int
    source: str
    id: str
    keys: np.ndarray


def rejected_rows(dedup: Duplicates, table: pa.Table, shard: str) -> list[ExistingRow]:
    """Some of the rows of a rejected shard that the corpora rejected."""
    rows = table.filter(pc.equal(table.column(REJECT.name), f"{dedup.name}:{EXISTING}"))[:SAMPLE_PER_LOT]
    values = zip(*(rows.column(name).to_pylist() for name in ("row", *(f.name for f in EXISTING_COLUMNS))))
    keys = dedup.keys(rows.column(dedup.signature))
    return [ExistingRow(shard, row, source, i, key) for (row, source, i), key in zip(values, keys)]


def naming_errors(dedup: Duplicates, table: pa.Table, shard: str, is_kept: bool) -> list[str]:
    """Rows that name an existing row though they are not rejected for it, and rejected rows that name none."""
    errors = []
    reason = None if is_kept else f"{dedup.name}:{EXISTING}"
    columns = [table.column(f.name).to_pylist() for f in EXISTING_COLUMNS if f.name in table.schema.names]
    for row, reject, *names in zip(table.column("row").to_pylist(), table.column(REJECT.name).to_pylist(), *columns):
        is_named = [name is not None for name in names]
        if any(is_named) != (reject == reason and not is_kept) or len(set(is_named)) > 1:
            named = "names" if any(is_named) else "does not name"
            errors.append(f"{shard}: row {row} is {reject or 'kept'} and {named} a row in existing_id")
    return errors[:1]


class ExistingAudit:
    """Looks all kept rows up in the index of the corpora, and compares some rejected rows with the rows they name."""

    def __init__(self, dedup: Duplicates | None, store: Store, run: Manifest, findings: Findings) -> None:
        self.findings, self.existing, self.sample = findings, None, list[ExistingRow]()
        against = getattr(dedup.spec, "against", ()) if dedup else ()
        if not against or dedup is None:
            return
        stated = next((s.get("against") for s in run.identity["stages"] if s.get("name") == dedup.name), None)
        try:
            self.existing = self._open(dedup, store, stated)
        except UserError as error:  # they may have been deleted since, which is no fault of the output
            findings.count(f"corpora of against NOT compared ({error})", len(against))

    def _open(self, dedup: Any, store: Store, stated: Any) -> Existing:
        existing: Existing = dedup.existing
        if existing.identity != stated:
            names = [new["name"] for old, new in zip(stated or (), existing.identity) if old != new]
            raise UserError(f"{', '.join(names) or 'they'} changed since the run")
        prepare(existing, store, is_output=False)
        self.findings.count("existing rows", existing.index.num_rows)
        return existing

    def lot(self, shard: str, keys: np.ndarray | None, ids: np.ndarray, rejected: Sequence[ExistingRow]) -> None:
        """`keys` uint64 (n, bands) and `ids` S16 (n,) of the kept rows of a lot, and some of its rejected rows."""
        if self.existing is None:
            return
        self.sample += rejected
        for at in np.flatnonzero(self.existing.index.query(keys) != NOBODY) if keys is not None and len(keys) else ():
            self.findings.add(
                f"{shard}: kept row {bytes(ids[at]).ljust(16, bytes(1)).hex()} is a near-duplicate of an existing row"
            )

    def close(self) -> None:
        """Compare the sample of rejected rows with the corpora themselves."""
        if self.existing is None or not self.sample:
            return
        rows = self.existing.index.query(np.stack([entry.keys for entry in self.sample])).tolist()
        again = self.existing.keys_again(sorted({row for row in rows if row != NOBODY}), MAX_PIECES)
        for entry, row in zip(self.sample, rows):
            what = f"{entry.shard}: row {entry.row} is rejected as existing, but"
            if row == NOBODY:
                self.findings.add(f"{what} no row of the corpora is like it")
                continue
            corpus, row_id = self.existing.index.row(row)
            if (self.existing.corpora[corpus].name, row_id) != (entry.source, entry.id):
                self.findings.add(f"{what} it names {entry.id} of {entry.source}, not the first row that is like it")
            elif row in again and not (again[row] == entry.keys).any():
                self.findings.add(f"{what} {entry.id} of {entry.source} shares no band with it")
            self.findings.count("rejected rows compared with existing rows", 1)
