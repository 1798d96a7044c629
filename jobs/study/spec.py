"""A study file: a grid of cells over one family, and what it is to show."""

import itertools
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from gristmill.cluster.spec import ClusterSpec, EngineUse, UnitSpec
from gristmill.generators.chains.cells import Cell
from gristmill.generators.chains.gates.gate import make_gates
from gristmill.generators.chains.loop import Fork
from gristmill.jobs.recipes.toml_file import load_table, parted
from gristmill.records.errors import UserError
from gristmill.records.mixing.mixing import check
from gristmill.records.mixing.regimes import PRESETS, Regime
from gristmill.records.spec import build, literals, nearest

MAX_CELLS = 10_000
AXES = ("n", "generations", "chains", "seed")  # grid addresses beside family.* and regime.*


@dataclass(frozen=True)
class LawSpec:
    """`[laws]`: closed forms laid over the curves."""

    check: bool = True  # a study fails when an estimate is more than 4 standard errors from an exact law
    statistics: tuple[str, ...] = ()  # that must have an exact law in every cell; the others are shown where known
    precision: float = 0.0  # relative standard error for which cells get more chains (jobs/study/plan.py); 0: as asked
    max_chains: int = 100_000  # of a cell, whatever the precision takes

    def __post_init__(self) -> None:
        if not 0 <= self.precision < 1 or self.max_chains < 1:
            raise ValueError("precision must lie in [0, 1), max_chains be at least 1")


@dataclass(frozen=True)
class StudySpec:
    """The whole file. Every combination of a regime and the values of `[grid]` is a cell."""

    name: str
    family: dict[str, Any]  # kind, and its settings
    regimes: dict[str, dict[str, Any]]  # name: what differs from the preset of that name, or from plain replace
    n: int  # rows that generation 1 is fitted to
    generations: int
    chains: int = 1  # of each cell
    seed: int = 0
    description: str = ""
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # "family.bias", "regime.real_fraction", "n", ...
    forks: tuple[dict[str, Any], ...] = ()  # {at = generation, regime = name of another}
    gates: tuple[dict[str, Any], ...] = ()
    show: tuple[str, ...] = ()  # measures to plot first; the others follow
    laws: LawSpec = field(default_factory=LawSpec)
    threads: int = 1  # of a unit's sums: with another number they come out otherwise in the last bits
    work: UnitSpec = field(default_factory=UnitSpec)
    engines: EngineUse = field(default_factory=EngineUse)  # of families that are served
    cluster: ClusterSpec = field(default_factory=ClusterSpec)

    def __post_init__(self) -> None:
        if self.n < 1 or self.generations < 1 or self.chains < 1 or self.seed < 0 or self.threads < 1:
            raise ValueError("n, generations, chains and threads must be at least 1, seed not negative")
        if not self.regimes:
            raise ValueError("name at least one regime, e.g. [regimes] replace = {}")


def load_study(path: str, settings: tuple[str, ...] | list[str] = ()) -> tuple[StudySpec, list[Cell]]:
    """The file and its cells, each checked. Raises UserError for whatever could fail before anything runs."""
    spec = build(StudySpec, load_table(path, settings), path)
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
        raise UserError(f"{path}: two cells have the same name; the grid names a value twice")
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
        known = address in AXES or address.partition(".")[0] in ("family", "regime") or _is_gate(address, spec)
        if not known:
            raise UserError(
                f"{where}: grid address '{address}' is not known"
                f"{nearest(address, [*AXES, 'family.bias', 'regime.real_fraction'])}"
            )
        if not spec.grid[address]:
            raise UserError(f"{where}: grid.{address} has no values")
    points = list(itertools.product(*spec.grid.values()))
    if len(points) * len(spec.regimes) > MAX_CELLS:
        raise UserError(
            f"{where}: {len(points) * len(spec.regimes):,} cells are more than {MAX_CELLS:,}; thin the grid"
        )
    return [_cell(spec, name, dict(zip(spec.grid, point)), where) for name in spec.regimes for point in points]


def _is_gate(address: str, spec: StudySpec) -> bool:
    """Whether it names a key of one of the study's gates, as "gates.0.radius"."""
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
        *way, key = address.split(".")
        place: Any = table
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
            if not isinstance(place, dict | list):
                raise UserError(f"{where}: grid address '{address}': '{step}' is a value and has no keys")
        place[key] = value
    kind, rest = parted(table["family"], f"{where}: family")
    if isinstance(rest.get("schema"), dict) and "file" in rest["schema"]:
        rest["schema"] = load_table(str(rest["schema"]["file"]))
    label = ", ".join([name, *(f"{a.rpartition('.')[2]} = {v}" for a, v in values.items())])
    forks = tuple(_fork(spec, fork, f"{where}: forks[{i}]") for i, fork in enumerate(spec.forks))
    n, generations, chains, seed = (_whole(table[axis], f"{where}: {axis}") for axis in AXES)
    regime = make_regime(name, table["regime"], f"{where}: regimes.{name}")
    gates = tuple(table["gates"])
    cell = Cell(label, kind, rest, name, regime, n, generations, chains, seed, forks, gates, values, spec.threads)
    return replace(cell, spec=literals(cell.family().spec))


def _whole(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UserError(f"{where}: {value!r} is not a whole number")
    return value


def make_regime(name: str, table: Mapping[str, Any], where: str) -> Regime:
    """The preset of that name, or plain replace, with what the table says of it."""
    base = literals(PRESETS.get(name, Regime()))
    return build(Regime, {**base, **table}, where)


def _fork(spec: StudySpec, table: Mapping[str, Any], where: str) -> Fork:
    at, name = table.get("at"), table.get("regime")
    if set(table) != {"at", "regime"} or not isinstance(at, int) or not 2 <= at <= spec.generations:
        raise UserError(f"{where}: write it as {{ at = 5, regime = 'accumulate' }}, with 2 <= at <= generations")
    return Fork(at, make_regime(str(name), spec.regimes.get(str(name), {}), where))
