"""The log on stderr: plain lines or JSON lines, each once, and whole beside a live display."""

import io
import json
import logging
import re
from pathlib import Path

import pytest
from rich.live import Live
from rich.text import Text

from gristmill.jobs.cli import main
from gristmill.jobs.terminal.bar import Bar
from gristmill.jobs.terminal.console import SafeConsole
from gristmill.jobs.terminal.logs import LineHandler, set_up_logging
from tests import session
from tests.recipes import canned


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["status", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("gristmill: ") and err.count("\n") == 1 and "no manifest.json there" in err


def test_an_error_is_one_json_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRISTMILL_LOG", "json")
    assert main(["status", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert (record["level"], record["event"]) == ("error", "log") and "no manifest.json there" in record["text"]


def test_a_run_in_json_mode_writes_json_only_and_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.stop_ray()  # the run starts one, and logs it
    recipe, out = canned(tmp_path, num_asks=96, lot_size=32), str(tmp_path / "out")
    monkeypatch.setenv("GRISTMILL_LOG", "json")
    assert main(["produce", recipe, "--out", out]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert all(line.keys() >= {"t", "event"} for line in lines)
    assert {"start", "commit", "end", "log"} <= {line["event"] for line in lines}
    times = [json.dumps(line) for line in lines]
    assert len(set(times)) == len(times)
    texts = [line["text"] for line in lines if line["event"] == "log"]
    assert len(set(texts)) == len(texts)
    monkeypatch.delenv("GRISTMILL_LOG")
    assert main(["produce", recipe, "--out", out]) == 0
    assert capsys.readouterr().err.splitlines() == [f"{out}: all of this run is there already"]


def test_set_up_twice_prints_once(capsys: pytest.CaptureFixture) -> None:
    set_up_logging()
    set_up_logging()
    logging.getLogger("gristmill.jobs.somewhere").info("once [bold]and as it is[/bold]")
    assert capsys.readouterr().err == "once [bold]and as it is[/bold]\n"
    assert sum(isinstance(h, LineHandler) for h in logging.getLogger("gristmill").handlers) == 1


def test_a_log_line_stays_whole_beside_a_live_display(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up_logging()
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    console = SafeConsole(stderr=True, width=60)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for number in range(3):
            live.update(Text(f"display {number}\nsecond row"), refresh=True)
            logging.getLogger("gristmill.cluster").warning(f"engine {number} was lost")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).replace("\r", "\n")
    lines = [line.strip() for line in plain.splitlines()]
    assert [line for line in lines if "engine" in line] == [f"engine {n} was lost" for n in range(3)]
    assert all("display" not in line or re.fullmatch(r"display \d", line) for line in lines)


def test_a_bar_is_a_log_line_in_json_mode(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up_logging()
    monkeypatch.setenv("GRISTMILL_LOG", "json")
    screen = Terminal()
    with Bar(SafeConsole(file=screen), "fit", plain_every_s=0.0) as bar:
        bar.show(1, 4, "step 1 of 4")
    assert not screen.getvalue()
    (line,) = capsys.readouterr().err.splitlines()
    assert "step 1 of 4" in json.loads(line)["text"]
