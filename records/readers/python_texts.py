"""Real English text in every Python: the topics of its help, and the docstrings of its standard library.

Both change with the version of Python, so compare the digests of the rows when you compare studies.
"""

import ast
import re
import sysconfig
import warnings
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

RULE = re.compile(r"^[\s=\-+|*~^]*$")  # lines of tables
MIN_DOCSTRING = 200  # characters; shorter docstrings are mostly names and signatures
LEFT_OUT = ("site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip")


def help_topics() -> pa.Table:
    """`name` and `text` of each topic of pydoc, in the order of names, without blank lines and lines of tables."""
    from pydoc_data.topics import topics

    texts = ["\n".join(line for line in topics[n].splitlines() if not RULE.match(line)) for n in sorted(topics)]
    return pa.table({"name": sorted(topics), "text": texts})


@lru_cache(maxsize=1)  # parsing the library takes seconds
def docstrings() -> pa.Table:
    """`name` (module and object) and `text` of the longer docstrings of the standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    names, texts = [], []
    for path in sorted([*root.glob("*.py"), *root.glob("*/*.py")]):
        place = path.relative_to(root).with_suffix("")
        if set(place.parts[:-1]) & set(LEFT_OUT):
            continue
        for name, text in _docstrings_of(path):
            names.append(".".join((*place.parts, name)).rstrip("."))
            texts.append(text)
    return pa.table({"name": names, "text": texts})


def _docstrings_of(path: Path) -> list[tuple[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid escapes in old modules
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):
            return []  # templates and files in other encodings
    docstrings = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and len(text) >= MIN_DOCSTRING:
                docstrings.append(("" if isinstance(node, ast.Module) else node.name, text))
    return docstrings
