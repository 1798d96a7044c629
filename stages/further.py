"""Stages that search further columns beside their own: what they find there rejects a row too."""

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.schema import REASONING, has_reasoning
from gristmill.stages.contract import Findings


def further_columns(also: Sequence[str] | None, column: str, names: Sequence[str]) -> list[str]:
    """The further columns of a stage that reads `column`: those of its key `also`, by default the model's reasoning."""
    if also is None:
        also = [REASONING.name] if has_reasoning(names) else []
    return [name for name in also if name != column]


def with_further(
    rows: pa.RecordBatch, findings: Findings, columns: Sequence[str], find: Callable[[str], Findings]
) -> Findings:
    """`findings`, and for rows that only a further column rejects the findings of that column, with its reason.

    The reason is then "REASON_in_COLUMN", and places are in characters of that column.
    """
    for name in columns:
        further = find(name)
        assert findings.reasons is not None and further.reasons is not None
        is_taken = pc.and_(pc.is_null(findings.reasons), pc.is_valid(further.reasons))
        if not pc.any(is_taken).as_py():
            continue
        named = pc.binary_join_element_wise(further.reasons.cast(pa.string()), pa.scalar(name), "_in_")
        findings = Findings(
            {n: pc.if_else(is_taken, further.columns[n], array) for n, array in findings.columns.items()},
            pc.if_else(is_taken, named, findings.reasons.cast(pa.string())),
        )
    return findings
