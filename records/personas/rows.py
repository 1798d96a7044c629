"""`[source] kind = "personas"`: people whose attributes fit together, without end (docs/sources.md, "Personas")."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from gristmill.records.errors import UserError
from gristmill.records.functions.contract import RowFunction
from gristmill.records.functions.draws import Draws
from gristmill.records.ids import fingerprint
from gristmill.records.personas.fitting import fit_network
from gristmill.records.personas.marginals import read_marginals
from gristmill.records.personas.network import Network, check_phrases, check_sentence
from gristmill.records.readers.datasets import DataSpec, read_table
from gristmill.records.schema import RESERVED
from gristmill.records.spec import nearest, placement


@dataclass(frozen=True)
class PersonaRowsSpec:
    """Keys of `[source] kind = "personas"`: by default employed people in the United States, by published marginals."""

    marginals: str | None = placement(None)  # TOML file with marginals and conditional shares of your own.
    # Table to fit instead: a file, folder, glob, bucket, run or release, or "package:adult/train".
    table: str | None = placement(None)
    attributes: tuple[str, ...] = ()  # Columns of `table` that become attributes; default: all but `weight`.
    weight: str | None = None  # Column of `table` with the weight of each row; default: all weigh the same.
    # Fewest rows of `table` that hold a value, a range of numbers, or a pair of these of two attributes, for it to be
    # drawn. As many rows lie below and above each number that is drawn, or hold it.
    min_count: int = 5
    # Ranges at most that each column of numbers of `table` is divided into, with about as many rows each.
    num_bins: int = 16
    # Template of the sentence in the column `persona`, with names of attributes in braces; required with `table`.
    persona: str | None = None
    # What stands in the sentence instead of a value: a table for each attribute, as in { sex = { F = "woman" } }.
    phrases: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.marginals and self.table:
            raise ValueError("give either marginals or table")
        if self.table and not self.persona:
            raise ValueError('table needs persona, the template of a sentence such as "A {age}-year-old {occupation}."')
        if not self.table and (self.attributes or self.weight or (self.min_count, self.num_bins) != (5, 16)):
            raise ValueError("attributes, weight, min_count and num_bins are for table")
        if self.min_count < 1 or not 2 <= self.num_bins <= 256:
            raise ValueError("min_count must be at least 1, and num_bins in 2 to 256")


class PersonaRows(RowFunction):
    """A column for each attribute, and `persona`, a sentence that states them."""

    kind: ClassVar[str] = "personas"
    revision: ClassVar[int] = 2  # 2: fractions with the digits of their range; min_count holds for numbers
    Spec: ClassVar[type] = PersonaRowsSpec
    spec: PersonaRowsSpec

    def __init__(self, spec: PersonaRowsSpec) -> None:
        super().__init__(spec)
        self.network = self._fitted() if spec.table else read_marginals(spec.marginals)
        for name in self.columns:
            if name in RESERVED:
                raise UserError(f"source (personas): attribute '{name}' has the name of a column that every row has")
        for name in spec.phrases:
            if name not in self.columns[:-1]:
                raise UserError(f"source (personas): phrases: no attribute '{name}'{nearest(name, self.columns[:-1])}")
        for each in self.network.attributes:
            check_phrases(each, spec.phrases.get(each.name, {}), f"source (personas): phrases.{each.name}")
        self.network.attributes = tuple(
            replace(each, phrases={**each.phrases, **spec.phrases.get(each.name, {})})
            for each in self.network.attributes
        )
        self.network.sample(Draws(0, 0))  # raises where no persona is possible
        if spec.persona is not None:
            check_sentence(spec.persona, self.columns[:-1])
            self.network.personas = (spec.persona,)

    def _fitted(self) -> Network:
        spec, path = self.spec, str(self.spec.table)
        try:
            table = read_table(DataSpec(path))
        except UserError as error:
            raise UserError(str(error).replace("data.path", "source.table")) from None
        names = list(spec.attributes) or [name for name in table.column_names if name != spec.weight]
        for name in (*names, *([spec.weight] if spec.weight else [])):
            if name not in table.column_names:
                raise UserError(f"source (personas): {path} has no column '{name}'{nearest(name, table.column_names)}")
        if len(set(names)) < len(names) or "persona" in names:
            raise UserError("source (personas): attributes must be distinct, and none may be called persona")
        network = fit_network(table, names, spec.weight, spec.min_count, spec.num_bins, [str(spec.persona)])
        network.about = f"the rows of {path}"
        network.remedy = (
            f": too few rows of {path} share two values; lower num_bins (now {spec.num_bins}), so that ranges of "
            f"numbers hold more rows, lower min_count (now {spec.min_count}), or name fewer attributes"
        )
        return network

    @property
    def columns(self) -> tuple[str, ...]:
        return (*(attribute.name for attribute in self.network.attributes), "persona")

    def row(self, number: int, draws: Draws) -> dict[str, Any]:
        return self.network.row(draws)

    @property
    def words(self) -> str:
        return f"personas of {self.network.about} with {', '.join(self.columns[:-1])}"

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "network": fingerprint(self.network.literals())}
