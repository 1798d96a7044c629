"""Imports go down the floors only and never in a circle; heavy packages are imported inside functions."""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {  # what each may import
    "records": set(),
    "engines": {"records"},
    "stages": {"engines", "records"},
    "evaluation": {"records"},
    "generators": {"stages", "engines", "evaluation", "records"},
    "cluster": {"generators", "stages", "engines", "records"},
    "jobs": {"cluster", "generators", "evaluation", "stages", "engines", "records"},
}
HEAVY = {"torch", "vllm", "transformers", "diffusers", "datasets", "pandas", "duckdb", "matplotlib", "ray", "boto3"}
HEAVY |= {"sklearn", "opacus", "dp_accounting", "gymnasium", "scipy", "evaluation", "huggingface_hub", "obstore"}
NETS = "gristmill.generators.nets"  # torch modules: they may import torch, and are imported inside functions only
CLOUD = ("records/stores/cloud.py", "records/stores/s3_bulk.py")
S3 = ("records/stores/s3.py", "records/stores/s3_client.py", "records/stores/s3_trouble.py")
MAX_LINES = 320
Tree = Mapping[str, str]  # the text of each file of the package by its path, "records/lots.py"


def sources() -> dict[str, str]:
    paths = [path for floor in (*FLOORS, "gristmill") for path in sorted((ROOT / floor).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}


def module(path: str) -> str:
    name = path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    return name if name.startswith("gristmill") else f"gristmill.{name}"


def imported(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Full names that an import statement may bind, with the line."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, node.lineno) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        dots = "." * node.level
        yield from ((f"{dots}{node.module or ''}.{alias.name}", node.lineno) for alias in node.names)


def every_import(tree: ast.Module) -> list[tuple[str, int]]:
    return [pair for node in ast.walk(tree) for pair in imported(node)]


def top_level(tree: ast.Module) -> list[tuple[str, int]]:
    """Imports that run when the module is imported: at the top, and in its `if`, `try` and `with` blocks."""
    names, blocks = [], [tree.body]
    while blocks:
        for node in blocks.pop():
            names += list(imported(node))
            is_block = isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef)
            if is_block and not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
                blocks += [getattr(node, part) for part in ("body", "orelse", "finalbody") if getattr(node, part, None)]
                blocks += [handler.body for handler in getattr(node, "handlers", [])]
    return names


def faults(files: Tree) -> list[str]:
    """What is wrong with the imports of the package, a line each."""
    found = [fault for path, text in files.items() for fault in faults_of(path, text)]
    return found + [f"circle: {' -> '.join(names)}" for names in circles(files)]


@cache
def faults_of(path: str, text: str) -> tuple[str, ...]:
    """What is wrong with the imports of one file."""
    tree = ast.parse(text)
    floor = path.split("/")[0]
    found = []
    for name, line in every_import(tree):
        first, _, rest = name.partition(".")
        where = f"{path}:{line}"
        if not first:
            found.append(f"{where}: a relative import hides the floor")
        elif first in FLOORS:
            found.append(f"{where}: {name} is an old name; write gristmill.{name}")
        elif first == "gristmill" and floor in FLOORS:
            target = rest.split(".")[0]
            if target in FLOORS and target != floor and target not in FLOORS[floor]:
                found.append(f"{where}: {floor}/ may not import {target}/")
        elif first == "ray" and floor != "cluster":
            found.append(f"{where}: ray belongs to cluster/")
        elif first in ("boto3", "botocore") and path not in S3:
            found.append(f"{where}: S3 clients belong to {S3[0]}")
        elif first == "obstore" and path not in CLOUD:
            found.append(f"{where}: obstore belongs to {CLOUD[0]}")
    found += [f"{path}:{line}: {name} is heavy, import it inside functions" for name, line in heavy(path, tree)]
    found += [f"{path}:{line}: Parquet is read through records/readers/parquet.py" for line in raw_parquet(path, tree)]
    return tuple(found)


def heavy(path: str, tree: ast.Module) -> list[tuple[str, int]]:
    """Heavy packages that the module imports at its top. cluster/ may import ray so, and evaluation/ its own tools."""
    floor = path.split("/")[0]
    if floor == "evaluation" or path.startswith("generators/nets/") or path in S3:
        return []
    names = []
    for name, line in top_level(tree):
        first = name.removeprefix("gristmill.").split(".")[0]
        is_heavy = first in HEAVY and (first, floor) != ("ray", "cluster")
        if is_heavy or name.startswith(NETS):
            names.append((name, line))
    return names


def raw_parquet(path: str, tree: ast.Module) -> list[int]:
    if path == "records/readers/parquet.py":
        return []
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return [node.lineno for node in uses if ast.unparse(node) in ("pq.read_table", "pq.ParquetFile")]


def circles(files: Tree) -> list[list[str]]:
    """Groups of modules that import one another, imports inside functions and for types included."""
    known = {module(path) for path in files}
    arrows = {}
    for path, text in files.items():
        targets = {name if name in known else name.rpartition(".")[0] for name in names_in(text)}
        arrows[module(path)] = sorted(targets & known - {module(path)})
    return [sorted(group) for group in strongly_connected(arrows) if len(group) > 1]


@cache
def names_in(text: str) -> tuple[str, ...]:
    return tuple(name for name, _ in every_import(ast.parse(text)))


def strongly_connected(arrows: Mapping[str, list[str]]) -> list[list[str]]:
    """Tarjan 1972."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in arrows[name]:
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            groups.append(group)

    for name in arrows:
        if name not in order:
            visit(name)
    return groups


def test_imports() -> None:
    assert not faults(sources())


def test_no_old_names_in_tests_and_scripts() -> None:
    old = []
    for folder in ("tests", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            names = every_import(ast.parse(path.read_text()))
            old += [f"{path}:{line}: {name}" for name, line in names if name.split(".")[0] in FLOORS]
    assert not old


def test_files_are_small_rooms() -> None:
    long = {path: lines for path, text in sources().items() if (lines := len(text.splitlines())) > MAX_LINES}
    assert not long


@pytest.mark.parametrize(
    ("path", "line", "message"),
    [
        ("records/lots.py", "from gristmill.stages.contract import Stage", "records/ may not import stages/"),
        ("engines/errors.py", "import gristmill.stages.contract", "engines/ may not import stages/"),
        ("stages/contract.py", "from gristmill import generators", "stages/ may not import generators/"),
        ("evaluation/distances.py", "def f():\n    import gristmill.jobs.cli", "evaluation/ may not import jobs/"),
        ("jobs/release/command.py", "def f():\n    from ray import data", "ray belongs to cluster/"),
        ("jobs/cli.py", "import ray", "ray belongs to cluster/"),
        ("stages/contract.py", "import torch.nn", "torch.nn is heavy"),
        ("jobs/cli.py", "try:\n    import vllm\nexcept ImportError:\n    pass", "vllm is heavy"),
        ("jobs/cli.py", "from gristmill.evaluation import distances", "gristmill.evaluation.distances is heavy"),
        ("jobs/cli.py", "from gristmill.generators.nets import convs", "gristmill.generators.nets.convs is heavy"),
        ("jobs/cli.py", "from records.lots import asks", "records.lots.asks is an old name"),
        ("jobs/cli.py", "import jobs", "jobs is an old name"),
        ("stages/contract.py", "from . import registry", "a relative import hides the floor"),
        ("records/lots.py", "def f():\n    import boto3", "S3 clients belong"),
        ("records/stores/hub.py", "def f():\n    import obstore", "obstore belongs"),
        ("records/errors.py", "def f():\n    from gristmill.records.stores import local", "circle: "),
        ("stages/contract.py", "x = pq.read_table('a')", "Parquet is read through"),
    ],
)
def test_guards_bite(path: str, line: str, message: str) -> None:
    files = sources()
    files[path] += "\n" + line + "\n"
    assert [fault for fault in faults(files) if message in fault]
