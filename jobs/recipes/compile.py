"""A recipe: hand-written TOML to frozen specs, and to the fingerprint that is the identity of what it makes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gristmill.cluster.spec import ClusterSpec, Limits, PoolSpec
from gristmill.engines.needs import Needs
from gristmill.generators.contract import Generator
from gristmill.generators.registry import generator_class
from gristmill.generators.text.contract import Method
from gristmill.generators.text.registry import method_class
from gristmill.jobs.recipes.checks import check_label, check_reads, check_room, check_source
from gristmill.jobs.recipes.toml_file import load_table, parted
from gristmill.jobs.report.gate_audit import GateAuditSpec
from gristmill.records.errors import UserError
from gristmill.records.ids import fingerprint
from gristmill.records.lots import Asked, Plan
from gristmill.records.manifest import FORMAT
from gristmill.records.readers.sources import Source, SourceSpec, open_source
from gristmill.records.rounds import RoundSource, RoundsSpec, check_rounds
from gristmill.records.schema import full_schema
from gristmill.records.shards import OutputSpec, Summary
from gristmill.records.spec import build, literals, nearest
from gristmill.records.stores.contract import Store
from gristmill.stages.admission.contract import Admission, is_full
from gristmill.stages.contract import Stage
from gristmill.stages.dedup.contract import Duplicates
from gristmill.stages.registry import stage_class

SECRETS = ("hf_token", "token", "api_key", "password")
PLACES = ("path", "file")  # keys that say where something lies; its content bears identity, by digest


@dataclass(frozen=True)
class Recipe:
    """The file as written, checked key by key; tables with a `kind` are checked by the class that they name."""

    name: str
    generator: dict[str, Any]
    # By default empty asks without end, for generators that need nothing to start from.
    source: SourceSpec = field(default_factory=lambda: SourceSpec(items=({},), cycle=True))
    description: str = ""
    seed: int = 0
    lot_size: int = 256
    method: dict[str, Any] | None = None  # of a text generator; default: prompt
    rounds: RoundsSpec | None = None  # of a method that feeds on kept rows
    stages: tuple[dict[str, Any], ...] = ()
    limits: Limits = field(default_factory=Limits)
    output: OutputSpec = field(default_factory=OutputSpec)
    gate_audit: GateAuditSpec | None = None  # rows of known label, for the report
    cluster: ClusterSpec = field(default_factory=ClusterSpec)

    def __post_init__(self) -> None:
        if not 1 <= self.lot_size <= 1_000_000:
            raise ValueError("lot_size must lie in 1..1000000")
        if self.source.cycle and self.limits == Limits():
            raise ValueError(
                "source.cycle goes on for ever: give [limits] asks, kept_rows, kept_tokens, tokens or cost"
            )
        if self.limits.cost is not None and self.cluster.price_per_device_hour is None:
            raise ValueError("limits.cost needs cluster.price_per_device_hour")


@dataclass
class CompiledRecipe:
    """A recipe made whole: its parts built (nothing opened) and its identity known."""

    recipe: Recipe
    source: Source
    generator: Generator
    method: Method | None
    stages: list[Stage]
    identity: dict[str, Any]
    fingerprint: str
    plan: Plan
    schema: pa.Schema

    @property
    def pooled(self) -> frozenset[str]:
        """Names of the stages that live in pools: those with an engine, and those that `[cluster.pools]` names."""
        return frozenset(s.name for s in self.stages if s.needs or s.name in self.recipe.cluster.pools)

    def asked(self, store: Store) -> Asked:
        """What the asks of a run into `store` are made from."""
        rounds, method, plan = self.recipe.rounds, self.method, self.plan
        if rounds is None or method is None:
            return self.source
        columns = dict.fromkeys([*method.fed, *plan.carry])
        return RoundSource(
            self.source, store, rounds, method.feed, list(columns), self.fingerprint, self.recipe.lot_size
        )

    def is_full(self, totals: Summary) -> bool:
        """Whether quotas are full, so that no further row can be kept."""
        return is_full(self.stages, totals.admitted)

    @property
    def pools(self) -> dict[str, tuple[Needs, PoolSpec]]:
        """What each pool's replicas take and how many there are, by name."""
        spec = self.recipe.cluster
        pools = {s.name: (s.needs or Needs(), spec.pool(s.name)) for s in self.stages if s.name in self.pooled}
        if self.generator.needs.pooled:
            pools["generator"] = (self.generator.needs, spec.generator_pool)
        return pools

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default filled in, as literals."""
        return _masked(self._resolved())

    def _resolved(self) -> dict[str, Any]:
        return {
            **literals(self.recipe),
            "generator": {"kind": self.generator.kind, **literals(self.generator.spec)},
            "method": _method_literals(self.method),
            "stages": [{"kind": s.kind, "name": s.name, **literals(s.spec)} for s in self.stages],
        }

    def check(self) -> None:
        """Preflight of everything that needs no cluster: models, files, packages. Raises UserError."""
        self.generator.check()
        for stage in self.stages:
            stage.check()


def load(path: str, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply `--set a.b=c` settings. Raises UserError, naming file and key."""
    return build(Recipe, load_table(path, settings), path)


def _masked(value: Any, key: str = "") -> Any:
    """Literals without secrets: a manifest is meant to be published."""
    if isinstance(value, dict):
        return {k: "***" if key == "env" else _masked(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_masked(v) for v in value]
    return "***" if value and key in SECRETS else value


def _placeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _placeless(v) for k, v in value.items() if k not in PLACES}
    return [_placeless(v) for v in value] if isinstance(value, list) else value


def _method_literals(method: Method | None) -> dict[str, Any] | None:
    return {"kind": method.kind, **literals(method.spec)} if method else None


def build_generator(recipe: Recipe) -> tuple[Generator, Method | None]:
    """The generator and, in a text generator, its method. Raises UserError for unknown kinds and keys."""
    kind, table = parted(recipe.generator, "generator")
    generator_type: Any = generator_class(kind)
    spec = build(generator_type.Spec, table, "generator")
    if not generator_type.takes_method:
        if recipe.method is not None:
            raise UserError(f"[method] is for text generators; generator '{kind}' takes none")
        return generator_type(spec), None
    kind, table = parted(recipe.method or {"kind": "prompt"}, "method")
    method_type = method_class(kind)
    method = method_type(build(method_type.Spec, table, "method"))
    return generator_type(spec, method), method


def build_stages(recipe: Recipe) -> list[Stage]:
    """The stages in the recipe's order. Raises UserError for unknown kinds and keys."""
    stages: list[Stage] = []
    for number, table in enumerate(recipe.stages):
        kind, rest = parted(table, f"stages[{number}]")
        stage_type = stage_class(kind)
        name = rest.pop("name", None)
        if name is not None and (not isinstance(name, str) or not name or ":" in name):
            raise UserError(f"stages[{number}]: name must be a word without a colon, not {name!r}")
        stages.append(stage_type(build(stage_type.Spec, rest, f"stages[{number}] ({kind})"), name))
    names = [s.name for s in stages]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two stages are called '{name}'; give one of them another name = \"...\"")
    if sum(isinstance(s, Duplicates) for s in stages) > 1:
        raise UserError("a recipe takes one dedup stage")
    at_commit = [isinstance(s, Admission) for s in stages if isinstance(s, Admission | Duplicates)]
    if at_commit != sorted(at_commit):
        raise UserError("stages: dedup comes before balance and novelty, which admit what is no duplicate")
    for name in recipe.cluster.pools:
        if name not in names:
            raise UserError(f"cluster.pools.{name}: no stage is called so{nearest(name, names)}")
        if isinstance(stages[names.index(name)], Duplicates):
            raise UserError(f"cluster.pools.{name}: {name} has no engine; its index is spread by cluster.index_actors")
        if isinstance(stages[names.index(name)], Admission):
            raise UserError(f"cluster.pools.{name}: {name} has no engine; its verdicts come when lots commit")
    return stages


def compile_recipe(recipe: Recipe) -> CompiledRecipe:
    """Everything that a run needs to know before it starts. Reads sources and digests; starts nothing.

    Raises UserError for a recipe whose parts do not fit together.
    """
    generator, method = build_generator(recipe)
    stages = build_stages(recipe)
    source = open_source(recipe.source)
    check_source(source, recipe.source, generator)
    if recipe.rounds:
        if method is None or not method.feed:
            what = f"method '{method.kind}'" if method else f"generator '{generator.kind}'"
            raise UserError(
                f"[rounds] is for methods that feed on kept rows (self_instruct, evol_instruct), not {what}"
            )
        check_rounds(recipe.rounds, source, recipe.source.samples, recipe.source.cycle)
        lost = set(method.fields_read()) - {*method.fed, *recipe.source.carry} if method.feed == "row" else set()
        if lost:
            raise UserError(
                f"method '{method.kind}' reads the source column '{min(lost)}', which the rows of later rounds have "
                f"only if source.carry names it"
            )
    carried = [pa.field(name, pa.string()) for name in recipe.source.carry]
    payload = [*carried, *generator.payload]
    try:
        schema = full_schema(payload, [c for s in stages for c in s.columns()])
    except ValueError as error:
        raise UserError(f"{error}; rename it in source.carry, or give the stage another name") from None
    check_reads(schema, payload, stages)
    check_room(recipe.limits, stages)
    if recipe.gate_audit:
        check_label(schema, recipe.gate_audit.column)
    judged = [{"kind": s.kind, "name": s.name, **_placeless(literals(s.spec, True)), **s.identity()} for s in stages]
    identity = {
        "seed": recipe.seed,
        "lot_size": recipe.lot_size,
        "source": {
            "content": source.digest(),
            **{k: v for k, v in literals(recipe.source).items() if k in ("id_column", "carry", "sample_by")},
        },
        "format": FORMAT,
        "generator": {"kind": generator.kind, **generator.identity()},
        "method": _placeless(_method_literals(method)),
        "stages": judged,
        "output": literals(recipe.output),
        **({"rounds": literals(recipe.rounds)} if recipe.rounds else {}),
    }
    mark = fingerprint(identity)
    num_asks = None if recipe.source.cycle else source.num_rows * recipe.source.samples
    if rounds := recipe.rounds:
        num_asks = rounds.num * rounds.lots * recipe.lot_size
    if recipe.limits.asks is not None:
        num_asks = recipe.limits.asks if num_asks is None else min(num_asks, recipe.limits.asks)
    plan = Plan(
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
    )
    for stage in stages:
        stage.bind(source, mark, plan.generation, plan.lot_size)
    return CompiledRecipe(recipe, source, generator, method, stages, identity, mark, plan, schema)
