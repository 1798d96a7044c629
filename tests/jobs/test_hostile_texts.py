"""What a model, a file name or a library says cannot act on a terminal, a page or a card, by whatever verb."""

import ast
import io
import json
import logging
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from markdown_it import MarkdownIt

from gristmill.cluster.shuffle import ShardFile
from gristmill.jobs.cli import main
from gristmill.jobs.evaluate.command import summary_table
from gristmill.jobs.fit.command import card_table
from gristmill.jobs.pages.figure import draw
from gristmill.jobs.produce.command import _examples, show_outcome
from gristmill.jobs.recipes.catalogue import recipes
from gristmill.jobs.release.card import dataset_card, facts_of_run
from gristmill.jobs.release.croissant import croissant
from gristmill.jobs.release.facts import FactsFile
from gristmill.jobs.report.gate_audit import LabelledRows, gates, gates_table
from gristmill.jobs.status.watch import Watcher
from gristmill.jobs.study.results import SUMMARY_SCHEMA
from gristmill.jobs.study.show import cells_table, verdict_line
from gristmill.jobs.terminal import console as screen
from gristmill.jobs.terminal.bar import Bar
from gristmill.jobs.terminal.console import SafeConsole
from gristmill.jobs.terminal.logs import LineHandler
from gristmill.records.errors import UserError
from gristmill.records.output.manifest import load as read_manifest
from gristmill.records.stores.opening import open_store
from tests.conftest import ROOT
from tests.hostile import INTACT, SURROGATE, TEXTS, assert_clean, hostile_run

CASES = [pytest.param(text, id=name) for name, text in TEXTS.items()]
ALL = "|".join(TEXTS.values())
# All at once; each alone at night.
WHOLE = [pytest.param(ALL, id="all"), *(pytest.param(t, id=n, marks=pytest.mark.nightly) for n, t in TEXTS.items())]


@pytest.fixture(params=[False, True], ids=["piped", "terminal"])
def streams(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is printed, piped or on a terminal that takes styles."""
    if request.param:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setattr(screen.SafeConsole, "is_terminal", True)
    return capsys


def printed(renderable: Any, is_terminal: bool) -> str:
    stream = io.StringIO()
    SafeConsole(file=stream, force_terminal=is_terminal, width=100).print(renderable)
    return stream.getvalue()


@pytest.mark.parametrize("text", WHOLE)
def test_verbs_that_read_a_run(text: str, tmp_path: Path, streams: Any) -> None:
    run = str(hostile_run(tmp_path, text, text + SURROGATE))
    assert main(["status", run]) == main(["status", run, "--watch"]) == main(["report", run]) == 0
    assert main(["audit", run]) == 1
    assert main(["pack", run, "--to", str(tmp_path / "release"), "--dry-run"]) == 0
    captured = streams.readouterr()
    assert "WRONG" in captured.out and "kept" in captured.out
    assert_clean(captured.out + captured.err)
    page = (tmp_path / "run" / "report.html").read_bytes().decode()
    assert_clean(page, is_page=True)
    assert "<script>alert" not in page and 'href="http://evil' not in page
    for verb in (["status", run, "--json"], ["status", run, "--watch", "--json"], ["audit", run, "--json"]):
        main(verb)
        out = streams.readouterr().out
        assert_clean(out, is_page=True)
        totals = json.loads(out)
        if "name" in totals:
            assert totals["name"] == text + SURROGATE, "JSON reads back as it was"


@pytest.mark.parametrize("text", WHOLE)
def test_what_produce_prints(text: str, tmp_path: Path, streams: Any) -> None:
    from gristmill.jobs.produce.command import Outcome
    from gristmill.jobs.recipes.compile import compile_recipe
    from gristmill.jobs.recipes.recipe import load
    from gristmill.jobs.terminal.output import Output

    run = hostile_run(tmp_path, text, text)
    recipe = {"name": text, "description": text, "source": {"items": [text]}, "generator": {"kind": "canned"},
              "stages": [{"kind": "finish", "name": text.replace(":", "")}]}  # fmt: skip
    output = Output("produce", text, str(run), ["generator.x=" + text])
    manifest = read_manifest(output.store)
    assert manifest is not None
    compiled = compile_recipe(load(recipe))
    assert len(list(_examples(compiled, output.store, manifest.totals))) == 3
    show_outcome(Outcome("stopped", manifest.totals, manifest), compiled, output.store)
    output.stopped()
    path = tmp_path / "recipe.toml"
    path.write_text(toml(recipe), encoding="utf-8")
    folder = re.sub("[/\x00]", "", text)[:60]
    assert main(["produce", str(path), "--out", str(tmp_path / "out" / folder), "--dry-run"]) == 0
    captured = streams.readouterr()
    assert "a\\x1b" in captured.out or text != ALL
    assert_clean(captured.out + captured.err)


def toml(value: Any, is_top: bool = True) -> str:
    """TOML with every character of a string as an escape but letters and digits."""
    if isinstance(value, dict):
        pairs = [f"{key} = {toml(each, False)}" for key, each in value.items()]
        return "\n".join(pairs) if is_top else "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(each, False) for each in value) + "]"
    return '"' + "".join(c if c.isalnum() else f"\\U{ord(c):08x}" for c in value) + '"'


@pytest.mark.parametrize("text", [*CASES, pytest.param(SURROGATE, id="surrogate")])
def test_errors_of_every_kind(text: str, tmp_path: Path, streams: Any) -> None:
    assert main(["status", f"{tmp_path}/{text.replace(chr(0), '')}"]) == 2
    assert main(["produce", f"{text}.toml".replace("\x00", ""), "--out", "out"]) == 2
    assert main(["produce", "package:demo", "--out", "out", "--set", text]) == 2
    assert main(["produce", "package:demo", "--out", "out", "--set", f"generator.{text}=1"]) == 2
    assert main(["produce", "package:demo", "--out", f"ftp://{text}"]) == 2
    assert main(["recipes", text]) == 2
    with pytest.raises(SystemExit):
        main(["status", "out", f"--{text}"])
    with pytest.raises(SystemExit):
        main(["pack", "out", "--to", "x", "--format", text])
    logging.getLogger("gristmill.tests").warning(f"the engine answers: {text}")
    try:
        raise RuntimeError(text)
    except RuntimeError:
        logging.getLogger("gristmill.tests").error("a bug", exc_info=True)
    captured = streams.readouterr()
    assert captured.err.count("gristmill: ") >= 6
    assert_clean(captured.out + captured.err)


def test_the_log_of_other_libraries(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    main(["recipes"])
    assert any(isinstance(h, LineHandler) for h in logging.getLogger("gristmill").handlers)
    record = logging.makeLogRecord({"name": "ray", "levelno": 40, "msg": "worker says %s", "args": (ALL,)})
    assert logging.lastResort is not None
    logging.lastResort.handle(record)
    monkeypatch.setenv("GRISTMILL_LOG", "json")
    logging.getLogger("gristmill.tests").error(ALL + SURROGATE)
    lines = capsys.readouterr().err.split("\n")[:-1]
    assert lines[0].startswith("worker says a\\x1b]0;owned") and json.loads(lines[-1])["text"].startswith("a\\x1b")
    assert_clean("\n".join(lines))


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("text", [*CASES, pytest.param(SURROGATE, id="surrogate")])
def test_tables_of_other_verbs(text: str, is_terminal: bool, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    row = {"cell": text.replace("\udc80", ""), "measure": "m", "mean": 1.0, "standard_error": 0.1, "median": 1.0}
    row |= {"generation": 1, "law": 1.0, "z": 0.5}
    pq.write_table(pa.Table.from_pylist([row], SUMMARY_SCHEMA), tmp_path / "summary.parquet")
    study = {"study": {"name": text, "show": []}}
    worst = {"measure": text, "cell": text, "generation": 1, "num_tested": 1, "z": 1.0}
    metrics: dict[str, Any] = {"headline": {"tstr_over_trtr": 1.0}, "fidelity": None, "text": None}
    scores = {text: {"TSTR": {text: 1.0}, "TRTR": {text: 1.0}}}
    metrics["utility"] = {"metric": text, "target": text, "learner": text, "scores": scores}
    metrics["model"] = {"privacy": {"guarantee": None, "text": text}}
    labels = LabelledRows()
    labels.right[""], labels.right[text] = 3, 1
    card = SimpleCard(text)
    for renderable in (
        cells_table(study, store),
        summary_table(metrics),
        gates_table(gates(labels, [text])),
        card_table(card, text),  # type: ignore[arg-type]
        verdict_line({"state": text, "num_done": 1, "num_units": 1, "failed": {}, "worst": worst}),
        text,
    ):
        assert_clean(printed(renderable, is_terminal))
    stream = io.StringIO()
    with Bar(SafeConsole(file=stream, force_terminal=is_terminal, width=100), text, 0.0) as bar:
        bar.show(1, 2, text)
    assert_clean(stream.getvalue().replace("\r", ""))


class SimpleCard:
    """A model card whose facts hold a text."""

    def __init__(self, text: str) -> None:
        self.kind = "independent"
        self.trained_on = {"num_rows": 3, "path": text}
        self.losses = [{"step": 1.0, text: 0.5}]
        self.facts: dict[str, Any] = {}
        self.privacy = {"guarantee": None, "text": text}


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_run_that_is_watched(is_terminal: bool, tmp_path: Path) -> None:
    for number, text in enumerate(TEXTS.values()):
        (tmp_path / str(number)).mkdir()
        store = open_store(str(hostile_run(tmp_path / str(number), text, text + SURROGATE)))
        watcher = Watcher(store)
        view = watcher.view(watcher.look())
        assert_clean(printed(view.panel(), is_terminal))


@pytest.mark.parametrize("as_json", [False, True])
def test_the_list_of_recipes(as_json: bool, tmp_path: Path, streams: Any) -> None:
    (tmp_path / "recipes").mkdir()
    for number, text in enumerate(TEXTS.values()):
        line = " ".join(text.replace("\x00", "").split("\n"))
        content = f"# Makes: rows of {line}\n# Paper: {line}\n# Cost: {line}\nname = 'x'\n"
        (tmp_path / "recipes" / f"r{number}.toml").write_text(re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", content))
    assert recipes(None, as_json, tmp_path) == 0 and recipes("r3", as_json, tmp_path) == 0
    out = streams.readouterr().out
    assert_clean(out)
    assert "rows of" in out


@pytest.mark.parametrize("text", [*WHOLE, pytest.param(SURROGATE, id="surrogate")])
def test_figures_draw_any_label(text: str) -> None:
    def paint(figure: Any, is_wide: bool) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], label=text)
        axes.set_yticks([0, 1], [text, "b"])
        axes.set_title(text)
        axes.set_xlabel(text)
        axes.legend()

    svg = draw("name", text, paint, 2.0, 2.0)
    assert "<svg" in svg and "<script>" not in svg and 'aria-label="' in svg


NASTY = "a\n---\ntags: [x]\n# b | `c` ``d`` <img src=x onerror=1> [l](javascript:x) &amp; \x1b]0;t\x07\u202e"


def test_a_name_stays_in_its_place_in_a_card(tmp_path: Path) -> None:
    run = hostile_run(tmp_path, NASTY, NASTY)
    manifest = read_manifest(open_store(str(run)))
    assert manifest is not None
    schema = pa.schema([("text", pa.string()), (NASTY, pa.string())])
    shards = [ShardFile("train-00000-of-00001.parquet", 1, 1, "00")]
    stated = {"title": NASTY, "cite": NASTY, "contact": NASTY, "license": "other", "license_link": NASTY}
    facts = facts_of_run(manifest, manifest.totals, FactsFile(stated))
    row = {"text": NASTY + "\n```\n# out", NASTY: [NASTY, b"\xff", {"a": NASTY}]}
    card = dataset_card(manifest, manifest.totals, facts, shards, schema, row)
    _, front, body = card.split("---\n", 2)
    matter = yaml.safe_load(front)
    keys = {"pretty_name", "license", "license_name", "license_link", "tags", "size_categories", "configs"}
    assert set(matter) == keys and matter["tags"] == ["synthetic"]
    assert matter["pretty_name"].startswith("a --- tags: [x] # b | `c`")
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    headings = [tokens[i + 1].content for i, t in enumerate(tokens) if t.type == "heading_open"]
    sections = ["Generated and kept rows", "Columns", "Example row", "Licence and citation", "Recipe", "How to read it"]
    assert headings[1:] == sections
    kinds = {child.type for token in tokens for child in token.children or []} | {t.type for t in tokens}
    assert not kinds & {"html_inline", "html_block", "link_open", "image", "hr"}
    rows = [t for t in tokens if t.type == "tr_open"]
    assert len(rows) == 5 + 3 + 2, "head, generated, kept and two reasons; head and two columns; head and a source"
    assert_clean(card, is_page=True)
    metadata = croissant(facts, shards, schema)
    assert_clean(metadata["name"] + metadata["description"] + metadata["citeAs"], is_page=True)


def test_scripts_and_emoji_stay_intact(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = str(hostile_run(tmp_path, INTACT, INTACT))
    assert main(["status", run]) == main(["report", run]) == 0
    assert INTACT in capsys.readouterr().out and INTACT in (tmp_path / "run" / "report.html").read_text()
    assert INTACT in printed(INTACT, False) and str(UserError(INTACT)) == INTACT


def test_every_verb_prints_through_one_console() -> None:
    """Another console or a bare print would not be cleaned."""
    for path in (ROOT / "jobs").rglob("*.py"):
        if path.parent.name == "terminal" and path.name in ("console.py", "logs.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                assert call not in ("print", "Console", "sys.stdout.write", "sys.stderr.write"), (path, node.lineno)
            if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
                assert "Console" not in [name.name for name in node.names], path
