"""A previewed row as literals: what it was made from, what it holds, and what each stage said."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from gristmill.generators.contract import fields_of
from gristmill.generators.text.contract import TURNS
from gristmill.jobs.recipes.compile import CompiledRecipe
from gristmill.records.schema import ASK, IDENTITY, INNER_COLUMNS, PROVENANCE, REJECT
from gristmill.stages.admission.contract import Admission
from gristmill.stages.contract import Stage
from gristmill.stages.dedup.contract import DUPLICATE_OF, Duplicates

PASS, REJECTED, NOT_RUN = "pass", "reject", "not run"
RUN_COLUMNS = frozenset(f.name for f in [*IDENTITY, *PROVENANCE, REJECT])
HIDDEN = INNER_COLUMNS - {DUPLICATE_OF.name}  # signatures, which nobody can read


def row_literals(compiled: CompiledRecipe, batch: pa.RecordBatch, asks: pa.RecordBatch) -> list[dict[str, Any]]:
    """Each row of `batch`, for JSON; `asks` are the asks that it was made from.

    Keys: id, source_id, source (columns of the source row), finish, tokens_in, tokens_out, columns (of the payload),
    turns (calls of the model; only of methods of several), stages (in the order in which they decide: name, verdict
    "pass", "reject" or "not run", reason, findings) and reject (None for a kept row).
    """
    stages = in_order(compiled.stages)
    added = {column.name for stage in stages for column in stage.columns()}
    payload = [n for n in batch.schema.names if n not in RUN_COLUMNS | added | {TURNS.name}]
    rows = []
    for row, ask in zip(batch.to_pylist(), asks.column(ASK.name).to_pylist()):
        literals = {name: row[name] for name in ("id", "source_id", "finish", "tokens_in", "tokens_out")}
        literals["source"] = fields_of(ask) or {}
        literals["columns"] = {name: plain(row[name]) for name in payload}
        if TURNS.name in row:
            literals["turns"] = plain(row[TURNS.name])
        literals["stages"] = stage_verdicts(row, stages)
        literals["reject"] = row[REJECT.name]
        rows.append(literals)
    return rows


def in_order(stages: Sequence[Stage]) -> list[Stage]:
    """Dedup and admission decide when a lot commits, after all other stages."""
    return sorted(stages, key=lambda stage: isinstance(stage, Duplicates) + 2 * isinstance(stage, Admission))


def stage_verdicts(row: Mapping[str, Any], stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """What the generator and each of `stages` said of a row. No stage judges a row that was rejected before it."""
    name, _, reason = (row[REJECT.name] or "").partition(":")
    verdicts: list[dict[str, Any]] = []
    is_alive = True
    for stage in [None, *stages]:
        stage_name = stage.name if stage else "generator"
        is_rejected = is_alive and stage_name == name
        verdict = REJECTED if is_rejected else PASS if is_alive else NOT_RUN
        columns = [c.name for c in stage.columns() if c.name not in HIDDEN] if stage and is_alive else []
        findings = {n: plain(row[n]) for n in columns if row[n] is not None}
        entry = {"stage": stage_name, "verdict": verdict, "reason": reason if is_rejected else None}
        verdicts.append({**entry, "findings": findings})
        is_alive = is_alive and not is_rejected
    return verdicts


def plain(value: Any) -> Any:
    """A value for JSON; of bytes their number."""
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
