"""A thousand real documents that every environment has: Python's help topics, and long docstrings of its packages."""

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

MIN_CHARS = 600
PACKAGES = ("numpy/lib", "scipy/stats", "sklearn/linear_model", "pandas/core")


def real_texts(num: int = 1000) -> list[str]:
    """The first `num` of them, in a fixed order; the packages are those of the lock files."""
    texts = [topics[name] for name in sorted(topics)]
    for text in _docstrings():
        if len(texts) == num:
            break
        texts.append(text)
    return texts


def _docstrings() -> Iterator[str]:
    packages = Path(sysconfig.get_path("purelib"))
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    for name in PACKAGES:
        files += sorted((packages / name).glob("*.py"))
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                if len(text) > MIN_CHARS:
                    yield text
