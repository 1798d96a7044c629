"""The study file: a grid of cells over one family of models."""

import itertools
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from gristmill.cluster.spec import ClusterSpec, EngineUse, UnitSpec
from gristmill.generators.chains.cells import Cell
from gristmill.generators.chains.gates.gate import make_gates
from gristmill.generators.chains.loop import Fork
from gristmill.jobs.recipes.toml_file import TomlSource, label_of, load_table, parted
from gristmill.records.errors import UserError
from gristmill.records.masking.masks import masked
from gristmill.records.mixing.mixing import check
from gristmill.records.mixing.regimes import PRESETS, Regime
from gristmill.records.spec import build, literals, nearest

MAX_CELLS = 10_000
AXES = ("n", "generations", "chains", "seed")  # grid addresses beside family.*, regime.* and gates.*


@dataclass(frozen=True)
class LawSpec:
    """`[laws]`: closed forms beside the results."""

    check: bool = True  # Fails the study when an estimate is more than 4 standard errors from its exact law.
    # Measures that need a law in every cell. Without a law the study is rejected before it starts.
    statistics: tuple[str, ...] = ()
    # Relative standard error of the mean that adds chains to a cell; 0 adds none. It counts `statistics`, or without
    # them every measure with an exact law, in the last generation.
    precision: float = 0.0
    max_chains: int = 100_000  # Largest number of chains of a cell that `precision` may reach.

    def __post_init__(self) -> None:
        if not 0 <= self.precision < 1 or self.max_chains < 1:
            raise ValueError("precision must be in [0, 1) and max_chains at least 1")


@dataclass(frozen=True)
class StudySpec:
    """The whole study file. Each combination of a regime and the values of `[grid]` is a cell."""

    name: str  # Name of the study, the title of its page.
    family: dict[str, Any]  # Family of models: its `kind` and the keys of that kind.
    # Data policies by name. Each table changes keys of the preset of that name; without a preset, of plain `replace`.
    regimes: dict[str, dict[str, Any]]
    n: int  # Number of real rows that generation 1 is fitted to.
    generations: int  # Number of generations of each chain.
    chains: int = 1  # Number of independent chains of each cell.
    seed: int = 0  # Seed of all random numbers of the study.
    description: str = ""  # One sentence for the page.
    # Values by address, for example "family.bias", "regime.real_fraction", "gates.0.radius" or "n".
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    # Changes of regime inside a chain, for example { at = 5, regime = "accumulate" }: from generation 5 on.
    forks: tuple[dict[str, Any], ...] = ()
    gates: tuple[dict[str, Any], ...] = ()  # Verifiers that select the rows of each model, in this order.
    show: tuple[str, ...] = ()  # Measures that the page plots first.
    laws: LawSpec = field(default_factory=LawSpec)  # Closed forms and their tests.
    # CPU threads of a unit of work. Another number changes the last bits of sums, so it is part of the identity.
    threads: int = 1
    work: UnitSpec = field(default_factory=UnitSpec)  # Resources and retries of a unit of work.
    engines: EngineUse = field(default_factory=EngineUse)  # vLLM engines of families that need an engine.
    cluster: ClusterSpec = field(default_factory=ClusterSpec)  # The Ray cluster that does the work.

    def __post_init__(self) -> None:
        if self.n < 1 or self.generations < 1 or self.chains < 1 or self.seed < 0 or self.threads < 1:
            raise ValueError("n, generations, chains and threads must be at least 1, and seed at least 0")
        if not self.regimes:
            raise ValueError("name at least one regime, e.g. [regimes] replace = {}")


def load_study(source: TomlSource, settings: Sequence[str] = ()) -> tuple[StudySpec, list[Cell]]:
    """The study and its cells. Raises UserError for any mistake that can be detected before the study runs."""
    path = label_of(source)
    spec = build(StudySpec, load_table(source, settings), path)
    cells = list(expand(spec, path))
    for cell in cells:
        where = f"{path}: cell '{cell.name}'"
        try:
            family = cell.family()
            family.check(cell.n)
            make_gates(cell.gates, family)
            for regime in (cell.regime, *(fork.regime for fork in cell.forks)):
                _check_rows(regime, family.least_rows(), cell)
                check(regime, cell.n, cell.generations)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    names = [cell.name for cell in cells]
    if len(set(names)) < len(names):
        raise UserError(f"{path}: two cells have the same name; the grid repeats a value")
    return spec, cells


def _check_rows(regime: Regime, least: int, cell: Cell) -> None:
    for generation in range(1, cell.generations + 1):
        if regime.num_rows(generation, cell.n) < least:
            raise UserError(
                f"generation {generation} has {regime.num_rows(generation, cell.n)} rows, and family '{cell.kind}' "
                f"needs {least}"
            )


def expand(spec: StudySpec, where: str) -> list[Cell]:
    """Every combination of regimes and grid values, in the order of the file."""
    for address in spec.grid:
        is_address = address in AXES or address.partition(".")[0] in ("family", "regime") or _is_gate(address, spec)
        if not is_address:
            raise UserError(
                f"{where}: unknown grid address '{address}'"
                f"{nearest(address, [*AXES, 'family.bias', 'regime.real_fraction'])}"
            )
        if not spec.grid[address]:
            raise UserError(f"{where}: grid.{address} has no values")
    points = list(itertools.product(*spec.grid.values()))
    if len(points) * len(spec.regimes) > MAX_CELLS:
        raise UserError(
            f"{where}: {len(points) * len(spec.regimes):,} cells exceed the limit of {MAX_CELLS:,}; reduce the grid"
        )
    return [_cell(spec, name, dict(zip(spec.grid, point)), where) for name in spec.regimes for point in points]


def _is_gate(address: str, spec: StudySpec) -> bool:
    """Whether the address is a key of a gate of the study, for example "gates.0.radius"."""
    parts = address.split(".")
    return len(parts) == 3 and parts[0] == "gates" and parts[1].isdigit() and int(parts[1]) < len(spec.gates)


def _cell(spec: StudySpec, name: str, values: dict[str, Any], where: str) -> Cell:
    table: dict[str, Any] = {
        "family": deepcopy(spec.family),
        "regime": dict(spec.regimes[name]),
        "gates": [dict(gate) for gate in spec.gates],
        **{axis: getattr(spec, axis) for axis in AXES},
    }
    for address, value in values.items():
        *parents, key = address.split(".")
        target: Any = table
        for parent in parents:
            target = target[int(parent)] if isinstance(target, list) else target.setdefault(parent, {})
            if not isinstance(target, dict | list):
                raise UserError(f"{where}: grid address '{address}': '{parent}' is a value and has no keys")
        target[key] = value
    kind, rest = parted(table["family"], f"{where}: family")
    if isinstance(rest.get("schema"), dict) and "file" in rest["schema"]:
        rest["schema"] = load_table(str(rest["schema"]["file"]))
    values = {address: masked(value, address) for address, value in values.items()}  # shown, and a column of results
    label = ", ".join([name, *(f"{a.rpartition('.')[2]} = {v}" for a, v in values.items())])
    forks = tuple(_fork(spec, fork, f"{where}: forks[{i}]") for i, fork in enumerate(spec.forks))
    n, generations, chains, seed = (_whole(table[axis], f"{where}: {axis}") for axis in AXES)
    regime = make_regime(name, table["regime"], f"{where}: regimes.{name}")
    gates = tuple(table["gates"])
    cell = Cell(label, kind, rest, name, regime, n, generations, chains, seed, forks, gates, values, spec.threads)
    return replace(cell, spec=literals(cell.family().spec))


def _whole(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UserError(f"{where}: expected a whole number of 0 or more, got {value!r}")
    return value


def make_regime(name: str, table: Mapping[str, Any], where: str) -> Regime:
    """The preset of that name, or plain replace, with the keys of `table` changed."""
    base = literals(PRESETS.get(name, Regime()))
    return build(Regime, {**base, **table}, where)


def _fork(spec: StudySpec, table: Mapping[str, Any], where: str) -> Fork:
    at, name = table.get("at"), table.get("regime")
    if set(table) != {"at", "regime"} or not isinstance(at, int) or not 2 <= at <= spec.generations:
        raise UserError(f"{where}: write {{ at = 5, regime = 'accumulate' }}, with 2 <= at <= generations")
    return Fork(at, make_regime(str(name), spec.regimes.get(str(name), {}), where))
