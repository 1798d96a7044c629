"""Imports go down the floors only; heavy packages are imported inside functions; only cluster/ and jobs/ know ray."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "records": set(),
    "stages": {"records"},
    "evaluation": {"records"},
    "generators": {"stages", "records"},
    "cluster": {"generators", "stages", "records"},
    "jobs": {"cluster", "generators", "evaluation", "stages", "records"},
}
HEAVY = {"torch", "vllm", "transformers", "diffusers", "datasets", "pandas", "duckdb", "matplotlib"}
HEAVY |= {"sklearn", "opacus", "dp_accounting", "gymnasium", "scipy"}
NETS = "generators.nets"  # torch modules: its files may import torch, and are themselves imported inside functions
FILES = [path for floor in MAY_IMPORT for path in sorted((ROOT / floor).rglob("*.py"))]


def imports(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the floor"
            names.append((node.module or "").split(".")[0])
    return names


def top_level(tree: ast.Module) -> list[str]:
    return [name for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom) for name in imports(node)]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    floor = path.relative_to(ROOT).parts[0]
    tree = ast.parse(path.read_text())
    for name in imports(tree):
        if name in MAY_IMPORT:
            assert name == floor or name in MAY_IMPORT[floor], f"{floor}/ may not import {name}/"
        if name == "ray":
            assert floor == "cluster" or path.name == "pack.py", "ray belongs to cluster/ (and to batch work in pack)"
        if name in ("boto3", "botocore"):
            assert path.name == "s3.py", "S3 clients live in records/s3.py"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("pq.read_table", "pq.ParquetFile"):
            assert path.name == "parquet.py", "Parquet files are read through records/parquet.py, which says why"
    if "nets" in path.parts or floor == "evaluation":
        return
    for name in top_level(tree):
        assert name not in HEAVY, f"{name} is heavy: import it inside open()"
        assert name != "evaluation", "evaluation is heavy: import it inside functions"
    for node in tree.body:
        assert not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith(NETS)), f"{NETS} is heavy"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_small_rooms(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 320
