"""What only shows ends no command, and changes no exit code; a bug is one line and a file."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.jobs.cli import main
from gristmill.jobs.terminal.streams import SteadyStream
from tests.conftest import ROOT
from tests.records.test_outputs import OUTPUTS

RUN = str(OUTPUTS / "format-3" / "run")
GRISTMILL = [sys.executable, "-m", "gristmill"]


@pytest.mark.parametrize(
    ("redirection", "code"),
    [
        (">&-", 0),  # no stdout at all
        ("2>&- ", 0),
        ("> /dev/full", 2),  # what was asked for is lost
        ("2> /dev/full", 0),
        ("| true; exit ${PIPESTATUS[0]}", 0),  # a reader that leaves early
    ],
)
def test_a_stream_that_takes_nothing(redirection: str, code: int) -> None:
    line = f"sleep 0.2; {' '.join(GRISTMILL)} status {RUN} {redirection}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    if code == 2:
        assert "the output cannot be written" in done.stderr


def test_an_exit_code_survives_a_reader_that_leaves(tmp_path: Path) -> None:
    line = f"{' '.join(GRISTMILL)} audit {tmp_path} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr


def test_a_letter_that_the_terminal_lacks_is_escaped() -> None:
    raw = io.BytesIO()
    stream = SteadyStream(io.TextIOWrapper(raw, encoding="ascii"))
    stream.write("café –")
    stream.flush()
    assert raw.getvalue() == b"caf\\xe9 \\u2013" and stream.failure is None


def test_a_bug_is_one_line_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path))
    monkeypatch.setenv("MY_API_KEY", "sesame-sesame")
    monkeypatch.setattr("gristmill.jobs.status.command.describe", lambda uri: {}["sesame-sesame"])
    with pytest.raises(KeyError):
        main(["status", RUN])
    monkeypatch.setenv("GRISTMILL_DEBUG", "")
    assert main(["status", RUN]) == 70
    lines = capsys.readouterr().err.splitlines()
    (details,) = (tmp_path / "bugs").iterdir()
    assert len(lines) == 1 and "this is a bug of gristmill (KeyError" in lines[0] and str(details) in lines[0]
    text = details.read_text()
    assert "Traceback" in text and "gristmill status " in text and "sesame" not in text + lines[0]
    assert os.stat(details).st_mode & 0o777 == 0o600
