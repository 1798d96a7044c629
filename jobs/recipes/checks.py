"""Whether the parts of a recipe fit together: what each reads is there, and there is room for what is wanted."""

import json
from collections.abc import Sequence

import pyarrow as pa

from gristmill.cluster.spec import Limits
from gristmill.generators.contract import Generator
from gristmill.records.errors import UserError
from gristmill.records.readers.sources import Source, SourceSpec
from gristmill.records.spec import nearest
from gristmill.stages.contract import Stage

NUM_PEEKED = 16


def check_source(source: Source, source_spec: SourceSpec, generator: Generator) -> None:
    """Refuse a source in which no row has the columns that the generator wants; single bad rows are rejected later."""
    seen: set[str] = set()
    reader = f"method '{generator.method}'" if generator.method else f"generator '{generator.kind}'"
    wanted = [(name, f"{reader} reads") for name in generator.fields_read()]
    wanted += [(name, "source.carry names") for name in source_spec.carry]
    wanted += [(source_spec.id_column, "source.id_column names")] if source_spec.id_column else []
    for _, text in source.rows(0, min(source.num_rows, NUM_PEEKED)):
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            continue
        seen |= set(row) if isinstance(row, dict) else set()
    if wanted and not seen:
        raise UserError(f"none of the first rows of the source is a JSON object with columns ({source.parts[0].name})")
    for name, who in wanted:
        if name not in seen:
            raise UserError(f"{who} the source column '{name}', which is not there{nearest(name, seen)}")


def check_reads(schema: pa.Schema, payload: Sequence[pa.Field], stages: Sequence[Stage]) -> None:
    """Refuse a stage that reads a column which is not there, or not yet, or of another type."""
    later = {c.name for s in stages for c in s.columns()}
    known = {n for n in schema.names if n not in later}
    for stage in stages:
        for name in stage.reads():
            if name not in known:
                raise UserError(
                    f"stage '{stage.name}' reads column '{name}', which is not there; "
                    f"the payload is {', '.join(f.name for f in payload)}"
                )
            if (why := stage.refuses(schema.field(name))) is not None:
                raise UserError(f"stage '{stage.name}' reads column '{name}', which {why}")
        known |= {c.name for c in stage.columns()}


def check_label(schema: pa.Schema, column: str) -> None:
    if column not in schema.names:
        raise UserError(
            f"gate_audit.column: rows have no column '{column}'{nearest(column, schema.names)}; source.carry brings "
            f"columns of the source along"
        )
    if pa.types.is_nested(schema.field(column).type) or pa.types.is_binary(schema.field(column).type):
        raise UserError(f"gate_audit.column: '{column}' is {schema.field(column).type}, which is no label")


def check_room(limits: Limits, stages: Sequence[Stage]) -> None:
    """Refuse a limit that Bloom filters are not made for; such a run would end before it."""
    for stage in stages:
        most = getattr(stage.spec, "bloom_rows", None)
        if most is not None and limits.kept_rows is not None and limits.kept_rows > most:
            raise UserError(
                f"limits.kept_rows is {limits.kept_rows:,}, but stage '{stage.name}' has filters for {most:,} rows; "
                f"raise its bloom_rows to that"
            )
