"""What is left of a run, held against the run that nothing disturbed."""

import json
from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from gristmill.records.output import manifest
from gristmill.records.output.shards import KEPT, REJECTED
from gristmill.records.readers.parquet import read_parquet
from gristmill.records.stores.opening import open_store
from tests.conftest import gristmill
from tests.outputs import kept_hashes


@dataclass
class Verdict:
    """Row numbers are asks: (lot, row). A run is right when `wrong` is empty."""

    num_rows: int = 0
    num_kept: int = 0
    num_shards: int = 0
    lost: list[tuple[int, int]] = field(default_factory=list)  # kept undisturbed, not kept here
    duplicated: list[tuple[int, int]] = field(default_factory=list)  # here more than once, kept or rejected
    wrong: list[str] = field(default_factory=list)


def judge(out: str, undisturbed: str) -> Verdict:
    """Compare two outputs byte by byte and row by row, and have the first audited."""
    verdict = Verdict()
    audit = gristmill("audit", out, timeout=1800)
    if audit.returncode != 0:
        verdict.wrong.append(f"audit: exit {audit.returncode}: {(audit.stdout + audit.stderr).strip()[:2000]}")
    here, there = kept_hashes(out), kept_hashes(undisturbed)
    verdict.num_shards = len(here)
    verdict.wrong += [f"{name} is missing" for name in sorted(there.keys() - here.keys())]
    verdict.wrong += [f"{name} is too many" for name in sorted(here.keys() - there.keys())]
    verdict.wrong += [f"{n} has other bytes" for n in sorted(here.keys() & there.keys()) if here[n] != there[n]]
    _rows(verdict, out, undisturbed)
    return verdict


def _rows(verdict: Verdict, out: str, undisturbed: str) -> None:
    kept, rejected = _ids(out, KEPT), _ids(out, REJECTED)
    was_kept, was_rejected = _ids(undisturbed, KEPT), _ids(undisturbed, REJECTED)
    verdict.num_kept, verdict.num_rows = len(kept), len(kept) + len(rejected)
    times = Counter(row_id for row_id, _, _ in kept + rejected)
    verdict.duplicated = sorted({(lot, row) for row_id, lot, row in kept + rejected if times[row_id] > 1})
    ids = {row_id for row_id, _, _ in kept}
    verdict.lost = sorted((lot, row) for row_id, lot, row in was_kept if row_id not in ids)
    if verdict.lost:
        verdict.wrong.append(f"{len(verdict.lost)} kept rows are lost; the first is row {verdict.lost[0]}")
    if verdict.duplicated:
        verdict.wrong.append(f"{len(verdict.duplicated)} rows are there twice; the first is {verdict.duplicated[0]}")
    if verdict.num_rows != len(was_kept) + len(was_rejected):
        verdict.wrong.append(f"{verdict.num_rows} rows, undisturbed {len(was_kept) + len(was_rejected)}")
    _totals(verdict, out, len(kept), len(rejected))


def _totals(verdict: Verdict, out: str, num_kept: int, num_rejected: int) -> None:
    book = manifest.load(open_store(out))
    if book is None or book.state != "complete":
        verdict.wrong.append(f"the manifest says {book.state if book else 'nothing'}, not complete")
    elif (book.totals.asks, book.totals.kept, book.totals.num_rejected) != (
        num_kept + num_rejected,
        num_kept,
        num_rejected,
    ):
        verdict.wrong.append(f"the manifest's totals are not the rows: {json.dumps(book.totals.literals())}")


def _ids(uri: str, folder: str) -> list[tuple[str, int, int]]:
    """(id, lot, row) of all rows of one kind, read without the code that wrote them."""
    store = open_store(uri)
    rows: list[tuple[str, int, int]] = []
    for entry in store.list(f"{folder}/"):
        table = read_parquet(pa.BufferReader(store.read(entry.name)), ["id", "lot", "row"])
        rows += zip(*(table.column(name).to_pylist() for name in ("id", "lot", "row")))
    return rows
