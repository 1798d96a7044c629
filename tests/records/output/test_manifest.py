"""Formats of machine-written files, and the lines that name what differs between two outputs."""

import json
from pathlib import Path
from typing import Any

import pytest

from gristmill.records.errors import UserError
from gristmill.records.output.formats import READABLE, newest, parse
from gristmill.records.output.manifest import FORMAT, NAME, Manifest, differences, load, tools_sentence
from gristmill.records.stores.local import LocalStore

IDENTITY: dict[str, Any] = {
    "seed": 0,
    "source": {"content": "ab"},
    "generator": {"kind": "teacher", "revision": 1, "sampling": {"top_p": 0.9}},
    "method": None,
    "stages": [
        {"kind": "minhash", "name": "dedup", "revision": 1, "bands": [4, 8]},
        {"kind": "finish", "name": "finish"},
    ],
}
DEDUP, FINISH = IDENTITY["stages"]


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, []),
        ({"seed": 1}, ["seed: 0 -> 1"]),
        ({"source": {"content": "cd"}}, ['source.content: "ab" -> "cd"']),
        ({"method": {"kind": "qa"}}, ['method: null -> {"kind": "qa"}']),
        ({"stages": [{**DEDUP, "revision": 2}, FINISH]}, ["stage dedup: revision 1 -> 2"]),
        ({"stages": [{**DEDUP, "bands": [4, 9]}, FINISH]}, ["stage dedup: bands[1] 8 -> 9"]),
        ({"stages": [DEDUP, {**FINISH, "revision": 1}]}, ["stage finish: revision absent -> 1"]),
        ({"stages": [DEDUP]}, ["stage finish: removed"]),
        ({"stages": [DEDUP, FINISH, {"kind": "judge"}]}, ["stage judge: added"]),
        ({"stages": [FINISH, DEDUP]}, ["order of stages: dedup, finish -> finish, dedup"]),
        ({"generator": {**IDENTITY["generator"], "revision": 2}}, ["generator teacher: revision 1 -> 2"]),
        (
            {"generator": {**IDENTITY["generator"], "sampling": {"top_p": 1.0}}},
            ["generator teacher: sampling.top_p 0.9 -> 1.0"],
        ),
        ({"generator": {"kind": "canned", "revision": 7}}, ['generator.kind: "teacher" -> "canned"']),
    ],
)
def test_differences_name_the_component(changes: dict[str, Any], lines: list[str]) -> None:
    assert list(differences(IDENTITY, {**IDENTITY, **changes})) == lines


def test_a_manifest_comes_back(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    assert load(store) is None
    manifest = Manifest("f" * 32, {"name": "x"}, {"seed": 1})
    manifest.begin()
    manifest.save(store)
    assert load(store) == manifest
    assert json.loads((tmp_path / NAME).read_text())["format"] == FORMAT == newest(NAME)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 2}', f"has format 2; this version of gristmill reads format 3, {FORMAT}"),
        ('{"fingerprint": "x"}', "states no format"),
        ("[]", "states no format"),
        ("{", "cannot be read: "),
        (json.dumps({"format": FORMAT, "totals": {}, "unknown": 1}), "cannot be read: fingerprint is missing"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(UserError, match=message) as refused:
        load(LocalStore(str(tmp_path)))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", READABLE)
def test_the_newest_format_is_readable(name: str) -> None:
    literals = {"format": newest(name), "value": 1}
    assert parse(json.dumps(literals).encode(), name, "here") == literals


@pytest.mark.parametrize(
    ("tables", "named"),
    [
        ([{"kind": "mcp", "url": None, "command": ["x"]}], "(an MCP server)"),
        ([{"kind": "mcp", "url": "http://127.0.0.1:1/mcp"}], "(http://127.0.0.1:1/mcp)"),
        ([{"kind": "file", "file": "clock.py", "deterministic": False}, {"kind": "python"}], "(clock.py)"),
        ([{"kind": "file", "file": "a.py", "deterministic": True}], ""),
        ([], ""),
        (None, ""),
        (["odd"], ""),
    ],
)
def test_tools_that_void_the_same_rows_are_named(tables: Any, named: str) -> None:
    manifest = Manifest("0" * 32, {"method": {"kind": "agent", "tools": tables}}, {})
    assert manifest.repeatability == tools_sentence(manifest.recipe)
    assert named in manifest.repeatability if named else manifest.repeatability == ""
    assert tools_sentence({"method": None}) == tools_sentence(None) == ""
