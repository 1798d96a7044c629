"""A recipe as written: one TOML file as a frozen spec, checked key by key."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gristmill.cluster.spec import ClusterSpec, Limits
from gristmill.jobs.recipes.toml_file import TomlSource, label_of, load_table
from gristmill.jobs.release.facts import ReleaseSpec
from gristmill.records.division import DivisionSpec
from gristmill.records.output.shards import OutputSpec
from gristmill.records.pairs import PairsSpec
from gristmill.records.readers.sources import SourceSpec
from gristmill.records.rounds import RoundsSpec
from gristmill.records.spec import build, later


@dataclass(frozen=True)
class GateAuditSpec:
    """`[gate_audit]`: labels that say of some rows whether they are right, to measure the stages by.

    A row whose label is neither `right` nor `wrong` does not count.
    """

    column: str  # The column that holds the label of a row.
    right: str = "right"  # The label of a right row.
    wrong: str = "wrong"  # The label of a wrong row.

    def __post_init__(self) -> None:
        if self.right == self.wrong:
            raise ValueError("right and wrong must be different values")


@dataclass(frozen=True)
class Recipe:
    """The whole file. A table with a `kind` is checked by the class that its kind names."""

    name: str  # The name of the run, in its report and its metrics.
    # `[generator]`: what makes the rows; its kind names the other keys.
    generator: dict[str, Any] | None = later(None)
    # `[[generators]]` in its place: several, each with its own pool; each ask goes to one of them.
    generators: tuple[dict[str, Any], ...] = later(())
    division: DivisionSpec = later(DivisionSpec())  # `[division]`: how asks are divided among [[generators]].
    # `[source]`: the rows that asks are made from; by default empty asks without end.
    source: SourceSpec = field(default_factory=lambda: SourceSpec(items=({},), cycle=True))
    description: str = ""  # One sentence about the run, for its report.
    seed: int = 0  # The seed of all randomness of the run.
    lot_size: int = 256  # Asks in a lot, the unit of work and commit: 1 to 1,000,000.
    method: dict[str, Any] | None = None  # `[method]` of a text generator: how it writes a row; default: prompt.
    rounds: RoundsSpec | None = None  # `[rounds]` of a method that feeds on kept rows: how many, and how long.
    pairs: PairsSpec | None = None  # `[pairs]` of a method that reads two documents: which belong together.
    stages: tuple[dict[str, Any], ...] = ()  # `[[stages]]`: what each row passes, in this order.
    limits: Limits = field(default_factory=Limits)  # `[limits]`: where the run ends.
    output: OutputSpec = field(default_factory=OutputSpec)  # `[output]`: how shards are written.
    gate_audit: GateAuditSpec | None = None  # `[gate_audit]`: rows of known label, to measure the stages by.
    # `[release]`: facts for the card of a release; they never change a row.
    release: ReleaseSpec | None = later(None)
    cluster: ClusterSpec = field(default_factory=ClusterSpec)  # `[cluster]`: where the run runs; never changes a row.

    def __post_init__(self) -> None:
        if self.generator is None and not self.generators:
            raise ValueError("key 'generator' is missing: add a table [generator], or several as [[generators]]")
        if self.generator is not None and self.generators:
            raise ValueError("give either [generator] or [[generators]], not both")
        if not self.generators and self.division != DivisionSpec():
            raise ValueError("[division] divides asks among [[generators]], and there are none")
        if not 1 <= self.lot_size <= 1_000_000:
            raise ValueError("lot_size must lie in 1..1000000")
        if (self.source.cycle or self.source.is_endless) and self.limits.is_endless:
            what = "source.cycle goes on for ever" if self.source.cycle else "source.kind without num_rows has no end"
            raise ValueError(f"{what}: give [limits] asks, kept_rows, kept_tokens, tokens or cost")


def load(path: TomlSource, settings: Sequence[str] = ()) -> Recipe:
    """The recipe file with `--set a.b=c` settings applied. Raises UserError that names file and key."""
    return build(Recipe, load_table(path, settings), label_of(path))
