"""Real English to measure on: the sentences of CPython's own documentation, in seeded order.

The text is what every Python installation carries (`pydoc_data.topics` and docstrings of the standard library), so a
benchmark needs no download, and its words, word lengths and punctuation are those of real prose.
"""

import ast
import re
import sysconfig
from functools import lru_cache
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pyarrow as pa

MODULES = """
argparse asyncio.events asyncio.streams calendar cmd collections configparser contextlib csv ctypes datetime decimal
difflib doctest email.message enum fractions functools glob heapq http.client imaplib inspect io ipaddress logging
mailbox mimetypes multiprocessing.pool optparse os pathlib pdb pickle platform pprint random sched shutil smtplib
socket socketserver ssl statistics string subprocess tarfile tempfile textwrap threading timeit tkinter traceback
turtle typing unittest.case unittest.mock urllib.request uuid warnings wave weakref zipfile ).split(
"""


@lru_cache(maxsize=1)
def sentences() -> tuple[str, ...]:
    """Distinct ASCII sentences of 6 to 80 words, in source order (several thousand, a few hundred kilobytes)."""
    texts = [topics[name] for name in sorted(topics)]
    library = Path(sysconfig.get_path("stdlib"))
    for module in MODULES.split():
        stem = library / module.replace(".", "/")
        source = stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")
        if not source.exists():
            continue  # a trimmed Python lacks some, e.g. tkinter
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                texts.append(ast.get_docstring(node) or "")
    found: dict[str, None] = {}
    for text in texts:
        for paragraph in re.split(r"\n\s*\n", text):
            for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
                words = re.findall(r"\b[A-Za-z]+\b", sentence)
                # Prose only: grammar rules, tables and doctests have more signs than letters.
                prose = 6 <= len(words) <= 80 and sum(map(len, words)) > 0.7 * len(sentence) and ">>>" not in sentence
                if prose and sentence.isascii() and sentence[0].isupper() and sentence[-1] in ".!?":
                    found[sentence] = None
    return tuple(found)


def documents(num: int, num_bytes: int = 2048, seed: int = 0) -> pa.StringArray:
    """`num` distinct English documents of exactly `num_bytes` ASCII bytes each: sentences in seeded random order.

    The same (num_bytes, seed) gives the same documents, and a smaller `num` is a prefix of a larger one. Two documents
    share sentences only by chance (0.002 of Jaccard similarity over word 5-grams on average), so near duplicates are
    as good as absent.
    """
    pool = np.array(sentences(), dtype=object)
    lengths = np.array([len(s) + 1 for s in pool])
    rng = np.random.default_rng(seed)
    documents, room = [], num_bytes + 1
    per_draw = int(room / lengths.mean() * 1.5) + 4
    for _ in range(num):
        picks: list[int] = []
        size = 0
        while size < room:
            draw = rng.choice(len(pool), per_draw)
            picks.extend(draw)
            size += int(lengths[draw].sum())
        ends = np.cumsum(lengths[picks])
        text = " ".join(pool[picks[: int(np.searchsorted(ends, room)) + 1]])
        documents.append(text[:num_bytes])
    return pa.array(documents, pa.string())


if __name__ == "__main__":
    sample = documents(1000)
    print(
        len(sentences()), "sentences;", sum(map(len, sentences())), "bytes;", sample.nbytes / len(sample), "bytes a row"
    )
    print(sample[0])
