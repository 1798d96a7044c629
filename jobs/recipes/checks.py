"""Checks that the parts of a recipe fit together, before anything starts. Each raises UserError in one line."""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from gristmill.cluster.spec import ClusterSpec, Limits
from gristmill.generators.contract import Generator
from gristmill.generators.several import Several
from gristmill.generators.text.contract import Method
from gristmill.jobs.recipes.recipe import Recipe
from gristmill.records.errors import UserError
from gristmill.records.mixing.regimes import REAL
from gristmill.records.output.templates import COLUMN
from gristmill.records.pairs import OTHER, OTHER_ID
from gristmill.records.readers.sources import Source, SourceSpec
from gristmill.records.rounds import check_rounds
from gristmill.records.schema import LIMIT, SURPLUS
from gristmill.records.spec import nearest
from gristmill.stages.admission.balance import Balance
from gristmill.stages.admission.contract import Admission
from gristmill.stages.contract import Stage
from gristmill.stages.dedup.contract import Duplicates

NUM_PEEKED = 16  # rows of the source that are read to learn its columns


def check_source(source: Source, source_spec: SourceSpec, generator: Generator) -> None:
    """Refuse a source in which no row has the columns that the generator reads; single bad rows are rejected later."""
    if source_spec.kind is not None and generator.origin == REAL:
        raise UserError(
            f"rows of source.kind = '{source_spec.kind}' are synthetic, and generator '{generator.kind}' calls them "
            'real: set generator.origin = "synthetic"'
        )
    columns: set[str] = set()
    wanted = []
    for part in generator.parts:
        reader = f"method '{part.method}'" if part.method else f"generator '{part.kind}'"
        wanted += [(name, f"{reader} reads") for name in part.fields_read()]
    if isinstance(generator, Several) and generator.division.column:
        wanted.append((generator.division.column, "division.column names"))
    wanted += [(name, "source.carry names") for name in source_spec.carry]
    wanted += [(source_spec.id_column, "source.id_column names")] if source_spec.id_column else []
    if source.columns is not None:
        columns |= source.columns
    else:
        columns |= _peeked(source)
    if wanted and not columns:
        raise UserError(f"none of the first rows of the source is a JSON object with columns ({source.parts[0].name})")
    for name, reason in wanted:
        if name not in columns:
            raise UserError(f"{reason} the source column '{name}', which is not there{nearest(name, columns)}")


def _peeked(source: Source) -> set[str]:
    """The columns of the first rows."""
    columns: set[str] = set()
    for _, text in source.rows(0, min(source.num_rows, NUM_PEEKED)):
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            continue
        columns |= set(row) if isinstance(row, dict) else set()
    return columns


def check_rounds_method(recipe: Recipe, source: Source, generator: Generator, method: Method | None) -> None:
    """Refuse rounds of a method that does not feed on kept rows, or whose later rounds would lack a column."""
    if recipe.rounds is None:
        return
    if method is None or not method.feed:
        what = f"method '{method.kind}'" if method else f"generator '{generator.kind}'"
        raise UserError(f"[rounds] is for methods that feed on kept rows (self_instruct, evol_instruct), not {what}")
    check_rounds(recipe.rounds, source, recipe.source.samples, recipe.source.cycle)
    lost = (
        set(method.fields_read()) - {*method.feedback_columns, *recipe.source.carry} if method.feed == "row" else set()
    )
    if lost:
        raise UserError(
            f"method '{method.kind}' reads the source column '{min(lost)}', which the rows of later rounds have "
            f"only if source.carry names it"
        )


def check_pairs(recipe: Recipe, source: Source, method: Method | None) -> None:
    """Refuse [pairs] without a method that reads two documents, such a method without it, and columns not there."""
    pairs = recipe.pairs
    if pairs is None:
        if method is not None and method.reads_pairs:
            raise UserError(f"method '{method.kind}' reads two documents: add [pairs], or name their column")
        return
    if method is None or not method.reads_pairs:
        raise UserError("[pairs] is for methods that read two documents (cross_document without the key other)")
    if recipe.rounds is not None or not source.is_ended:
        raise UserError("[pairs] needs all rows of the source at the start: not with [rounds], nor in a flow's stream")
    columns = source.columns if source.columns is not None else _peeked(source)
    if pairs.column not in columns:
        key = "text" if pairs.link is None else "link"
        hint = nearest(pairs.column, columns)
        raise UserError(f"pairs.{key} names the source column '{pairs.column}', which is not there{hint}")
    for name in {*recipe.source.carry, *method.fields_read()} & {OTHER, OTHER_ID}:
        raise UserError(
            f"[pairs] shows the partner of a row as '{name}', which the recipe reads as a column of the source: read "
            f'that under another name with source.columns = {{ source_{name} = "{name}" }}'
        )


def check_stages(stages: Sequence[Stage]) -> None:
    """Refuse two stages of a name, two dedup stages, and dedup after a stage that admits rows."""
    names = [s.name for s in stages]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two stages are called '{name}'; give one of them another name = \"...\"")
    if sum(isinstance(s, Duplicates) for s in stages) > 1:
        raise UserError("a recipe takes one dedup stage")
    at_commit = [isinstance(s, Admission) for s in stages if isinstance(s, Admission | Duplicates)]
    if at_commit != sorted(at_commit):
        raise UserError("stages: dedup comes before balance and novelty, which admit rows that are no duplicates")


def check_pools(cluster: ClusterSpec, stages: Sequence[Stage], generator: Generator) -> None:
    """Refuse a pool for a stage or generator that is not there, or whose verdicts come when lots commit."""
    by_name = {s.name: s for s in stages}
    generators = {part.name: part for part in generator.shares} if isinstance(generator, Several) else {}
    for name in cluster.pools:
        if name in generators:
            if not generators[name].needs.pooled:
                raise UserError(f"cluster.pools.{name}: generator '{name}' has no engine; it runs in CPU workers")
            continue
        if name not in by_name:
            raise UserError(f"cluster.pools.{name}: no stage has this name{nearest(name, [*by_name, *generators])}")
        if isinstance(by_name[name], Duplicates) and by_name[name].needs is None:
            raise UserError(f"cluster.pools.{name}: {name} has no engine; cluster.index_actors spreads its index")
        if by_name[name].compares_rows:
            raise UserError(f"cluster.pools.{name}: {name} has no engine; it compares rows of a lot on CPU workers")
        if isinstance(by_name[name], Admission):
            raise UserError(f"cluster.pools.{name}: {name} has no engine; its verdicts come when lots commit")


def check_reads(schema: pa.Schema, payload: Sequence[pa.Field], stages: Sequence[Stage]) -> None:
    """Refuse a stage that reads a column which is not there, or is added later, or has another type."""
    later = {c.name for s in stages for c in s.columns()}
    columns = {n for n in schema.names if n not in later}
    for stage in stages:
        for name in stage.reads():
            if name not in columns:
                raise UserError(
                    f"stage '{stage.name}' reads column '{name}', which is not there; "
                    f"the payload is {', '.join(f.name for f in payload)}"
                )
            if (why := stage.refuses(schema.field(name))) is not None:
                raise UserError(f"stage '{stage.name}' reads column '{name}', which {why}")
        columns |= {c.name for c in stage.columns()}


def check_label(schema: pa.Schema, column: str) -> None:
    """Refuse a gate audit by a column that is not there or cannot hold a label."""
    if column not in schema.names:
        raise UserError(
            f"gate_audit.column: rows have no column '{column}'{nearest(column, schema.names)}; "
            f"source.carry copies columns of the source into the rows"
        )
    if pa.types.is_nested(schema.field(column).type) or pa.types.is_binary(schema.field(column).type):
        raise UserError(f"gate_audit.column: '{column}' is {schema.field(column).type}, which is no label")


def check_alarm(limits: Limits, schema: pa.Schema) -> None:
    """Refuse an alarm for texts that are alike where rows have no texts."""
    if limits.template_share is None or (COLUMN in schema.names and pa.types.is_string(schema.field(COLUMN).type)):
        return
    raise UserError(f"limits.template_share compares the texts in column '{COLUMN}', which the rows lack: leave it out")


def has_price(part: Generator | Stage) -> bool:
    """Whether the calls of a part have a price."""
    prices = service_of(part)
    return part.is_paid and any(getattr(prices, name, None) for name in ("price_in", "price_cached", "price_out"))


def service_of(part: Generator | Stage) -> Any:
    """The keys of a part's model and of its prices: for a judge, those of its endpoint."""
    return getattr(part, "service", part.spec)


def check_cost(recipe: Recipe, generator: Generator, stages: Sequence[Stage]) -> None:
    """Refuse a limit on the cost of a run without any price: it would never end."""
    cluster = recipe.cluster
    prices = [cluster.price_per_device_hour, *(pool.price_per_device_hour for pool in cluster.pools.values())]
    if recipe.limits.cost is None or any(price is not None for price in prices):
        return
    parts: list[Generator | Stage] = [*generator.parts, *stages]
    if not any(map(has_price, parts)):
        raise UserError(
            "limits.cost needs cluster.price_per_device_hour, or an endpoint with price_in and price_out: nothing in "
            "this recipe has a price"
        )


def check_room(limits: Limits, stages: Sequence[Stage]) -> None:
    """Refuse a limit on kept rows that the stages can never reach, and a stage that has the name of the limits."""
    for stage in stages:
        if limits.exact and stage.name == LIMIT:
            raise UserError(f"stage '{LIMIT}': limits.exact rejects rows as {SURPLUS}; give the stage another name")
        admitted = sum(stage.spec.quotas.values()) if isinstance(stage, Balance) and stage.spec.other == 0 else None
        if admitted is not None and limits.exact_rows is not None and admitted < limits.exact_rows:
            raise UserError(
                f"limits.kept_rows is exactly {limits.exact_rows:,}, but the quotas of stage '{stage.name}' admit "
                f"{admitted:,} rows; lower it to that, or raise the quotas"
            )
        most = getattr(stage.spec, "bloom_rows", None)
        if most is not None and limits.kept_rows is not None and limits.kept_rows > most:
            raise UserError(
                f"limits.kept_rows is {limits.kept_rows:,}, but stage '{stage.name}' has filters for {most:,} rows; "
                f"raise its bloom_rows to that"
            )
