"""Writes docs/reference/: the tables of keys, made from the specs themselves.

    python -m scripts.reference_tables           write the pages
    python -m scripts.reference_tables --check   exit with 1 when a page on disk is not what the specs say

A field's comment is its row: the `#` comment behind it or above it, or the string literal below it.
"""

import argparse
import ast
import dataclasses
import hashlib
import inspect
import io
import sys
import textwrap
import tokenize
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gristmill.cluster.spec import ClusterSpec, Limits
from gristmill.generators import registry as generators
from gristmill.generators.chains import registry as chains
from gristmill.generators.families import contract as families
from gristmill.generators.text import registry as methods
from gristmill.jobs.flow.spec import FlowSpec
from gristmill.jobs.recipes.generators import ShareSpec
from gristmill.jobs.recipes.recipe import Recipe
from gristmill.records.functions import registry as functions
from gristmill.records.functions.draws import Draws
from gristmill.records.spec import OF_KIND
from gristmill.records.tasks.registry import FAMILIES
from gristmill.stages import registry as stages

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
PROMPTS = ROOT / "generators" / "text" / "templates"  # a folder a method
RUBRICS = ROOT / "stages" / "judging" / "templates"
HEAD = "<!-- Written by scripts/reference_tables.py from the code; edit the comments of the fields there. -->\n"


def field_comments(cls: type) -> dict[str, str]:
    """What the source says of each field of a dataclass: one text a field, "" where it says nothing.

    Inherited fields take the text of the class that declares them.
    """
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            texts |= _comments_in(base)
    return {field.name: texts.get(field.name, "") for field in dataclasses.fields(cls)}  # type: ignore[arg-type]


def _comments_in(cls: type) -> dict[str, str]:
    source = textwrap.dedent(inspect.getsource(cls))
    lines = source.split("\n")
    comments = {
        token.start[0]: (token.string.lstrip("# ").rstrip(), not lines[token.start[0] - 1].lstrip().startswith("#"))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and not token.string.startswith(("# noqa", "# type"))
    }
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for at, node in enumerate(body.body):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        after = body.body[at + 1] if at + 1 < len(body.body) else None
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            texts[node.target.id] = " ".join(after.value.value.split())
            continue
        behind = [comments[n][0] for n in range(node.lineno, (node.end_lineno or 0) + 1) if n in comments]
        above: list[str] = []
        line = node.lineno - 1
        while line in comments and not comments[line][1]:
            above.insert(0, comments[line][0])
            line -= 1
        texts[node.target.id] = " ".join(behind or above)
    return texts


def type_name(hint: Any) -> str:
    """A type as people write it in TOML."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(a) for a in args if a is not type(None))
    if origin is typing.Literal:
        return " or ".join(f'"{a}"' if isinstance(a, str) else str(a) for a in args)
    if origin in (tuple, list):
        return f"list of {type_name(args[0])}" if args else "list"
    if origin is dict or hint is dict or hint is Any or dataclasses.is_dataclass(hint):
        return "table"
    names: Mapping[Any, str] = {str: "text", int: "integer", float: "number", bool: "true or false"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def default_of(field: "dataclasses.Field[Any]") -> str:
    if field.default is not dataclasses.MISSING:
        return _as_toml(field.default)
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
        return "" if dataclasses.is_dataclass(value) else _as_toml(value)
    return "required"


def _as_toml(value: Any) -> str:
    if value is None or value == "":
        return "" if value is None else '`""`'
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return "see below" if len(value) > 60 or "\n" in value else f'`"{value}"`'
    if isinstance(value, tuple | list):
        inner = ", ".join(_as_toml(v).strip("`") for v in value)
        return "see below" if len(inner) > 60 else f"`[{inner}]`"
    if isinstance(value, dict):
        return "`{}`" if not value else "see below"
    return f"`{value}`"


def nested(hint: Any) -> Iterator[type]:
    """The dataclasses inside a type."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for inner in typing.get_args(hint):
        yield from nested(inner)


def table(cls: type, prefix: str = "", skip: tuple[str, ...] = ()) -> list[str]:
    """The rows of a spec as Markdown, nested tables under their own names."""
    hints, comments = typing.get_type_hints(cls), field_comments(cls)
    lines, below = ["| key | type | default | meaning |", "|---|---|---|---|"], []
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if not field.init or field.name in skip or field.metadata.get(OF_KIND):
            continue
        text = comments[field.name].replace("|", "\\|")
        text = text[:1].upper() + text[1:]
        kind = type_name(hints[field.name]).replace("|", "\\|")
        lines.append(f"| `{prefix}{field.name}` | {kind} | {default_of(field)} | {text} |")
        for inner in nested(hints[field.name]):
            below += ["", f"Each `{prefix}{field.name}`:", "", *table(inner)]
    return (lines if len(lines) > 2 else ["No keys."]) + below


def first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").split("\n")[0]


def kinds_page(title: str, what: str, kinds: Mapping[str, Any], load: Callable[[str], Any], header: str) -> str:
    """A page with a section per kind."""
    intro = f'The keys of {what}. A plug-in is named `"module:Class"` or by its entry point (docs/plugins.md).'
    parts = [HEAD, f"# {title}", "", *textwrap.wrap(intro, 99), ""]
    for kind in sorted(kinds):
        cls = load(kind)
        use = f'`{header}` with `kind = "{kind}"`:'
        parts += [f"## `{kind}`", "", *textwrap.wrap(first_line(cls), 99), "", use, "", *table(cls.Spec), ""]
        if title == "Methods" and (PROMPTS / kind).is_dir():
            parts += [f"The built-in prompts are in [templates.md](templates.md#{kind}).", ""]
    return "\n".join(parts)


def templates_page() -> str:
    """A page with the text of every built-in prompt."""
    intro = (
        "The built-in prompts of the text methods and of the judge. Each is a text file beside its code, and the model "
        "reads it word for word. Its digest is the start of the SHA-256 of its text. The text itself is part of the "
        "identity of a run and is written into the manifest. `templates` of a recipe replaces a prompt by the name of "
        "its call. "
        "[prompts.md](../prompts.md) compares the prompts with those of their papers."
    )
    parts = [HEAD, "# Prompt templates", "", *textwrap.wrap(intro, 99), ""]
    for name, folder in [*((path.name, path) for path in sorted(PROMPTS.iterdir())), ("judge", RUBRICS)]:
        parts += [f"## `{name}`", ""]
        for path in sorted(folder.glob("*.txt")):
            text = path.read_text()
            digest = hashlib.sha256(text.removesuffix("\n").encode()).hexdigest()[:12]
            link = f"[{path.stem}](../../{path.relative_to(ROOT).as_posix()})"
            parts += [f"{link}, digest `{digest}`:", "", f"~~~text\n{text}~~~", ""]
    return "\n".join(parts)


def sections_page(title: str, intro: str, cls: type, sections: Mapping[str, type]) -> str:
    """A page for a file's top-level keys, with a section for each of its large tables."""
    parts = [HEAD, f"# {title}", "", intro, "", "## Top level", "", *table(cls, skip=tuple(sections)), ""]
    for name, section in sections.items():
        parts += [f"## `[{name}]`", "", *textwrap.wrap(first_line(section), 99), "", *table(section), ""]
    return "\n".join(parts)


def tasks_page() -> str:
    """The families of tasks with an example of each."""
    intro = (
        'The families of `[source] kind = "tasks"` (docs/tasks.md). The level, from 1 to 10, sets the measure in the '
        "third column. Each example is of level 2."
    )
    lines = [HEAD, "# Families of tasks", "", *textwrap.wrap(intro, 99), "", "| family | asks for | measure | answer |"]
    lines += ["|---|---|---|---|"]
    lines += [f"| `{name}` | {each.about} | {each.dial} | {each.form} |" for name, each in FAMILIES.items()]
    for name, family in FAMILIES.items():
        task = family.task(2, Draws(0, 3))
        tests = ["Tests:", "", "```text", *task.tests.split("\n"), "```", ""] if task.tests else []
        lines += ["", f"## `{name}`", "", "```text", *task.question.split("\n"), "```", "", "Reference:", "", "```text"]
        lines += [*task.reference.rstrip("\n").split("\n"), "```", "", *tests]
    return "\n".join([line for at, line in enumerate(lines) if line or at == 0 or lines[at - 1]]).rstrip("\n") + "\n"


def pages() -> dict[str, str]:
    """The text of every page by file name."""
    sections = {"[generators]": ShareSpec, "cluster": ClusterSpec, "limits": Limits}
    intro = "The keys of a recipe: `gristmill produce RECIPE --out URI`."
    tables = {
        "stages": ("Stages", "each stage", stages.KINDS, stages.stage_class, "[[stages]]"),
        "methods": ("Methods", "each text method", methods.KINDS, methods.method_class, "[method]"),
        "generators": ("Generators", "each generator", generators.KINDS, generators.generator_class, "[generator]"),
        "sources": (
            "Sources",
            "each source that computes its rows",
            functions.KINDS,
            functions.function_class,
            "[source]",
        ),
        "families": ("Model families", "each model family", families.KINDS, families.family_class, "[model]"),
        "chains": ("Chain families", "each family of a study", chains.KINDS, chains.chain_class, "[family]"),
    }
    recipe = sections_page("Recipe", intro, Recipe, sections)
    steps = "The keys of a flow: `gristmill flow FLOW --out URI` (docs/flows.md)."
    flow = sections_page("Flow", steps, FlowSpec, {})
    whole = {"recipe.md": recipe, "flow.md": flow, "templates.md": templates_page(), "tasks.md": tasks_page()}
    return whole | {f"{name}.md": kinds_page(*row) for name, row in tables.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the pages on disk; write nothing")
    args = parser.parse_args()
    stale = [name for name, text in pages().items() if _text(FOLDER / name) != text]
    if args.check:
        print("\n".join(f"{name} is not what the specs say; run: make reference" for name in stale))
        return bool(stale)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
    return 0


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main())
