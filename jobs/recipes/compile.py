"""From a recipe to a compiled recipe: parts are built and checked, nothing is opened or started."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gristmill.cluster.spec import PoolSpec
from gristmill.engines.needs import Needs
from gristmill.generators.contract import Generator
from gristmill.generators.several import Several
from gristmill.generators.text.contract import Method
from gristmill.jobs.recipes import checks
from gristmill.jobs.recipes.generators import build_generator
from gristmill.jobs.recipes.identity import identity_literals, resolved_literals
from gristmill.jobs.recipes.recipe import Recipe
from gristmill.jobs.recipes.toml_file import parted
from gristmill.records.errors import UserError
from gristmill.records.ids import fingerprint
from gristmill.records.lots import AskSource, Plan
from gristmill.records.masking.masks import covered, masked
from gristmill.records.output.shards import Summary
from gristmill.records.pairs import PairSource
from gristmill.records.pins import Pins, active
from gristmill.records.plugins import source_identity
from gristmill.records.readers.sources import Source, open_source
from gristmill.records.rounds import RoundSource
from gristmill.records.schema import full_schema
from gristmill.records.spec import build
from gristmill.records.stores.contract import Store
from gristmill.stages.admission.contract import is_full
from gristmill.stages.contract import RunContext, Stage
from gristmill.stages.registry import stage_class

ROUND_COLUMNS = ("examples", "depth")  # that methods take from a row where it has them


@dataclass
class CompiledRecipe:
    """A recipe with its parts built (nothing opened), its schema, its plan and its identity."""

    recipe: Recipe
    source: Source
    generator: Generator
    method: Method | None
    stages: list[Stage]
    schema: pa.Schema  # of a committed row
    identity: dict[str, Any]  # the literals under the fingerprint, with secrets masked
    plan: Plan
    old_fingerprint: str  # as it was when secrets were part of it; the same for a recipe without secrets
    pins: Pins  # the inputs, as they were when the recipe was compiled

    @property
    def fingerprint(self) -> str:
        return self.plan.fingerprint

    @property
    def pooled(self) -> frozenset[str]:
        """Names of the stages that live in pools: those with an engine, and those that `[cluster.pools]` names."""
        return frozenset(s.name for s in self.stages if s.needs or s.name in self.recipe.cluster.pools)

    @property
    def pools(self) -> dict[str, tuple[Needs, PoolSpec]]:
        """What a replica of each pool needs and how many there are, by the pool's name."""
        spec = self.recipe.cluster
        pools = {s.name: (s.needs or Needs(), spec.pool(s.name)) for s in self.stages if s.name in self.pooled}
        return pools | {name: (g.needs, spec.generator_pool(name)) for name, g in self.generator.pooled.items()}

    @property
    def is_repeatable(self) -> bool:
        """Whether fingerprint and limits decide the rows: no engine depends on its batch, no limit on time."""
        parts: list[Generator | Stage] = [self.generator, *self.stages]
        return not self.recipe.limits.budgets and all(part.is_repeatable for part in parts)

    @property
    def paid_parts(self) -> list[Generator | Stage]:
        """The parts whose engines are paid by the call."""
        parts: list[Generator | Stage] = [*self.generator.parts, *self.stages]
        return [part for part in parts if part.is_paid]

    @property
    def remote_pools(self) -> list[str]:
        """Names of the pools whose engines are endpoints."""
        return sorted(name for name, (needs, _) in self.pools.items() if needs.is_remote)

    @property
    def engine_widths(self) -> dict[str, int]:
        """The largest number of engines in its pools, by key: see Needs.key."""
        parts: dict[str, Generator | Stage] = {**{s.name: s for s in self.stages}, **self.generator.pooled}
        widths: Counter[str] = Counter()
        for name, (needs, spec) in self.pools.items():
            if (key := needs.key(parts[name].engine_key)) is not None:
                widths[key] += spec.max_replicas or spec.replicas
        return dict(widths)

    def ask_source(self, store: Store) -> AskSource:
        """Where the asks of a run into `store` come from: the source, its pairs, or in rounds the rows kept."""
        rounds, method, plan = self.recipe.rounds, self.method, self.plan
        if self.recipe.pairs is not None:
            return PairSource(self.source, self.recipe.pairs)
        if rounds is None or method is None:
            return self.source
        columns = dict.fromkeys([*method.feedback_columns, *plan.carry])
        return RoundSource(self.source, store, rounds, method.feed, list(columns), plan.fingerprint, plan.lot_size)

    def is_full(self, totals: Summary) -> bool:
        """Whether quotas are full, so that no further row can be kept."""
        return is_full(self.stages, totals.admitted)

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default filled in, as literals without secrets."""
        return resolved_literals(self.recipe, self.generator, self.method, self.stages)

    def check(self) -> None:
        """Check everything that needs no cluster: models, files, packages. Raises UserError."""
        with active(self.pins):
            self.generator.check()
            for stage in self.stages:
                stage.check()


def compile_recipe(recipe: Recipe, is_old: bool = False, source: Source | None = None) -> CompiledRecipe:
    """Build the parts of a recipe and check that they fit together. Reads sources and digests; starts nothing.

    source: takes the place of the source that the recipe names. With `is_old`, secrets are part of the fingerprint, as
    it is in outputs made before they were left out. Raises UserError for a recipe whose parts do not fit.
    """
    pins = Pins()
    with active(pins):
        return _compile(recipe, pins, is_old, source)


def _compile(recipe: Recipe, pins: Pins, is_old: bool, source: Source | None) -> CompiledRecipe:
    generator, method = build_generator(recipe)
    stages = build_stages(recipe)
    checks.check_pools(recipe.cluster, stages, generator)
    source = source or open_source(recipe.source, recipe.seed)
    checks.check_source(source, recipe.source, generator)
    if (columns := _columns_read(recipe, generator, method, stages)) is not None:
        source.select(columns)
    checks.check_rounds_method(recipe, source, generator, method)
    checks.check_pairs(recipe, source, method)
    checks.check_cost(recipe, generator, stages)
    schema = _schema(recipe, generator, stages)
    literals = identity_literals(recipe, source, generator, method, stages)
    old_fingerprint = fingerprint(literals)
    plan = _plan(recipe, source, generator, old_fingerprint if is_old else fingerprint(covered(literals)))
    run = RunContext(source, plan.fingerprint, plan.generation, plan.lot_size)
    for stage in stages:
        stage.bind(run)
    parts: list[Generator | Stage] = [generator, *generator.pooled.values(), *stages]
    for part in parts:
        part.pins = pins
    shown = masked(literals)
    return CompiledRecipe(recipe, source, generator, method, stages, schema, shown, plan, old_fingerprint, pins)


def _columns_read(recipe: Recipe, generator: Generator, method: Method | None, stages: list[Stage]) -> set[str] | None:
    """The columns of the source that the run reads; None with a plug-in, which may read any."""
    parts = [*generator.parts, *stages, *([method] if method else [])]
    if any(source_identity(part) for part in parts):
        return None
    columns = {*generator.fields_read(), *recipe.source.carry, *(method.feedback_columns if method else ())}
    if recipe.pairs is not None:
        columns.add(recipe.pairs.column)
    return columns.union(ROUND_COLUMNS, *(stage.reads() for stage in stages if stage.reads_source))


def build_stages(recipe: Recipe) -> list[Stage]:
    """The stages in the recipe's order. Raises UserError for unknown kinds and keys, and for a wrong order."""
    stages: list[Stage] = []
    for number, table in enumerate(recipe.stages):
        kind, rest = parted(table, f"stages[{number}]")
        stage_type = stage_class(kind)
        name = rest.pop("name", None)
        if name is not None and (not isinstance(name, str) or not name or ":" in name):
            raise UserError(f"stages[{number}]: name must be a word without a colon, not {name!r}")
        stages.append(stage_type(build(stage_type.Spec, rest, f"stages[{number}] ({kind})"), name))
    checks.check_stages(stages)
    return stages


def _schema(recipe: Recipe, generator: Generator, stages: list[Stage]) -> pa.Schema:
    """The schema of a committed row, checked against what stages, limits and gate audit read."""
    payload = [*(pa.field(name, pa.string()) for name in recipe.source.carry), *generator.payload]
    try:
        schema = full_schema(payload, [c for s in stages for c in s.columns()])
    except ValueError as error:
        carried = next((name for name in recipe.source.carry if f"'{name}'" in str(error)), None)
        if carried is None:
            raise UserError(f"{error}; give the stage another name") from None
        raise UserError(
            f"{error}: source.carry names it, and the output has such a column; read the column of the source under "
            f'another name with source.columns = {{ source_{carried} = "{carried}" }}, and carry that'
        ) from None
    checks.check_reads(schema, payload, stages)
    checks.check_room(recipe.limits, stages)
    checks.check_alarm(recipe.limits, schema)
    if recipe.gate_audit:
        checks.check_label(schema, recipe.gate_audit.column)
    return schema


def _plan(recipe: Recipe, source: Source, generator: Generator, mark: str) -> Plan:
    is_known = source.is_ended and not recipe.source.cycle and not recipe.source.is_endless
    num_asks = source.num_rows * recipe.source.samples if is_known else None
    if rounds := recipe.rounds:
        num_asks = rounds.num * rounds.lots * recipe.lot_size
    if recipe.limits.asks is not None:
        num_asks = recipe.limits.asks if num_asks is None else min(num_asks, recipe.limits.asks)
    return Plan(
        fingerprint=mark,
        lot_size=recipe.lot_size,
        num_asks=num_asks,
        num_source_rows=source.num_rows,
        generator=generator.kind,
        model=generator.model,
        method=generator.method,
        carry=recipe.source.carry,
        origin=generator.origin,
        round_lots=rounds.lots if rounds else None,
        division=generator.division if isinstance(generator, Several) else None,
    )
