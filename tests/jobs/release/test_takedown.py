"""A release without the rows of a take-down list, and without rows made from them."""

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.jobs.audit.command import command as audit
from gristmill.jobs.produce.inputs import pin_source
from gristmill.jobs.release import run as plain_pack
from gristmill.jobs.release.command import command as pack
from gristmill.jobs.release.mixture import files as mixture_files
from gristmill.jobs.release.mixture import pack as mixture_pack
from gristmill.jobs.release.mixture.parts import open_part
from gristmill.jobs.release.mixture.spec import PartSpec
from gristmill.jobs.release.takedown.listing import read_listing
from gristmill.jobs.release.takedown.upstream import upstream_of
from gristmill.records.errors import Refused, UserError
from gristmill.records.output.manifest import Manifest
from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.stores.local import LocalStore
from gristmill.records.stores.opening import open_store
from tests.batch_here import batch_work_here
from tests.jobs.release.small_runs import LOT, ids_of_run, make_run, pack_without, released
from tests.profiles import scaled
from tests.recipes import write


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture_pack, "batch_work", batch_work_here)
    monkeypatch.setattr(plain_pack, "batch_work", batch_work_here)


@settings(max_examples=scaled(8), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_release_lacks_what_the_list_reaches(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Three runs, each made of the one before, against a search of the whole graph."""
    folder = tmp_path_factory.mktemp("chain")
    sizes = [data.draw(st.integers(1, 18), label=name) for name in "abc"]
    ids = [ids_of_run(name, size) for name, size in zip("abc", sizes)]
    by_id = data.draw(st.booleans(), label="the later run reads ids")
    parents: dict[str, set[str]] = {}
    for at, name in enumerate("abc"):
        sources, examples, others = [], [], list[str | None]()
        for row, row_id in enumerate(ids[at]):
            first = row // LOT * LOT  # rows of earlier lots are there
            kind = data.draw(st.sampled_from(["source", "earlier"] if first else ["source"]))
            if kind == "earlier":
                parent = source = data.draw(st.sampled_from(ids[at][:first]))
            elif at == 0:
                parent = source = f"doc {data.draw(st.integers(0, 9))}"
            else:
                number = data.draw(st.integers(0, len(ids[at - 1]) - 1))
                parent = ids[at - 1][number]
                place = f"part-{number // LOT:08d}.parquet:{number % LOT}"
                source = parent if by_id else data.draw(st.sampled_from([place, f"kept/{place}"]))
            shown = data.draw(st.lists(st.sampled_from(ids[at][:first]), max_size=2)) if first else []
            sources.append(source)
            examples.append(shown)
            other = data.draw(st.sampled_from([None, *(f"doc {n}" for n in range(10))]) if at == 0 else st.none())
            others.append(other)
            parents[row_id] = {parent, *shown, *([other] if other else [])}
        before = {"path": str(folder / "abc"[at - 1] / data.draw(st.sampled_from(["", "kept"])))} if at else {}
        make_run(folder / name, sources, examples, others, source=before)
    known = [*ids[0], *ids[1], *ids[2], *(f"doc {n}" for n in range(10))]
    listed = data.draw(st.lists(st.sampled_from([*known, "nothing", "digest of a"]), min_size=1, max_size=4))

    gone = set(listed) | (set(ids[0]) if "digest of a" in listed else set())
    while more := {row for row, of in parents.items() if row not in gone and of & gone}:
        gone |= more
    (folder / "list.txt").write_text("\n".join(listed))
    parts = [{"uri": str(folder / name)} for name in "abc"]
    mix = write(folder / "mix.toml", {"name": "m", "synthetic_max": 1.0, "parts": parts})
    for to, source, rows in (("plain", str(folder / "c"), ids[2]), ("mix", mix, [i for each in ids for i in each])):
        expected = {row for row in rows if row not in gone}
        release = folder / to
        if not expected or (to == "mix" and any(not set(each) - gone for each in ids)):
            with pytest.raises(UserError, match="take"):
                pack(source, str(release), without=str(folder / "list.txt"))
            continue
        pack(source, str(release), without=str(folder / "list.txt"))
        assert released(release) == expected
        facts = json.loads((release / "takedown.json").read_text())
        assert facts["rows_listed"] + facts["rows_made_from_them"] == len(rows) - len(expected)
        published = "".join(path.read_text() for path in release.glob("*") if not path.name.startswith("train-"))
        assert not any(value in published for value in listed if value != "nothing")
        assert audit(str(release)) == 0


def test_the_audit_finds_a_row_that_came_back(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    ids = ids_of_run("run", 12)
    make_run(tmp_path / "run", [f"doc {n}" for n in range(6)] + ids[:6])
    (tmp_path / "list.csv").write_text("note,source_id\nx,doc 3\ny,never there\n")
    release = tmp_path / "release"
    for form in ("rows", "text"):
        to = tmp_path / f"release-{form}"
        pack(str(tmp_path / "run"), str(to), without=str(tmp_path / "list.csv"), format_name=form)
        assert released(to) == set(ids) - {ids[3], ids[9]}
        assert audit(str(to)) == 0
    release = tmp_path / "release-rows"
    card = (release / "README.md").read_text()
    assert "1 rows that it names, and 1 rows that" in card and "doc 3" not in card
    pack(str(tmp_path / "run"), str(tmp_path / "whole"))
    shard = next((tmp_path / "whole").glob("train-*"))
    for name in (shard.name, "croissant.json"):
        (release / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    capsys.readouterr()
    assert audit(str(release)) == 1
    assert "should have been left out" in capsys.readouterr().out


def test_lists(tmp_path: Path) -> None:
    rows = {"a.txt": "\ufeffone\n\n two \r\none\n", "b.jsonl": '{"id": "one"}\n"two"\n', "c.csv": "id\none\n\ntwo\n"}
    for name, text in rows.items():
        (tmp_path / name).write_text(text, newline="")
        assert [value for value, _ in read_listing(str(tmp_path / name)).entries] == ["one", "two"], name
    bad = {
        "d.jsonl": ('{"row": 1}', "line 1 has none of the columns"),
        "e.jsonl": ("{", "line 1 is not JSON"),
        "f.csv": ("row\n1\n", "names none of the columns id, source_id, source_digest"),
        "g.txt": (" \n", "it lists nothing"),
    }
    for name, (text, message) in bad.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=message):
            read_listing(str(tmp_path / name))
    with pytest.raises(UserError, match="no such file"):
        read_listing(str(tmp_path / "absent.txt"))


def test_data_files_of_a_mixture(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    lines = [{"text": f"a page about number {n}", "url": f"u{n}"} for n in range(20)]
    (tmp_path / "web" / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    parts = [{"path": str(tmp_path / "web"), "id_column": "url"}]
    mix = write(tmp_path / "mix.toml", {"name": "m", "synthetic_max": 0.0, "parts": parts})
    (tmp_path / "list.txt").write_text("u3\nu7\nu99\n")
    pack(mix, str(tmp_path / "release"), without=str(tmp_path / "list.txt"))
    rows = [row for path in (tmp_path / "release").glob("train-*") for row in pq.read_table(path).to_pylist()]
    assert {row["source_id"] for row in rows} == {f"u{n}" for n in range(20)} - {"u3", "u7"}
    facts = json.loads((tmp_path / "release" / "mixture.json").read_text())
    assert facts["takedown"]["unmatched"] == 1 and facts["takedown"]["rows_listed"] == 2
    assert audit(str(tmp_path / "release")) == 0


def test_files_by_their_digest(tmp_path: Path) -> None:
    for name in "ab":
        lines = [f'{{"text": "page {name} {number}"}}\n' for number in range(6)]
        (tmp_path / "web").mkdir(exist_ok=True)
        (tmp_path / "web" / f"{name}.jsonl").write_text("".join(lines))
    digest = hashlib.sha256((tmp_path / "web" / "b.jsonl").read_bytes()).hexdigest()
    (tmp_path / "list.jsonl").write_text(json.dumps({"source_digest": digest.upper()}))
    sources = [f"{name}.jsonl:{number}" for name in "ab" for number in range(6)]
    make_run(tmp_path / "run", sources, source={"path": str(tmp_path / "web")})
    part = {"path": str(tmp_path / "web")}
    mix = write(tmp_path / "mix.toml", {"name": "m", "synthetic_max": 0.0, "parts": [part]})
    for source, to in ((str(tmp_path / "run"), tmp_path / "plain"), (mix, tmp_path / "mix")):
        pack(source, str(to), without=str(tmp_path / "list.jsonl"))
        rows = [row for path in to.glob("train-*") for row in pq.read_table(path).to_pylist()]
        assert len(rows) == 6 and all(row["source_id"].startswith("a.jsonl:") for row in rows)
        facts = json.loads((to / "takedown.json").read_text())
        assert facts["rows_listed"] == 6 and facts["unmatched"] == 0 and facts["matched"]["source_digest"] == 1
        assert audit(str(to)) == 0
    (tmp_path / "web").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="put them back"):
        pack(str(tmp_path / "run"), str(tmp_path / "third"), without=str(tmp_path / "list.jsonl"))
    (tmp_path / "elsewhere").rename(tmp_path / "web")
    make_run(tmp_path / "named", ["x"] * 3, source={"path": str(tmp_path / "web"), "id_column": "url"})
    with pytest.raises(UserError, match="does not say which rows are of the file"):
        pack(str(tmp_path / "named"), str(tmp_path / "other"), without=str(tmp_path / "list.jsonl"))


def test_rows_that_do_not_state_their_examples(tmp_path: Path) -> None:
    make_run(tmp_path / "old", [f"doc {n}" for n in range(8)], rounds={"num": 2, "lots": 1})
    (tmp_path / "list.txt").write_text("doc 1\n")
    with pytest.raises(UserError, match="do not state the examples"):
        pack(str(tmp_path / "old"), str(tmp_path / "release"), without=str(tmp_path / "list.txt"))


def test_a_source_of_several_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "ab":
        make_run(tmp_path / "runs" / name, [f"doc {name}{n}" for n in range(7)])
    places = [f"{name}/kept/part-{n // LOT:08d}.parquet:{n % LOT}" for name in "ab" for n in range(7)]
    for number, path in enumerate(("runs", "runs/*/kept/*.parquet")):
        source = open_source(SourceSpec(path=str(tmp_path / path)))
        assert [source_id for source_id, _ in source.rows(0, 14)] == places
        manifest = Manifest("f", {}, {})
        pin_source(manifest, source)
        for upstream in (None, manifest.inputs["source"]["upstream"]):
            name = f"c{number}{upstream is None}"
            make_run(tmp_path / name, places, upstream=upstream, source={"path": str(tmp_path / path)})
            ids = ids_of_run(name, 14)
            expected = {row for place, row in zip(places, ids) if place != places[9]}
            if upstream is None:  # where the run does not record it, names of files may be without folders
                assert ids[9] not in pack_without(tmp_path / name, tmp_path / f"{name}-to", "doc b2")
            else:
                assert pack_without(tmp_path / name, tmp_path / f"{name}-to", "doc b2") == expected

    pack(str(tmp_path / name), str(tmp_path / "released"))
    mix = write(
        tmp_path / "mix.toml", {"name": "m", "synthetic_max": 1.0, "parts": [{"uri": str(tmp_path / "released")}]}
    )
    pack_without(mix, tmp_path / "mix-to", "doc b2")
    assert "instead of its release" in caplog.text
    (tmp_path / "runs" / "web.jsonl").write_text('{"text": "page"}\n')
    digest = hashlib.sha256((tmp_path / "runs" / "web.jsonl").read_bytes()).hexdigest()
    make_run(tmp_path / "d", [*places[:3], "web.jsonl:0"], source={"path": str(tmp_path / "runs")})
    assert pack_without(tmp_path / "d", tmp_path / "d-to", digest, "doc a0") == {*ids_of_run("d", 4)[1:3]}


def test_a_run_that_moved_is_missed_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "a", [f"doc {n}" for n in range(7)])
    places = [f"kept/part-{n // LOT:08d}.parquet:{n % LOT}" for n in range(7)]
    monkeypatch.chdir(tmp_path)
    manifest = Manifest("f", {}, {})
    pin_source(manifest, open_source(SourceSpec(path="a")))
    upstream = manifest.inputs["source"]["upstream"]
    assert [Path(entry["address"]) for entry in upstream] == [tmp_path / "a"]
    ids = ids_of_run("b", 7)
    make_run(tmp_path / "b", places, upstream=upstream, source={"path": "a"})
    make_run(tmp_path / "old" / "b", places, source={"path": "a"})
    make_run(tmp_path / "other" / "b", places, source={"path": "docs"})  # in the working folder, another corpus
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "c.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(UserError, match="put it back"):
        pack_without("other/b", tmp_path / "other" / "to", "doc 3")
    make_run(tmp_path / "named" / "b", ["x"] * 7, upstream=upstream, source={"path": "a", "id_column": "text"})
    make_run(tmp_path / "plain" / "b", [f"{place[5:]}" for place in places], source={"path": "plain/data"})
    (tmp_path / "plain" / "data").mkdir()
    (tmp_path / "moved").mkdir()
    pq.write_table(pa.table({"text": ["x"] * 5}), tmp_path / "plain" / "data" / "part-00000000.parquet")
    assert pack_without("plain/b", tmp_path / "plain" / "to", ids[2]) == {*ids} - {ids[2]}
    with pytest.raises(UserError, match='id_column = "id"'):
        pack_without("named/b", tmp_path / "named" / "to", "doc 3")
    monkeypatch.chdir(tmp_path / "named")
    assert pack_without(tmp_path / "b", tmp_path / "to", "doc 3") == {*ids} - {ids[3]}
    with pytest.raises(UserError, match="put it back"):
        pack_without(tmp_path / "old" / "b", tmp_path / "old" / "to", "doc 3")
    for name in "ab":
        (tmp_path / name).rename(tmp_path / "moved" / name)
    assert pack_without(tmp_path / "moved" / "b", tmp_path / "moved" / "to", "doc 3") == {*ids} - {ids[3]}
    step = Manifest("f", {"source": {"path": "gone"}}, {})
    step.inputs = {"source": {"way": "step", "step": "a", "fingerprint": upstream[0]["fingerprint"]}}
    ((place, _),) = upstream_of(step, open_store(str(tmp_path / "moved" / "b"))).stores
    assert place.uri == str(tmp_path / "moved" / "a")
    with pytest.raises(UserError, match="put it back"):
        upstream_of(step, open_store("elsewhere/b"))
    (tmp_path / "moved" / "b").rename(tmp_path / "b")
    (tmp_path / "moved" / "a").rename(tmp_path / "c")
    with pytest.raises(UserError, match="put it back"):
        pack_without(tmp_path / "b", tmp_path / "to-2", "doc 3")
    (tmp_path / "c").rename(tmp_path / "a")
    (tmp_path / "a" / "manifest.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    for name in ("b", "old/b"):
        with pytest.raises(UserError, match="manifest.json"):
            pack_without(tmp_path / name, tmp_path / "to-3", "doc 3")
    monkeypatch.setattr(LocalStore, "read_if_there", raises(Refused("403: these keys may not read a")))
    for name in ("b", "old/b"):
        with pytest.raises(UserError, match="403"):
            source = Manifest("f", {"source": {"path": "a"}}, {}, inputs={"source": {"upstream": upstream}})
            upstream_of(replace(source, inputs={} if name == "old/b" else source.inputs), open_store(name))


def raises(error: Exception) -> Any:
    def method(*_: Any) -> None:
        raise error

    return method


@settings(max_examples=scaled(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.sampled_from(["", "   ", "a", "é b", "c" * 30]), min_size=1, max_size=30),
    ending=st.sampled_from([".jsonl", ".txt", ".jsonl.gz"]),
    range_bytes=st.integers(1, 60),
    end=st.sampled_from(["", "\n"]),
)
def test_a_source_id_is_the_same_row_in_a_run_and_in_a_mixture(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], ending: str, range_bytes: int, end: str
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    is_json = "json" in ending
    texts = [json.dumps({"text": line} if line != "a" else {}) if is_json and line.strip() else line for line in lines]
    data = ("\n".join([*texts, '{"text": "end"}' if is_json else "end"]) + end).encode()
    (folder / f"c{ending}").write_bytes(gzip.compress(data) if ending.endswith("gz") else data)
    source = open_source(SourceSpec(path=str(folder / f"c{ending}")))
    expected = [(row, json.loads(text).get("text")) for row, text in source.rows(0, source.num_rows)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixture_files, "LINE_BYTES", range_bytes)
        part = open_part(PartSpec(path=str(folder / f"c{ending}")))
        batches = [batch for chunk in part.chunks for batch in part.read(chunk, part.schema)]
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert [(row["source_id"], row.get("text")) for row in rows] == expected
    assert len({row["id"] for row in rows}) == len(rows)


def test_the_estimate_of_memory_does_not_depend_on_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "run", [f"doc {n}" for n in range(12)])
    amounts: list[float] = []
    monkeypatch.setattr(plain_pack, "NUM_WEIGHED", 1)
    monkeypatch.setattr(plain_pack, "num_windows", lambda num_bytes, _: amounts.append(num_bytes) or 1)
    pack(str(tmp_path / "run"), str(tmp_path / "whole"))
    rows = pack_without(tmp_path / "run", tmp_path / "to", *ids_of_run("run", 12)[:LOT])
    assert amounts[0] == amounts[1] > 0 and len(rows) == 7
    assert "7 rows" in json.loads((tmp_path / "to" / "croissant.json").read_text())["keywords"]
    assert "| kept | 7 |" in (tmp_path / "to" / "README.md").read_text()
