"""Calls of tools: answers, error messages as the model sees them, and the walls of the sandbox."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.contract import ToolCall
from gristmill.records.errors import UserError
from gristmill.records.spec import build
from gristmill.stages.tools.contract import ToolResult, TrajectoryState
from gristmill.stages.tools.corpus import Bm25, words_of
from gristmill.stages.tools.spec import ToolSpec
from gristmill.stages.tools.toolset import Toolset, arguments_of, arguments_text

TOOLS = '''
"""Tools of the tests."""
from __future__ import annotations
import dataclasses, os, socket, sys, time

@dataclasses.dataclass
class Place:
    name: str

def add(a: int, b: int = 2) -> int:
    """Add up."""
    return a + b

def fail(word: str) -> str:
    """Always raises."""
    raise LookupError(f"no such word: {word}")

def odd(what: str) -> object:
    """Answers of every form."""
    print("printed")
    place = Place("x")
    values = {"none": None, "text": "ä\\ud800", "set": {1}, "object": object(), "place": [place.name]}
    return {**values, "nan": float("nan")}[what]

def reach(where: str) -> str:
    """Tries what it may not do."""
    if where == "network":
        socket.create_connection(("127.0.0.1", 80), 1)
    if where == "file":
        return open("/etc/passwd").read()
    if where == "write":
        open("/tmp/gristmill-tool", "w")
    if where == "process":
        os.execv("/bin/true", ["true"])
    if where == "exit":
        os._exit(0)
    if where == "quit":
        sys.exit(0)
    if where == "time":
        time.sleep(60)
    if where == "memory":
        return "x" * (1 << 32)
    return "x" * 5000
'''
LIMITS = {"cpu_s": 1, "wall_s": 2, "memory_mb": 128}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools")
    (folder / "tools.py").write_text(TOOLS)
    rows = [
        {"title": f"{n}", "text": text} for n, text in enumerate(["the tides of the sea", "bread and salt", "sea salt"])
    ]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def toolset_of(folder: Path) -> Toolset:
    tables: list[dict[str, Any]] = [
        {"kind": "file", "file": str(folder / "tools.py"), "limits": LIMITS},
        {"kind": "python", "limits": LIMITS},
        {"kind": "corpus", "path": str(folder / "corpus.jsonl"), "num_passages": 2},
    ]
    return Toolset([build(ToolSpec, table, "tools") for table in tables], 1, 100)


@pytest.fixture(scope="module")
def toolset(folder: Path) -> Iterator[Toolset]:
    toolset = pickle.loads(pickle.dumps(toolset_of(folder)))
    toolset.check()
    toolset.open()
    yield toolset
    toolset.close()


def ask(toolset: Toolset, name: str, arguments: Any, state: TrajectoryState | None = None) -> ToolResult:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return toolset.call(ToolCall("1", name, text), state or TrajectoryState())


def test_answers_of_functions(toolset: Toolset) -> None:
    assert ask(toolset, "add", {"a": 1}) == ToolResult("3")
    assert ask(toolset, "add", {"a": 1, "b": 5}) == ToolResult("6")
    answers = {
        what: ask(toolset, "odd", {"what": what}).text for what in ("none", "text", "set", "object", "place", "nan")
    }
    assert answers == {
        "none": "printed\n", "text": "ä?", "set": "{1}", "object": "<object object>", "place": '["x"]', "nan": "NaN",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments", "failure", "message"),
    [
        ("ad", "{}", "unknown_tool", "there is no tool 'ad' (known: add, fail, odd, reach, python, search)"),
        ("", "<broken", "bad_json", "the call could not be read"),
        ("add", "{broken", "bad_json", "the arguments of add are not a JSON object"),
        ("add", "[1]", "bad_json", "the arguments of add are not a JSON object"),
        ("add", '{"a": NaN}', "bad_json", "the arguments of add are not a JSON object"),
        ("add", '{"a": 1e400}', "bad_json", "the arguments of add are not a JSON object"),
        ("add", '{"unreadable": "{"}', "bad_json", "the arguments of add are not a JSON object"),
        ("unreadable_call", "{}", "bad_json", "the call could not be read"),
        ("add", "", "bad_arguments", "do not fit its schema: $: 'a' is a required property"),
        ("add", '{"a": "1"}', "bad_arguments", "do not fit its schema: $.a: '1' is not of type 'integer'"),
        ("add", '{"a": 1, "c": 1}', "bad_arguments", "Additional properties are not allowed"),
        ("fail", '{"word": "x"}', "failed", "LookupError: no such word: x"),
        ("search", '{"query": "!"}', "failed", "the query contains no words"),
    ],
)
def test_a_wrong_call_gets_a_message(toolset: Toolset, name: str, arguments: str, failure: str, message: str) -> None:
    result = ask(toolset, name, arguments)
    assert result.failure == failure and message in result.text
    assert result.text.startswith("Error: ") and len(result.text.splitlines()) == 1


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("network", "PermissionError"),
        ("file", "PermissionError: [Errno 13] Permission denied: '/etc/passwd'"),
        ("write", "Permission denied"),
        ("process", "PermissionError"),
        ("exit", "its process ended without an answer"),
        ("quit", "SystemExit: 0"),
        ("time", "it took more than 1 s of CPU time or 2 s in all"),
        ("memory", "it needed more than 128 MiB of memory"),
    ],
)
def test_a_tool_reaches_nothing_and_its_end_is_a_message(toolset: Toolset, where: str, message: str) -> None:
    result = ask(toolset, "reach", {"where": where})
    assert result.failure == "failed" and message in result.text
    assert ask(toolset, "add", {"a": 1}) == ToolResult("3")


def test_long_answers_are_cut_with_a_note(toolset: Toolset) -> None:
    text = ask(toolset, "reach", {"where": "length"}).text
    assert text == "x" * 100 + "\n[cut: 4,900 more characters]"
    printed = ask(toolset, "python", {"code": "print('y' * 300)"}).text
    assert printed == "y" * 100 + "\n[cut: 201 more characters]"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("print('a\\0b')", "a\0b"),
        ("'\\ud800'", "'\\ud800'"),
        ("print('x\\ud800')", "x?"),
        ("print('x' * 10_000_000)", "x" * 100 + "\n[cut: 9,999,901 more characters]"),
        ("import json\nprint(json.dumps({'a': [{'b': 1}]}))", '{"a": [{"b": 1}]}'),
        ("x = []\nfor _ in range(100_000): x = [x]\nx", "Error: RecursionError: maximum recursion depth exceeded"),
    ],
)
def test_answers_of_any_content_are_texts(toolset: Toolset, code: str, text: str) -> None:
    result = ask(toolset, "python", {"code": code}).text
    assert result.startswith(text) if text.startswith("Error") else result == text
    json.dumps(result, ensure_ascii=False).encode()


def test_two_files_with_a_tool_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_bytes(
            b"\xef\xbb\xbfdef f() -> None:\n    'A tool, in a file with a byte-order mark.'\n"
        )
    specs = [ToolSpec("file", file=str(tmp_path / name)) for name in ("a.py", "b.py")]
    assert Toolset(specs[:1], 1, 100).definitions
    with pytest.raises(UserError, match="tools: two are named 'f'; leave one out with only"):
        Toolset(specs, 1, 100)


def test_the_interpreter_keeps_its_state_for_a_trajectory(toolset: Toolset) -> None:
    state, other = TrajectoryState(), TrajectoryState()

    def run(code: str, of: TrajectoryState = state) -> str:
        return ask(toolset, "python", {"code": code}, of).text

    assert run("import math\nx = 41\nprint('once')") == "once"
    assert run("x += 1\nx") == "42"
    assert run("y = x + 1\n1 / 0") == "Error: ZeroDivisionError: division by zero (line 2)"
    assert run("y, math.floor(2.5)") == "(43, 2)"
    assert run("def f(:") == "Error: SyntaxError: invalid syntax (line 1)"
    assert run("z = 1\nwhile True: pass").startswith("Error: stopped")
    assert run("z") == "Error: NameError: name 'z' is not defined (line 1)", "a stopped cell leaves nothing"
    assert run("pass") == "(no output)" and run("x") == "42"
    assert run("x", other) == "Error: NameError: name 'x' is not defined (line 1)"
    assert run("import random\nrandom.random()") == run("import random\nrandom.random()", other)


def test_a_search_finds_what_bm25_ranks_first(toolset: Toolset) -> None:
    assert ask(toolset, "search", {"query": "SEA"}).text == (
        "[corpus.jsonl:2]\nsea salt\n\n[corpus.jsonl:0]\nthe tides of the sea"
    )
    assert ask(toolset, "search", {"query": "zebra"}) == ToolResult("(nothing was found)")


READINGS = """
import time, timeit; print(time.time(), time.monotonic_ns(), time.ctime(), time.strftime("%c"), timeit.timeit("1"))
import datetime as d; print(d.datetime.now(), repr(d.datetime.now(d.UTC)), d.date.today(), d.datetime.utcnow())
import uuid, os, secrets; print(uuid.uuid4(), uuid.uuid1(), os.urandom(4), secrets.token_hex(3), os.getpid())
import random; random.seed(); print(random.random(), random.Random().random(), random.SystemRandom().random())
import tempfile; print(tempfile.mkdtemp(), os.getcwd(), os.stat(".").st_mtime, os.path.getctime("."))
class Thing: pass
print(id(Thing()), Thing(), [Thing()], lambda: 1); Thing()
raise ValueError(Thing())
print({"b", "a", "c"}, hash("x")); os.open("/proc/self/stat", 0)
import logging, sys; logging.basicConfig(stream=sys.stdout, format="%(asctime)s"); logging.warning("x")
""".strip().splitlines()


def answers_to(lines: list[str], **keys: Any) -> list[str]:
    toolset = Toolset([build(ToolSpec, {"kind": "python", **keys}, "tools")], 1, 1000)
    toolset.open()
    try:
        state = TrajectoryState()
        return [ask(toolset, "python", {"code": line}, state).text for line in lines]
    finally:
        toolset.close()


def test_a_deterministic_tool_reads_the_same_everywhere() -> None:
    first = answers_to(READINGS)
    assert answers_to(READINGS) == first and "2026-01-01" in first[1] and "datetime.datetime(2026, 1" in first[1]
    wait = ["import time", "end = time.time() + 0.05", "while time.time() < end: pass", "time.time() > end"]
    assert answers_to(wait)[-1] == "True", "the clock goes on, so loops end"
    real = ["import time, datetime", "time.time() > 1767300000 and datetime.datetime.now().timestamp() > 1767300000"]
    assert [answers_to(real, deterministic=value)[1] for value in (True, False)] == ["False", "True"]


WORDS = st.lists(st.sampled_from("sea salt bread tides the of".split()), max_size=8).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=6), WORDS)
def test_scores_are_those_of_the_formula(texts: list[str], query: str) -> None:
    bags = [words_of(text) for text in texts]
    mean = (sum(map(len, bags)) / len(bags)) or 1.0
    expected = np.zeros(len(texts))
    for word in dict.fromkeys(words_of(query)):
        hits = sum(word in bag for bag in bags)
        idf = np.log(1 + (len(bags) - hits + 0.5) / (hits + 0.5))
        for number, bag in enumerate(bags):
            count = bag.count(word)
            expected[number] += idf * count * 2.2 / (count + 1.2 * (1 - 0.75 + 0.75 * len(bag) / mean)) if count else 0
    index = Bm25(texts)
    assert np.allclose(index.scores(query), expected)
    best = index.best(query, 3)
    assert (
        best
        == [n for n in sorted(range(len(texts)), key=lambda n: (-index.scores(query)[n], n)) if expected[n] > 0][:3]
    )


def test_contents_are_identity_and_places_are_not(folder: Path, tmp_path: Path) -> None:
    for name in ("tools.py", "corpus.jsonl"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert toolset_of(tmp_path).identity() == toolset_of(folder).identity()
    (tmp_path / "tools.py").write_text(TOOLS + "\n")
    assert toolset_of(tmp_path).identity()[0] != toolset_of(folder).identity()[0]
    assert str(tmp_path) not in json.dumps(toolset_of(tmp_path).identity())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "file"}, "needs file"),
        ({"kind": "file", "file": "nowhere.py"}, "nowhere.py"),
        ({"kind": "file", "file": "tools.py", "only": ["ad"]}, "no tool 'ad' .did you mean 'add'"),
        ({"kind": "python", "file": "tools.py"}, 'file goes with kind = "file", not with "python"'),
        ({"kind": "corpus", "deterministic": False}, 'deterministic goes with kind = "file"'),
        ({"kind": "python", "name": "a b"}, "use letters"),
        ({"kind": "corpus"}, "needs path"),
        ({"kind": "corpus", "path": "nowhere"}, "nowhere"),
        ({"kind": "mcp"}, "needs either command"),
        ({"kind": "mcp", "url": "http://example.org/mcp"}, "must be on this machine"),
        ({"kind": "mcp", "url": "https://localhost/mcp"}, "must be on this machine"),
        ({"kind": "mcp", "command": ["a"], "limits": {"cpu_s": 1}}, "limits goes with"),
        ({"kind": "mcpp"}, "is not one of"),
    ],
)
def test_tables_that_do_not_fit_are_refused_in_a_line(
    table: dict[str, Any], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=message) as error:
        Toolset([build(ToolSpec, table, "tools[0]")], 1, 100)
    assert "\n" not in str(error.value)


def test_a_corpus_without_the_column_is_refused_before_the_run(folder: Path) -> None:
    toolset = Toolset([ToolSpec("corpus", path=str(folder / "corpus.jsonl"), column="txt")], 1, 100)
    with pytest.raises(UserError, match="no column 'txt' .did you mean 'text'"):
        toolset.check()


def test_two_tools_of_one_name_are_refused(folder: Path) -> None:
    specs = [ToolSpec("python"), ToolSpec("python")]
    with pytest.raises(UserError, match="two are named 'python'"):
        Toolset(specs, 1, 100)


@given(st.text() | st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_arguments_in_messages_are_always_a_json_object(text: str) -> None:
    written = arguments_text(text)
    assert isinstance(json.loads(written), dict) and arguments_of(written) is not None
    assert "Infinity" not in json.dumps(arguments_of(text) or {})
    if (value := arguments_of(text)) is not None:
        assert json.loads(written) == value
