"""mlcroissant reads from every kind of release the rows that the shards hold, and has nothing to warn of."""

import datetime
import decimal
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from gristmill.cluster.shuffle import ShardFile
from gristmill.jobs.release import run as release_run
from gristmill.jobs.release.command import command as pack
from gristmill.jobs.release.croissant import croissant
from gristmill.jobs.release.facts import Facts, ReleaseSpec
from gristmill.jobs.release.formats import FORMATS
from gristmill.records.output.manifest import load
from gristmill.records.printable import json_text
from gristmill.records.schema import IMAGE
from gristmill.records.stores.opening import open_store
from tests.batch_here import batch_work_here
from tests.jobs.release.mixture.test_mixture import by_hand, make_run, text
from tests.jobs.release.reading_back import assert_card, assert_read_back
from tests.recipes import write

RECIPE = {"generator": {"kind": "canned"}, "method": None, "stages": []}
NAMES = (
    "a/b a.b a_b a%20b a%b a'b a\"b a\\b \u00e4 a\u0308 数据 😀 where $['a'] a:b #a ?a=b <a> @id rows index 1 -".split(
        " "
    )
)
NAMES += [" ", "a b", "A b", " a", "a ", "a\nb", "a\tb"]
ODD = st.sampled_from(NAMES) | st.text(min_size=1, max_size=6).filter(lambda name: "\0" not in name and "*" not in name)
SCALARS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), st.text(max_size=5)),
    (pa.binary(), st.binary(max_size=5)),
    (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    (pa.uint8(), st.integers(0, 255)),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.float32(), st.floats(width=32, allow_nan=False)),
    (pa.bool_(), st.booleans()),
    (pa.date32(), st.dates(datetime.date(1800, 1, 1), datetime.date(2200, 1, 1))),
    (pa.timestamp("us"), st.datetimes(datetime.datetime(1800, 1, 1), datetime.datetime(2200, 1, 1))),
    (pa.time64("us"), st.times()),
]


SHAPES = ["plain", "list", "struct", "structs"]


@st.composite
def kinds(draw: st.DrawFn, depth: int = 2, is_column: bool = True) -> tuple[pa.DataType, st.SearchStrategy[Any]]:
    """A type that Croissant can express, and its values."""
    kind, values = draw(st.sampled_from(SCALARS))
    shape = draw(st.sampled_from(SHAPES[: None if is_column else -1])) if depth else "plain"
    if shape == "list":
        return pa.list_(kind), st.lists(st.none() | values if pa.types.is_string(kind) else values, max_size=3)
    if shape in ("struct", "structs"):
        names = draw(st.lists(ODD, min_size=1, max_size=3, unique=True))
        inner = [draw(kinds(0 if shape == "structs" else depth - 1, is_column=False)) for _ in names]
        struct = pa.struct([pa.field(name, kind) for name, (kind, _) in zip(names, inner)])
        value = st.fixed_dictionaries({name: st.none() | values for name, (_, values) in zip(names, inner)})
        return (struct, value) if shape == "struct" else (pa.list_(struct), st.lists(value, max_size=3))
    return kind, values


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    names = draw(st.lists(ODD.filter(lambda name: name != "id"), min_size=1, max_size=4, unique=True))
    num = draw(st.integers(1, 4))
    columns = {"id": pa.array([f"{i:032x}" for i in range(num)])}
    for name in names:
        kind, values = draw(kinds())
        is_whole = pa.types.is_integer(kind)  # pandas holds whole numbers beside nulls as floats
        columns[name] = pa.array(
            draw(st.lists(values if is_whole else st.none() | values, min_size=num, max_size=num)), kind
        )
    return pa.table(columns)


def release_of(folder: Path, table: pa.Table) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "train-00000-of-00001.parquet"
    pq.write_table(table, path)
    shard = ShardFile(path.name, table.num_rows, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    facts = Facts("a name", "A text.", "f00d", ("a",), ReleaseSpec(license="mit"), "2026-01-31", ())
    (folder / "croissant.json").write_text(json_text(croissant(facts, [shard], table.schema)))
    return folder


@given(table=tables())
@settings(
    max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate]
)
def test_odd_names_and_nested_values_are_read_back(
    table: pa.Table, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    assert_read_back(release_of(tmp_path_factory.mktemp("release"), table), caplog)


def test_every_odd_name_is_another_field(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    struct = pa.struct([pa.field(name, pa.int64()) for name in NAMES])
    values = dict(zip(NAMES, range(len(NAMES))))
    columns = {name: [str(number), None] for number, name in enumerate(NAMES)}
    nested = {"struct": pa.array([values, values], struct), "structs": pa.array([[values] * 2, []], pa.list_(struct))}
    views = pa.array([[{"bytes": png(1), "path": None}] * 2, None], pa.list_(IMAGE))
    table = pa.table({"id": ["a", "b"], **columns, **nested, "views": views})
    assert_read_back(release_of(tmp_path / "r", table), caplog)


def test_what_croissant_cannot_express_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    deep = pa.list_(pa.struct([("a", pa.list_(pa.struct([("b", pa.int64())]))), ("c", pa.int64())]))
    table = pa.table({
        "id": ["a"],
        "": ["no name"],
        "took": pa.array([datetime.timedelta(1)]),
        "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        "matrix": pa.array([[[{"a": 1}]]], pa.list_(pa.list_(pa.struct([("a", pa.int64())])))),
        "deep": pa.array([[{"a": [{"b": 1}], "c": 2}]], deep),
        "price": pa.array([decimal.Decimal("1.50")]),
        "kind": pa.array(["x"]).dictionary_encode(),
        "json": pa.array(["{}"], pa.json_()),
        "vectors": pa.array([[[1.0, 2.0]]]),
        "fixed": pa.array([[1, 2]], pa.list_(pa.int64(), 2)),
        "nothing": pa.nulls(1),
    })  # fmt: skip
    folder = release_of(tmp_path / "r", table)
    (rows,) = json.loads((folder / "croissant.json").read_text())["recordSet"]
    for name in ("took (duration", "map (map", "matrix (list", "deep.a (list", " (string"):
        assert name in rows["description"]
    assert {field["name"] for field in rows["field"]} == {
        *("id", "deep", "price", "kind", "json", "vectors", "fixed", "nothing")
    }
    flat = table.drop_columns(["deep", "price", "kind", "fixed"])
    assert_read_back(release_of(tmp_path / "flat", flat), caplog, ("", "took", "map", "matrix"))


def png(number: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.full((4, 5, 3), number, np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def run_of(kind: str, folder: Path, texts: list[str] | None = None) -> str:
    texts = texts or [text(i) for i in range(30)]
    ids = range(len(texts))
    columns: dict[str, list[Any]] = {}
    if kind == "dialogues":
        answer = {"role": "assistant", "content": "yes"}
        columns["messages"] = [[{"role": "user", "content": t}, answer] for t in texts]
    elif kind == "text":
        names = ("instruction", "input", "output", "system", "prompt", "chosen", "rejected")
        columns = {name: [f"{name} {i}" for i in ids] for name in names}
    elif kind == "images":
        columns["image"] = [pa.scalar({"bytes": png(i), "path": None}, IMAGE) for i in ids]
        columns["boxes"] = [[{"x": i, "name": "b"}] * (i % 3) for i in ids]
    elif kind == "table":
        columns = {"age": [i if i % 5 else None for i in ids], "hours per week": [i / 3 for i in ids]}
        columns |= {"native-country": [None if i % 7 else "N/A" for i in ids], "series": [[1.5] * (i % 3) for i in ids]}
    run = make_run(folder, texts, **columns)
    manifest = load(open_store(run))
    assert manifest is not None
    release = {"license": ["mit", "0BSD"], "languages": ["en", "pt-br"], "task": "question-answering"}
    release |= {"homepage": "https://example.org/a", "title": "A: title", "contact": "a@example.org"}
    manifest.recipe.update(RECIPE, release=release, source={"path": "corpus/", "license": "cc-by-4.0"})
    manifest.begin()
    manifest.state = "complete"
    manifest.save(open_store(run))
    return run


FORMATS_OF = {"text": FORMATS, "dialogues": ("rows", "messages"), "images": ("rows",), "table": ("rows",)}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in FORMATS_OF.items() for name in names])
def test_a_release_of_a_run_is_read_back(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(release_run, "batch_work", batch_work_here)
    run = run_of(kind, tmp_path / "run")
    assert pack(run, str(tmp_path / "release"), 1, format_name=name) == 0
    assert assert_read_back(tmp_path / "release", caplog).num_rows == 30
    front = assert_card(tmp_path / "release")
    assert front["language"] == ["en", "pt"] and front["task_categories"] == ["question-answering"]


def test_few_large_rows_leave_empty_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(release_run, "batch_work", batch_work_here)
    run = run_of("text", tmp_path / "run", [np.random.default_rng(i).bytes(600_000).hex() for i in range(3)])
    for seed in range(3):
        folder = tmp_path / str(seed)
        assert pack(run, str(folder), 1, seed) == 0
        assert assert_read_back(folder, caplog).num_rows == 3 and assert_card(folder)
    sizes = [pq.read_metadata(path).num_rows for path in tmp_path.glob("?/train-*")]
    assert 0 in sizes


def test_a_release_of_a_mixture_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    by_hand(monkeypatch)
    run = run_of("text", tmp_path / "run")
    calls = [{"id": "c", "function": {"name": "f", "arguments": {"a b": 1}}}]
    real = {"text": [text(100 + i) for i in range(60)], "a b/c": list(range(60)), "calls": [calls] * 60}
    pq.write_table(pa.table(real), tmp_path / "real.parquet")
    parts = [{"name": "web", "path": str(tmp_path / "real.parquet"), "license": "CC0-1.0"}, {"uri": run}]
    payload = ["text", "a b/c", "calls", "system"]
    keys = {"name": "mix", "synthetic_max": 0.5, "shortfall": "resample", "payload": payload, "parts": parts}
    assert pack(write(tmp_path / "mix.toml", keys), str(tmp_path / "release"), 1) == 0
    table = assert_read_back(tmp_path / "release", caplog)
    assert "language" not in assert_card(tmp_path / "release")
    assert {"a b/c", "calls", "mixture_part", "mixture_tokens"} <= set(table.column_names)
    card = (tmp_path / "release" / "README.md").read_text()
    assert "| web | cc0-1.0 |" in card and "| run | mit, 0BSD |" in card and "\nlicense: unknown\n" in card
