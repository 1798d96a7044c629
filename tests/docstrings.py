"""Real English that is always there: docstrings of Python's standard library, each once, in an order of their own."""

import ast
import hashlib
import json
from functools import lru_cache
from pathlib import Path

FOLDERS = ("", "email", "json", "logging", "asyncio", "importlib", "multiprocessing", "unittest", "xml/sax", "http")


@lru_cache
def docstrings() -> tuple[str, ...]:
    """At least 1,000 of them, of 60 characters or more."""
    root = Path(json.__file__).parent.parent
    found = set()
    for path in (p for folder in FOLDERS for p in sorted((root / folder).glob("*.py"))):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
                found.add(text)
    texts = [t for t in found if len(t) >= 60]
    assert len(texts) >= 1000
    return tuple(sorted(texts, key=lambda t: hashlib.blake2b(t.encode()).digest()))
