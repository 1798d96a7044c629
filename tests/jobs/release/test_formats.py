"""Formats of a release: every row once, its words as they were, in the shape that trainers load."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gristmill.cluster.shuffle import PLACE, SHARD, Layout, shard_writer, shuffle_keys, with_target
from gristmill.jobs import verbs
from gristmill.jobs.audit.command import command as audit
from gristmill.jobs.release import formats
from gristmill.jobs.release.command import command as pack
from gristmill.jobs.release.dialogues import DIALOGUE
from gristmill.jobs.release.format_card import format_section
from gristmill.jobs.release.formats import FORMATS, find_format, format_of_schema
from gristmill.jobs.release.mixture.parts import open_part
from gristmill.jobs.release.mixture.spec import PartSpec
from gristmill.records.errors import UserError
from gristmill.records.stores.opening import open_store
from tests.conftest import gristmill
from tests.jobs.release.mixture.test_mixture import by_hand, make_run, release_rows, text
from tests.jobs.release.reading_back import assert_read_back
from tests.recipes import write

WORDS = st.text(max_size=12)
MADE = [name for name in FORMATS if name != "rows"]
TURN = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": WORDS})


def table_of(**columns: list[Any]) -> pa.Table:
    num = len(next(iter(columns.values())))
    ids = [f"{i:032x}" for i in range(num)]
    kinds = {"messages": DIALOGUE}
    return pa.table({"id": ids, **{n: pa.array(v, kinds.get(n, pa.string())) for n, v in columns.items()}})


def said(talk: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in talk]


@st.composite
def instructions(draw: st.DrawFn) -> pa.Table:
    num = draw(st.integers(0, 6))
    some, maybe = st.lists(WORDS, min_size=num, max_size=num), st.none() | WORDS
    columns = {name: draw(some) for name in ("instruction", "output", "chosen", "rejected", "text")}
    for name in ("input", "system"):
        if draw(st.booleans()):
            columns[name] = draw(st.lists(maybe, min_size=num, max_size=num))
    return table_of(**columns)


@given(instructions(), st.integers(0, 6))
def test_words_are_kept_row_by_row(table: pa.Table, cut: int) -> None:
    for name in MADE:
        row_format = find_format(name, table.schema)
        assert row_format is not None
        made = row_format.convert(table)
        assert made.schema.equals(row_format.schema, check_metadata=True) and format_of_schema(made.schema) == name
        assert made.column("id").to_pylist() == table.column("id").to_pylist()
        # a row's format does not depend on the rows beside it, nor on how the table lies in memory
        whole = pa.concat_tables([row_format.convert(table.slice(0, cut)), row_format.convert(table.slice(cut))])
        assert whole.equals(made)
        for before, after in zip(table.to_pylist(), made.to_pylist()):
            given_, system = before.get("input") or "", before.get("system") or ""
            question = before["instruction"] + (f"\n\n{given_}" if given_ else "")
            opening = [("system", system)] if system else []
            opening += [("user", question)]
            match name:
                case "messages":
                    assert said(after["messages"]) == [*opening, ("assistant", before["output"])]
                case "preference":
                    assert said(after["prompt"]) == opening
                    assert said(after["chosen"]) == [("assistant", before["chosen"])]
                    assert said(after["rejected"]) == [("assistant", before["rejected"])]
                case "alpaca":
                    assert after["instruction"] == before["instruction"] and after["output"] == before["output"]
                    assert after["input"] == given_ and after.get("system", "") == system
                case "text":
                    assert after["text"] == before["text"]
                case "prompt-completion":
                    plain = f"{system}\n\n{question}" if system else question
                    assert after["prompt"] in (plain, plain + "\n\n") and after["completion"] == before["output"]
                    assert after["prompt"] == plain + "\n\n" or plain[-1:].isspace()


@given(st.lists(st.tuples(st.lists(TURN, min_size=1, max_size=4), st.none() | WORDS), max_size=5))
def test_dialogues_keep_their_turns_and_get_one_system_message(rows: list[tuple[list[dict[str, str]], Any]]) -> None:
    table = table_of(messages=[talk for talk, _ in rows], system=[system for _, system in rows])
    row_format = find_format("messages", table.schema)
    assert row_format is not None
    for (talk, system), after in zip(rows, row_format.convert(table).to_pylist()):
        wanted = system and talk[0]["role"] != "system"
        assert said(after["messages"]) == [*([("system", system)] if wanted else []), *said(talk)]


NAMED = pa.list_(pa.struct([("content", pa.string()), ("name", pa.large_string()), ("role", pa.string())]))


@given(
    st.lists(
        st.lists(TURN | st.fixed_dictionaries({"role": st.just("function"), "content": WORDS}), max_size=3), max_size=5
    ),
    st.integers(0, 5),
    st.booleans(),
)
def test_whole_columns_of_dialogues_are_as_dialogues_one_by_one(
    talks: list[list[dict[str, str]]], cut: int, has_names: bool
) -> None:
    talks = [[{**turn, "name": "n"} if has_names else turn for turn in talk] for talk in talks]
    kind = NAMED if has_names else DIALOGUE
    chunks = pa.chunked_array([pa.array(talks[:cut], kind), pa.array(talks, kind)[cut:]], kind)
    table = pa.table({"id": table_of(n=["n"] * len(talks)).column("id"), "messages": chunks})
    row_format = find_format("messages", table.schema)
    assert row_format is not None
    if not all(talks):
        with pytest.raises(UserError, match="holds no message"):
            row_format.convert(table)
        return
    roles = {"function": "tool"}
    expected = [[{**turn, "role": roles.get(turn["role"], turn["role"])} for turn in talk] for talk in talks]
    assert row_format.convert(table).column("messages").to_pylist() == expected
    one_by_one = [row_format.convert(table.slice(at, 1)) for at in range(len(talks))]
    assert not talks or pa.concat_tables(one_by_one).equals(row_format.convert(table))


def test_preferences_over_dialogues_and_answers_by_name() -> None:
    talk = [{"role": "user", "content": "hi"}]
    end = [{"role": "assistant", "content": "yes", "tone": "dry"}]
    table = pa.table({"id": ["a"], "prompt": [talk], "chosen": [end], "rejected": ["no"]})
    (row,) = find_format("preference", table.schema).convert(table).to_pylist()  # type: ignore[union-attr]
    assert said(row["prompt"]) == [("user", "hi")] and said(row["chosen"]) == [("assistant", "yes")]
    assert row["chosen"][0]["tone"] == "dry" and said(row["rejected"]) == [("assistant", "no")]
    for answer in ("output", "code", "solution"):
        some = table_of(instruction=["do"], text=["do\nit"], **{answer: ["it"]})
        (row,) = find_format("messages", some.schema).convert(some).to_pylist()  # type: ignore[union-attr]
        assert said(row["messages"]) == [("user", "do"), ("assistant", "it")]
    both = table_of(instruction=["x"], prompt=["a"], text=["b"], chosen=["c"], rejected=["d"], input=["i"])
    for name, first in (("messages", [("user", "a"), ("assistant", "c")]), ("preference", None)):
        (row,) = find_format(name, both.schema).convert(both).to_pylist()  # type: ignore[union-attr]
        assert said(row["messages"]) == first if first else said(row["prompt"]) == [("user", "a")]
    for columns, answer in (({"text": ["b"]}, "b"), ({"text": ["b"], "chosen": ["c"]}, "c")):
        some = table_of(prompt=["a\n"], **columns)
        (row,) = find_format("prompt-completion", some.schema).convert(some).to_pylist()  # type: ignore[union-attr]
        assert (row["prompt"], row["completion"]) == ("a\n", answer)


@pytest.mark.parametrize(
    ("columns", "name", "message"),
    [
        (("prompt", "text"), "preference", "needs chosen and rejected .* rows, messages, alpaca, text, prompt-comp"),
        (("chosen", "rejected"), "preference", r"needs prompt \(or instruction\) in addition"),
        (("topic", "text"), "messages", "needs messages, or instruction with output.* are topic, text\\."),
        (("messages",), "alpaca", "Formats that fit: rows, messages$"),
        (("messages",), "text", "needs a column text"),
        (("prompt", "text"), "massages", "unknown format"),
    ],
)
def test_what_does_not_fit_is_told_with_what_does(columns: tuple[str, ...], name: str, message: str) -> None:
    table = table_of(**{column: [] for column in columns})
    with pytest.raises(UserError, match=message):
        find_format(name, table.schema)


def test_a_null_is_refused_by_its_row() -> None:
    broken = {
        "'output' is null": table_of(instruction=["a", "b"], output=["c", None]),
        "'messages' holds no message": table_of(messages=[[{"role": "user", "content": "a"}], []]),
        "'messages' has a null content": table_of(
            messages=[[{"role": "user", "content": "a"}], [{"role": "user", "content": None}]]
        ),
    }
    for message, table in broken.items():
        row_format = find_format("messages", table.schema)
        assert row_format is not None
        with pytest.raises(UserError, match=f"row 0{{31}}1: {message}"):
            row_format.convert(table)


def test_every_format_loads_as_it_is_and_twice_the_same(tmp_path: Path) -> None:
    num = 40
    columns = {n: [f"{n} {i}" for i in range(num)] for n in ("instruction", "output", "chosen", "rejected", "text")}
    table = table_of(**columns)
    talk = [{"role": "string", "content": "string"}]
    shapes: dict[str, dict[str, Any]] = {
        "messages": {"messages": talk},
        "alpaca": dict.fromkeys(("instruction", "input", "output"), "string"),
        "preference": dict.fromkeys(("prompt", "chosen", "rejected"), talk),
        "text": {"text": "string"},
        "prompt-completion": dict.fromkeys(("prompt", "completion"), "string"),
    }
    assert list(shapes) == MADE and tuple(verbs.FORMATS) == FORMATS
    for name, shape in shapes.items():
        row_format = find_format(name, table.schema)
        assert row_format is not None
        made = with_target(row_format.convert(table), shuffle_keys(table.column("id").to_pylist(), 5), 1)
        stores = [open_store(str(tmp_path / name / take)) for take in ("a", "b")]
        orders = made, made.take(np.arange(num)[::-1])
        shards = [shard_writer(s, Layout(1), row_format.schema)(0, [rows]) for s, rows in zip(stores, orders)]
        assert shards[0] == shards[1] and shards[0].num_rows == num
        path = str(tmp_path / name / "a" / shards[0].name)
        assert format_of_schema(pq.read_schema(path)) == name
        rows = datasets.load_dataset("parquet", data_files=path, split="train", cache_dir=str(tmp_path / "hf"))
        assert {n: _plain(f) for n, f in rows.features.items()} == {"id": "string", **shape}
        assert sorted(rows["id"]) == table.column("id").to_pylist() != rows["id"]
        section = format_section(row_format)
        for block in section.split("```yaml\n")[1:]:
            assert yaml.safe_load(block.partition("```")[0])
        for block in section.split("```python\n")[1:]:
            compile(block.partition("```")[0], name, "exec")


def _plain(feature: Any) -> Any:
    if isinstance(feature, dict):
        return {name: _plain(inner) for name, inner in feature.items()}
    inner = getattr(feature, "feature", None)
    return feature.dtype if inner is None else [_plain(inner)]


@pytest.mark.timeout(300)
def test_pack_of_a_run_in_a_format(tmp_path: Path) -> None:
    texts = [text(i) for i in range(90)]
    run = make_run(tmp_path / "run", texts, prompt=[f"prompt {i}" for i in range(90)])
    book = tmp_path / "run" / "manifest.json"
    recipe = {"name": "chats", "generator": {"kind": "canned"}, "method": {"kind": "prompt"}, "stages": []}
    book.write_text(json.dumps({**json.loads(book.read_text()), "recipe": recipe}))
    bad = gristmill("pack", run, "--to", str(tmp_path / "bad"), "--format", "preference")
    assert bad.returncode == 2 and "needs chosen and rejected" in bad.stderr and not (tmp_path / "bad").exists()
    dry = gristmill("pack", run, "--to", str(tmp_path / "dry"), "--format", "messages", "--dry-run")
    assert dry.returncode == 0 and "as messages" in dry.stdout and not (tmp_path / "dry").exists()
    done = gristmill("pack", run, "--to", str(tmp_path / "chat"), "--format", "messages", "--seed", "3")
    assert done.returncode == 0, done.stderr
    rows = release_rows(tmp_path / "chat")
    assert rows.column_names == ["id", "messages"]
    kept = {row["id"]: row for row in pq.read_table(Path(run) / "kept").to_pylist()}
    assert sorted(rows.column("id").to_pylist()) == sorted(kept)
    for row in rows.to_pylist():
        source = kept[row["id"]]
        assert said(row["messages"]) == [("user", source["prompt"]), ("assistant", source["text"])]
    card = (tmp_path / "chat" / "README.md").read_text()
    assert "## Format: messages" in card and "chat_template" in card and "origin` column" not in card
    loaded = datasets.load_dataset(str(tmp_path / "chat"), split="train", cache_dir=str(tmp_path / "hf"))
    assert len(loaded) == 90 and loaded[0]["messages"][0]["role"] == "user"
    broken = make_run(tmp_path / "broken", ["a", "b"], prompt=["a", None])
    null = gristmill("pack", broken, "--to", str(tmp_path / "null"), "--format", "messages")
    assert null.returncode == 2 and "ray::" not in null.stderr and not list(tmp_path.glob("null/*"))
    assert null.stderr.strip().splitlines()[-1].startswith("gristmill: row ") and "'prompt' is null" in null.stderr
    # such rows cannot pass for real ones, nor for rows that say what they are
    with pytest.raises(UserError, match="packed as messages: set origin"):
        open_part(PartSpec(path=str(tmp_path / "chat")))
    assert open_part(PartSpec(path=str(tmp_path / "chat"), origin="synthetic")).schema.names == ["messages"]
    with pytest.raises(UserError, match="was packed as messages"):
        open_part(PartSpec(uri=str(tmp_path / "chat")))


def test_a_mixture_in_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand(monkeypatch)
    (tmp_path / "real.jsonl").write_text("".join(json.dumps({"text": text(i), "n": i}) + "\n" for i in range(60)))
    run = make_run(tmp_path / "run", [text(1000 + i) for i in range(60)])
    parts = [{"name": "web", "path": str(tmp_path / "real.jsonl")}, {"uri": run}]
    keys = {"name": "mix", "synthetic_max": 0.25, "shortfall": "shrink", "parts": parts}
    mix = write(tmp_path / "mix.toml", keys)
    assert pack(mix, str(tmp_path / "rows"), 1, 7) == 0
    assert pack(mix, str(tmp_path / "text"), 1, 7, format_name="text") == 0
    whole, plain = release_rows(tmp_path / "rows"), release_rows(tmp_path / "text")
    assert plain.column_names == ["id", "text"]
    assert plain.to_pylist() == whole.select(["id", "text"]).to_pylist()  # the same draw, the same order
    assert SHARD not in plain.column_names and PLACE not in plain.column_names
    assert audit(str(tmp_path / "rows")) == 0
    with pytest.raises(UserError, match="audit the same mixture packed as rows"):
        audit(str(tmp_path / "text"))
    assert "`origin` column" not in (tmp_path / "text" / "README.md").read_text()
    with pytest.raises(UserError, match="needs messages, or instruction"):
        pack(mix, str(tmp_path / "chat"), format_name="messages")
    weighted = write(tmp_path / "weighted.toml", {**keys, "shortfall": "reweight"})
    with pytest.raises(UserError, match="has no column for them"):
        pack(weighted, str(tmp_path / "weighted"), format_name="text")


def test_a_mixture_of_dialogues_with_and_without_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    by_hand(monkeypatch)
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": null}'}}
    used = [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "x", "name": "f"}]
    tools = [{"type": "function", "function": {"name": "f"}}]
    rows = {
        "tools": [{"messages": [{"role": "user", "content": f"q {i}"}, *used], "tools": tools} for i in range(9)],
        "plain": [{"messages": [{"role": "user", "content": f"p {i}", "weight": i}]} for i in range(9)],
    }
    for name, lines in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    parts = [{"name": name, "path": str(tmp_path / f"{name}.jsonl")} for name in rows]
    keys = {"name": "mix", "synthetic_max": 1.0, "parts": parts, "release": {"date": "2026-01-31"}}
    with pytest.raises(UserError, match=r"part 'tools' has a column 'tools' .* set payload = \['messages', 'tools'\]"):
        pack(write(tmp_path / "mix.toml", keys), str(tmp_path / "chat"), format_name="messages")
    mix = write(tmp_path / "mix.toml", {**keys, "payload": ["messages", "tools"]})
    assert pack(mix, str(tmp_path / "chat"), 1, format_name="messages") == 0
    table = assert_read_back(tmp_path / "chat", caplog)
    assert table.num_rows == 18 and sum(value is not None for value in table.column("tools").to_pylist()) == 9
    loaded = datasets.load_dataset(str(tmp_path / "chat"), split="train", cache_dir=str(tmp_path / "hf"))
    for row in loaded:
        said = [{key: value for key, value in message.items() if value is not None} for message in row["messages"]]
        if row["tools"] is None:
            assert said == [{"role": "user", "content": f"p {said[0]['weight']}", "weight": said[0]["weight"]}]
            continue
        assert said[1]["tool_calls"] == [{**call, "function": {"name": "f", "arguments": {"a": None}}}]
        assert said[2] == used[1] and row["tools"] == tools
    with (tmp_path / "plain.jsonl").open("a") as file:
        file.write('{"messages": [{"role": "user", "content": null}]}\n')
    with pytest.raises(UserError, match=r"row [0-9a-f]{32} \(source plain.jsonl:\d+\): 'messages' has a null content"):
        pack(mix, str(tmp_path / "broken"), 1, format_name="messages")
    # a release in a format is a part again
    again = {"name": "again", "synthetic_max": 1.0, "parts": [{"path": str(tmp_path / "copy"), "origin": "synthetic"}]}
    (tmp_path / "copy").mkdir()
    for path in (tmp_path / "chat").glob("*.parquet"):
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    assert pack(write(tmp_path / "again.toml", again), str(tmp_path / "again"), 1, format_name="messages") == 0
    before, after = (release_rows(tmp_path / name).column("messages").to_pylist() for name in ("chat", "again"))
    assert sorted(map(str, before)) == sorted(map(str, after))


def test_formats_of_the_code_are_those_of_the_docs() -> None:
    told = formats.__doc__ or ""
    assert all(f"\n{name} " in told for name in FORMATS)
