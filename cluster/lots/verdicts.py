"""Asks the admission stages about rows, and marks the rows of a lot with the verdicts of its claim."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.records.ids import row_id
from gristmill.records.lots import Plan
from gristmill.records.schema import REJECT, set_column
from gristmill.stages.admission.contract import Admission, AdmissionBook, AdmissionVerdict, LotVerdicts
from gristmill.stages.dedup.bandindex import NOBODY, UNKNOWN
from gristmill.stages.dedup.contract import DUPLICATE, PROBABLE, Duplicates

Admitted = list[tuple[int, Any, int]]  # admitted rows in order: (number of the book, offer, ask number)


def admitter(
    stages: Sequence[tuple[Admission, AdmissionBook, Sequence[Any]]], first_ask: int, admitted: Admitted
) -> tuple[Callable[[int], bool], list[str | None], dict[str, list[Any]]]:
    """A function that asks every admission stage about a row, by ask number, and the reasons and evidence it notes.

    stages: each with its book and its offers for the rows from `first_ask` on. `admitted` gets the admitted rows.
    """
    num_rows = len(stages[0][2]) if stages else 0
    refused: list[str | None] = [None] * num_rows
    evidence: dict[str, list[Any]] = {f.name: [None] * num_rows for stage, _, _ in stages for f in stage.columns()}

    def admit(ask: int) -> bool:
        row = ask - first_ask
        for stage, book, offers in stages:
            verdict: AdmissionVerdict = book.judge(offers[row], ask)
            for name, value in verdict.evidence.items():
                evidence[name][row] = value
            if verdict.reason is not None:
                refused[row] = f"{stage.name}:{verdict.reason}"
                return False
        for number, (_, book, offers) in enumerate(stages):
            book.admit(offers[row], ask)
            admitted.append((number, offers[row], ask))
        return True

    return admit, refused, evidence


def mark_verdicts(plan: Plan, dedup: Duplicates | None, batch: pa.RecordBatch, verdicts: LotVerdicts) -> pa.RecordBatch:
    """`batch` with `reject`, `duplicate_of` and the evidence of admission as the verdicts say."""
    return _mark_refused(_mark_duplicates(plan, dedup, batch, verdicts.owners), verdicts)


def _mark_duplicates(plan: Plan, dedup: Duplicates | None, batch: pa.RecordBatch, owners: np.ndarray) -> pa.RecordBatch:
    """`owners[i]` is the ask number of the kept row, UNKNOWN if the index cannot name it, NOBODY for none."""
    if dedup is not None and (owners != NOBODY).any():
        reject = batch.column(REJECT.name).to_pylist()
        kept = batch.column("duplicate_of").to_pylist()
        for row in np.flatnonzero(owners != NOBODY).tolist():
            reject[row] = f"{dedup.name}:{PROBABLE if owners[row] == UNKNOWN else DUPLICATE}"
            if owners[row] != UNKNOWN:
                kept[row] = row_id(plan.fingerprint, plan.generation, *divmod(int(owners[row]), plan.lot_size))
        batch = set_column(batch, batch.schema.field("duplicate_of"), pa.array(kept, pa.string()))
        batch = set_column(batch, REJECT, pa.array(reject, pa.string()))
    return batch


def _mark_refused(batch: pa.RecordBatch, verdicts: LotVerdicts) -> pa.RecordBatch:
    """Add the evidence and the reasons of the admission stages."""
    for name, values in verdicts.evidence.items():
        field = batch.schema.field(name)
        batch = set_column(batch, field, pa.array(values, field.type))
    if any(verdicts.reasons):
        reject = [new or old for new, old in zip(verdicts.reasons, batch.column(REJECT.name).to_pylist())]
        batch = set_column(batch, REJECT, pa.array(reject, pa.string()))
    return batch
