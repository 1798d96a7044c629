"""Keys that say how files are read: renamed columns, encodings, and paths beside the recipe."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.jobs.compare.inputs import _texts as compare_texts
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.jobs.recipes.toml_file import load_table
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import DataSpec, data_spec, read_table
from gristmill.records.readers.row_changes import RowChanges
from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.spec import literals
from gristmill.stages.decontaminate.benchmarks import Benchmark
from gristmill.stages.decontaminate.benchmarks import load as load_benchmark
from gristmill.stages.dedup.corpora import open_corpora
from tests.recipes import canned, write
from tests.records.readers.test_answers import lines, of_mixture, put
from tests.records.readers.test_files import rows


def test_renamed_columns(tmp_path: Path) -> None:
    put(
        tmp_path,
        {"a.jsonl": lines({"id": 1, "text": "a", "title": "t"}), "b.parquet": pa.table({"id": [2], "title": ["u"]})},
    )
    spec = SourceSpec(path=str(tmp_path), columns={"key": "id", "text": "title"}, id_column="key", carry=("key",))
    source = open_source(spec)
    source.select({"text"})
    assert [json.loads(text) for _, text in source.rows(0, 2)] == [{"key": 1, "text": "t"}, {"key": 2, "text": "u"}]
    assert [key for key, _ in source.rows(0, 2)] == ["1", "2"]
    assert source.digest() != open_source(SourceSpec(path=str(tmp_path))).digest()
    with pytest.raises(ValueError, match=r'columns = \{ source_id = "id" \}'):
        SourceSpec(path=str(tmp_path), carry=("id",))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_columns_of_folders_can_be_renamed(name: str, tmp_path: Path) -> None:
    contents = {"a.jsonl": lines({"text": "a"}), "a.csv": "text\na\n", "a.parquet": pa.table({"text": ["a"]})}
    put(tmp_path, {f"lang=de/{name}": contents[name]})
    renames = {"columns": {"language": "lang"}}
    assert of_mixture(str(tmp_path), renames) == [{"text": "a", "language": "de"}]
    source = open_source(SourceSpec(path=str(tmp_path), columns=renames["columns"], carry=("language",)))
    assert rows(source) == [{"text": "a", "language": "de"}]
    source.select({"language"})
    assert rows(source)[0]["language"] == "de" and "lang" not in rows(source)[0]
    changes = RowChanges(renames["columns"], (("lang", "de"),))
    assert changes.names(["text"]) == ["text", "language"]
    # A column that a file has, too, is the one that gets the new name, so that a clash has a remedy.
    put(tmp_path, {"n=1/b.jsonl": lines({"n": 2})})
    with pytest.raises(UserError, match=r'columns = \{ file_n = "n" \}'):
        rows(open_source(SourceSpec(path=str(tmp_path))))
    renamed = rows(open_source(SourceSpec(path=str(tmp_path), columns={"file_n": "n"})))
    assert {"file_n": 2, "n": "1"} in renamed


def test_messages_name_only_keys_that_there_are(tmp_path: Path) -> None:
    latin = lines({"text": "\xe9"}).encode("latin-1")
    put(tmp_path, {"x/n=1/a.jsonl": lines({"n": 2, "text": "a"}), "b.jsonl": latin})
    folder, file = str(tmp_path / "x"), str(tmp_path / "b.jsonl")
    readers: dict[str, Callable[[str], object]] = {
        "fit": lambda path: read_table(DataSpec(path)),
        "benchmark": lambda path: list(load_benchmark(Benchmark("b", path))),
        "against": lambda path: open_corpora([path], {})[0].check("text"),
        "compare": lambda path: compare_texts(data_spec(path), "text"),
    }
    for name, read in readers.items():
        with pytest.raises(UserError, match="correct one") as error:
            read(folder)
        assert "columns =" not in str(error.value)
        with pytest.raises(UserError, match="convert the file to UTF-8") as error:
            read(file)
        assert ("encoding =" in str(error.value)) == (name in ("fit", "benchmark"))
    for path in (file, f"{file}#train,holdout=0.001"):
        assert [row["text"] for row in of_mixture(path, {"encoding": "latin-1"})] == ["\xe9"]
    declared = Benchmark("b", file, encoding="latin-1")
    assert [text for _, text in load_benchmark(declared)] == ["\xe9"]
    put(tmp_path, {"c.csv": "text:n\na:1\n"})
    assert [t for _, t in load_benchmark(Benchmark("b", str(tmp_path / "c.csv"), delimiter=":"))] == ["a"]
    assert literals(Benchmark("b", file), identity=True).keys() == {"name", "path", "columns", "id_column"}
    with pytest.raises(ValueError, match="encoding"):
        Benchmark("b", file, encoding="none")


def test_a_clash_with_a_payload_column_names_the_remedy(tmp_path: Path) -> None:
    put(tmp_path, {"a.jsonl": lines({"text": "a"})})
    source = {"path": str(tmp_path / "a.jsonl"), "items": None, "cycle": None, "carry": ["text"]}
    with pytest.raises(UserError, match=r'source.columns = \{ source_text = "text" \}'):
        compile_recipe(load(canned(tmp_path, source=source), ()))


def test_paths_beside_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path / "job", {"rows.jsonl": lines({"text": "beside"})})
    recipe = canned(tmp_path / "job", source={"path": "rows.jsonl", "items": None, "cycle": None})
    put(tmp_path / "here", {"x": ""})
    monkeypatch.chdir(tmp_path / "here")
    assert rows(open_source(load(recipe).source)) == [{"text": "beside"}]
    put(tmp_path / "here", {"rows.jsonl": lines({"text": "here"})})
    with caplog.at_level(logging.INFO):
        assert rows(open_source(load(recipe).source)) == [{"text": "here"}]
    assert "source.path rows.jsonl: taken from the working folder" in caplog.text
    # In lists, in tables of lists, and in the flags of a flow.
    put(tmp_path / "job" / "old", {"a.jsonl": lines({"text": "beside"}), "facts.toml": "", "x": ""})
    put(tmp_path / "here", {"there.jsonl": ""})
    stage = {"kind": "dedup", "against": ["old", "there.jsonl", "old/*.jsonl", "package:help-topics", "none"]}
    benchmarks = {"kind": "decontaminate", "benchmarks": [{"name": "b", "path": "old/a.jsonl"}]}
    flags = {"facts": "old/facts.toml", "without": "old/x", "format": "old"}
    steps = [{"name": "p", "flags": flags, "recipe": {"stages": [stage], "facts": "old/facts.toml"}}]
    write(tmp_path / "job" / "any.toml", {"stages": [stage, benchmarks], "steps": steps, "items": [{"path": "old"}]})
    table, folder = load_table(str(tmp_path / "job" / "any.toml")), str(tmp_path / "job") + "/"
    against = [f"{folder}old", "there.jsonl", f"{folder}old/*.jsonl", "package:help-topics", "none"]
    assert table["stages"][0]["against"] == table["steps"][0]["recipe"]["stages"][0]["against"] == against
    assert table["stages"][1]["benchmarks"][0]["path"] == f"{folder}old/a.jsonl"
    absolute = {"facts": f"{folder}old/facts.toml", "without": f"{folder}old/x", "format": "old"}
    assert table["steps"][0]["flags"] == absolute and table["items"] == [{"path": "old"}]
    assert table["steps"][0]["recipe"]["facts"] == "old/facts.toml"  # no key of a recipe
