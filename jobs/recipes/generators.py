"""The generator of a recipe, or its several generators, built from their tables."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gristmill.generators.contract import Generator
from gristmill.generators.registry import generator_class
from gristmill.generators.several import Several
from gristmill.generators.text.contract import Method
from gristmill.generators.text.registry import method_class
from gristmill.jobs.recipes.recipe import Recipe
from gristmill.jobs.recipes.toml_file import parted
from gristmill.records.division import NOBODY, Author, Division, value_text
from gristmill.records.errors import UserError
from gristmill.records.spec import build


@dataclass(frozen=True)
class ShareSpec:
    """The keys of one of [[generators]] beside those of its kind. Its `name` is also that of its model."""

    name: str | None = None  # its name in the column `generator`, in `[cluster.pools]` and on the page; default: model
    share: float = 1.0  # Weight in the draw among the generators that may take an ask.
    # Values of the column `division.column` whose asks it takes, a text or a list of texts; unset: those left over.
    when: Any = None

    def __post_init__(self) -> None:
        if self.name is not None and (not self.name.strip() or ":" in self.name or self.name == NOBODY):
            raise ValueError(f"name must be a word without a colon other than '{NOBODY}', not {self.name!r}")
        if not 0 < self.share < float("inf"):
            raise ValueError(f"share must be more than 0, not {self.share:g}; leave out a generator that makes no row")
        if self.when in ([], (), {}):
            raise ValueError("when must name at least one value; leave it out for the values that no generator names")

    @property
    def values(self) -> tuple[str, ...]:
        """The values of `when` as texts."""
        values = self.when if isinstance(self.when, list | tuple) else [] if self.when is None else [self.when]
        return tuple(value_text(value) for value in values)


SHARE_KEYS = ("share", "when")


@dataclass(frozen=True)
class _Entry:
    """A generator's table: where it stands, its class, its spec, and what it takes of the asks."""

    where: str
    generator_type: Any
    spec: Any
    share: ShareSpec


def entries(recipe: Recipe) -> Iterator[_Entry]:
    """The generators' tables of a recipe. Raises UserError for unknown kinds and keys. Builds no generator."""
    tables = [("generator", recipe.generator)] if recipe.generator is not None else []
    for where, table in tables or [(f"generators[{at}]", each) for at, each in enumerate(recipe.generators)]:
        kind, rest = parted(table, where)
        generator_type: Any = generator_class(kind)
        share: dict[str, Any] = {}
        if not tables:
            share = {key: rest.pop(key) for key in SHARE_KEYS if key in rest}
            if "name" in rest:
                takes_name = "name" in getattr(generator_type.Spec, "__dataclass_fields__", {})
                share["name"] = rest["name"] if takes_name else rest.pop("name")
        spec = build(generator_type.Spec, rest, where)
        yield _Entry(where, generator_type, spec, build(ShareSpec, share, where))


def build_generator(recipe: Recipe) -> tuple[Generator, Method | None]:
    """The generator and, for text generators, their method. Raises UserError for unknown kinds and keys."""
    tables = list(entries(recipe))
    methods: list[Method] = []
    if any(entry.generator_type.takes_method for entry in tables):
        kind, table = parted(recipe.method or {"kind": "prompt"}, "method")
        method_type = method_class(kind)
        # One for each generator: a method may hold tools while its generator is open.
        methods = [method_type(build(method_type.Spec, table, "method")) for _ in tables]
    elif recipe.method is not None:
        kinds = " and ".join(dict.fromkeys(f"'{entry.generator_type.kind}'" for entry in tables))
        raise UserError(f"[method] is for text generators; generator {kinds} takes none")
    generators = []
    for at, entry in enumerate(tables):
        own_method = [methods[at]] if entry.generator_type.takes_method else []
        generators.append(entry.generator_type(entry.spec, *own_method))
    method = methods[0] if methods else None
    if recipe.generator is not None:
        return generators[0], method
    return Several(generators, _division(recipe, tables, generators)), method


def _division(recipe: Recipe, tables: list[_Entry], generators: list[Generator]) -> Division:
    """Raises UserError for names that are not unique and for keys that have no effect."""
    spec, samples = recipe.division, recipe.source.samples
    authors: list[Author] = []
    for entry, generator in zip(tables, generators):
        name, share = entry.share.name or generator.model or generator.kind, entry.share
        if any(name == author.generator for author in authors):
            raise UserError(f"{entry.where}: a generator before it is called '{name}', too; set another name = \"...\"")
        if any(name == (stage.get("name") or stage.get("kind")) for stage in recipe.stages):
            raise UserError(f"{entry.where}: a stage is called '{name}', too; give one of them another name = \"...\"")
        if share.values and spec.column is None:
            raise UserError(f"{entry.where}: when names values of a column: set division.column")
        if spec.by == "samples" and share.share != 1.0:
            raise UserError(f'{entry.where}: share has no effect with division.by = "samples", where each takes a turn')
        authors.append(Author(name, generator.model, generator.method, generator.origin, share.share, share.values))
    if spec.column is not None and not any(author.when for author in authors):
        raise UserError(f"division.column = '{spec.column}' has no effect: set when = \"VALUE\" in [[generators]]")
    if spec.by == "samples" and samples < len(authors) and not (recipe.source.cycle or spec.column):
        raise UserError(
            f'division.by = "samples" gives the samples of a row to the generators in turn: source.samples = {samples} '
            f"must be at least {len(authors)}, their number"
        )
    together = samples if recipe.source.together else 1
    return Division(tuple(authors), spec.by, spec.column, together)
