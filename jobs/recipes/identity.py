"""The literals of a recipe: those under its fingerprint, and those that its manifest shows."""

from collections.abc import Sequence
from typing import Any

from gristmill.generators.contract import Generator
from gristmill.generators.several import Several
from gristmill.generators.text.contract import Method
from gristmill.jobs.recipes.recipe import Recipe
from gristmill.records.masking.masks import masked
from gristmill.records.output.manifest import FORMAT
from gristmill.records.plugins import kind_of, source_identity
from gristmill.records.readers.sources import Source
from gristmill.records.spec import literals
from gristmill.stages.contract import Stage

SOURCE_KEYS = ("id_column", "carry", "sample_by", "columns", "encoding", "delimiter")
PLACES = ("path", "file")  # keys that say where something lies: its content counts, by digest


def identity_literals(
    recipe: Recipe, source: Source, generator: Generator, method: Method | None, stages: Sequence[Stage]
) -> dict[str, Any]:
    """Everything that changes rows, as literals: what the fingerprint covers, and what a refusal compares.

    Limits, cluster, name and description are not in it: they change how many rows there are and how fast they come.
    Secrets are still in it: `covered` leaves them out of the fingerprint, `masked` hides them in a manifest.
    """
    stage_literals = [
        {"name": s.name, **_without_places(literals(s.spec, True)), **s.identity(), **_class_literals(s)}
        for s in stages
    ]
    return {
        "seed": recipe.seed,
        "lot_size": recipe.lot_size,
        "source": {
            "content": source.digest(),
            **source.literals,
            **{k: v for k, v in literals(recipe.source).items() if k in SOURCE_KEYS},
            **({"together": source.num_together} if source.num_together > 1 else {}),
        },
        "format": FORMAT,
        **_generator_literals(recipe, generator),
        "method": _without_places(_method_literals(method)) | source_identity(method) if method else None,
        "stages": stage_literals,
        "output": literals(recipe.output),
        **({"rounds": literals(recipe.rounds)} if recipe.rounds else {}),
        **({"pairs": literals(recipe.pairs)} if recipe.pairs else {}),
    }


def resolved_literals(
    recipe: Recipe, generator: Generator, method: Method | None, stages: Sequence[Stage]
) -> dict[str, Any]:
    """The recipe as literals with every default filled in and without secrets: a manifest may be published."""
    return masked(
        {
            **literals(recipe),
            **_resolved_generators(generator),
            "method": _method_literals(method),
            # The name of a stage comes last: the spec of a judge has a `name` of its own, that of its model.
            "stages": [{**literals(s.spec), "kind": kind_of(s), "name": s.name} for s in stages],
        }
    )


def _generator_literals(recipe: Recipe, generator: Generator) -> dict[str, Any]:
    if not isinstance(generator, Several):
        return {"generator": {**generator.identity(), **_class_literals(generator)}}
    parts = [{**share.identity(), **_class_literals(share.generator)} for share in generator.shares]
    return {"generators": parts, "division": literals(recipe.division)}


def _resolved_generators(generator: Generator) -> dict[str, Any]:
    if not isinstance(generator, Several):
        return {"generator": {"kind": kind_of(generator), **literals(generator.spec)}}
    parts = []
    for share in generator.shares:
        author = {"name": share.name, "share": share.author.share, "when": list(share.author.when)}
        parts.append({"kind": kind_of(share.generator), **literals(share.generator.spec), **author})
    return {"generators": parts}


def _class_literals(part: Generator | Stage) -> dict[str, Any]:
    """The kind, and for a plug-in the digest of its sources."""
    return {"kind": kind_of(part), **source_identity(part)}


def _method_literals(method: Method | None) -> dict[str, Any] | None:
    return {"kind": kind_of(method), **literals(method.spec)} if method else None


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_places(v) for k, v in value.items() if k not in PLACES}
    return [_without_places(v) for v in value] if isinstance(value, list) else value
