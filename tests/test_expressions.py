"""Every regular expression takes time linear in the text, whatever the text: none backtracks over what it has read.

The expressions are found in the modules, so a new one is tested too. Each is used as the code uses it, on attacks made
from it.
"""

import ast
import importlib
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from tests.long_texts import CHARACTERS, SHORT, Attack, attacks_on, slowness

ROOT = Path(__file__).parent.parent
FLOORS = ("records", "engines", "stages", "evaluation", "generators", "jobs")
METHODS = {"search", "match", "fullmatch", "finditer", "findall", "sub", "subn", "split"}
# Expressions that may be slow, by module and name, and why.
EXEMPT = {
    "stages.verify.answer_text.WRAPPERS": "only matched with a whole text of at most MAX_FORMAT_CHARS",
    "jobs.pages.figure": "reads figures that matplotlib draws",
    "jobs.recipes.catalogue": "reads the comments of the recipes that come with the package",
}


def sources() -> Iterator[tuple[str, Path]]:
    """(name of the module without the package, path)."""
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__"), path


def _patterns_in(value: object) -> list[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [p for each in value for p in _patterns_in(each)] if isinstance(value, list | tuple) else []


@lru_cache
def expressions() -> dict[str, tuple[tuple[re.Pattern[str], ...], frozenset[str]]]:
    """(patterns, methods by which the code uses them) by module and name, or by module and line."""
    trees = {name: ast.parse(path.read_text()) for name, path in sources()}
    uses: dict[str, set[str]] = {}
    found: dict[str, tuple[tuple[re.Pattern[str], ...], frozenset[str]]] = {}
    for module, tree in trees.items():
        homes = _imports(tree)
        for name, methods in _uses(tree).items():
            uses.setdefault(homes.get(name, f"{module}.{name}"), set()).update(methods)
        for line, pattern, method in _inline(tree):
            found[f"{module}:{line}"] = (pattern,), frozenset({method})
    for module, tree in trees.items():
        for name in _compiled(tree):
            patterns = _patterns_in(getattr(importlib.import_module(f"gristmill.{module}"), name))
            found[f"{module}.{name}"] = tuple(patterns), frozenset(uses.get(f"{module}.{name}", {"finditer"}))
    return found


def _imports(tree: ast.Module) -> dict[str, str]:
    """Module and name, without the package, of each name that is imported from it."""
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("gristmill.")]
    return {
        alias.asname or alias.name: f"{node.module.removeprefix('gristmill.')}.{alias.name}"
        for node in imports
        if node.module
        for alias in node.names
    }


def _compiled(tree: ast.Module) -> list[str]:
    """The names at the top of a module whose values call re.compile."""
    names = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(_is_re_call(n, {"compile"}) for n in ast.walk(node.value)):
            names += [n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return names


def _is_re_call(node: ast.AST, methods: set[str] = METHODS) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "re"
        and node.func.attr in methods
    )


def _inline(tree: ast.Module) -> Iterator[tuple[int, re.Pattern[str], str]]:
    """(line, pattern, method) of each re.search(r"...", text) and its like; holes of an f-string become a letter."""
    for node in ast.walk(tree):
        if not _is_re_call(node):
            continue
        assert isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        pattern = node.args[0]
        parts = pattern.values if isinstance(pattern, ast.JoinedStr) else [pattern]
        texts = [str(part.value) if isinstance(part, ast.Constant) else "x" for part in parts]
        yield node.lineno, re.compile("".join(texts)), node.func.attr


def _uses(tree: ast.Module) -> dict[str, set[str]]:
    """The methods called on each name; a name that is used in any other way counts as searched."""
    uses: dict[str, set[str]] = {}
    called = set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in METHODS:
            uses.setdefault(node.value.id, set()).add(node.attr)
            called.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in called:
            uses.setdefault(node.id, set()).add("finditer")
    return uses


def calls(pattern: re.Pattern[str], methods: frozenset[str]) -> list[Callable[[str], object]]:
    """The pattern on a text, as the code uses it."""
    ways: list[Callable[[str], object]] = [lambda text: pattern.fullmatch(text), lambda text: pattern.match(text)]
    if methods - {"match", "fullmatch"}:
        ways.append(lambda text: sum(1 for _ in pattern.finditer(text)))
    return ways


def fault_of(pattern: re.Pattern[str], methods: frozenset[str]) -> str | None:
    attacks = [*attacks_on(pattern), *(Attack("", character) for character in CHARACTERS)]
    faults = (slowness(way, attack, SHORT) for way in calls(pattern, methods) for attack in attacks)
    return next((fault for fault in faults if fault), None)


def is_exempt(name: str) -> bool:
    return any(name == exempt or name.startswith(f"{exempt}:") for exempt in EXEMPT)


def test_the_expressions_of_known_modules_are_among_them() -> None:
    names = set(expressions())
    assert {
        "stages.filters.pii_finders.EMAIL",
        "generators.text.task_filters.LABEL",
        "records.words.ASCII_TOKEN",
    } <= names
    assert any(name.startswith("generators.text.answers:") for name in names)
    assert "fullmatch" in expressions()["stages.verify.answer_text.POWER"][1]
    for exempt in EXEMPT:
        assert any(name == exempt or name.startswith(f"{exempt}:") for name in names)


@pytest.mark.parametrize("floor", FLOORS)
def test_no_expression_is_slow(floor: str) -> None:
    for name, (patterns, methods) in expressions().items():
        if name.startswith(f"{floor}.") and not is_exempt(name):
            for pattern in patterns:
                assert fault_of(pattern, methods) is None, f"{name}: {pattern.pattern}"


@pytest.mark.parametrize(
    ("pattern", "method"),
    [
        (r"```[ \t]*(?:python|py)?[^\n]*\n(.*?)```", "search"),
        (r"task\s*\d*\s*[:.)-]", "match"),
        (r"<[^>]*>", "search"),
        (r"gl[a-z]+-", "search"),
        (r"(?:key|pass)(?: *)(?:=|:| +)(?: *)(\w{44})", "search"),
        (r"^(?:.*,)*x", "match"),
        (r"(\w+) (\d+) ?/ ?(\d+)x", "finditer"),
    ],
)
def test_slow_expressions_are_found(pattern: str, method: str) -> None:
    assert fault_of(re.compile(pattern, re.DOTALL), frozenset({method}))
