"""The table of exit codes: docs show it row by row, the program uses no other code, and anything else is a loss."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.records.exit_codes import BUG, CODES, STOPPED, TABLE, classify
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "exit-codes.md").read_text()
FLOORS = ("records", "engines", "stages", "evaluation", "generators", "cluster", "jobs")
SCHEDULER = {"never": "never repeats it", "resume": "leaves it to you", "retry": "repeats it"}


def test_the_page_has_the_table() -> None:
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in PAGE.splitlines() if "|" in line]
    first = rows[2 : rows.index(("code", "RayJob (KubeRay)", "Slurm", "`ray job submit`"))]
    shown = [row for row in first if row[0].isdigit()]
    assert shown == [(str(row.code), row.name, row.meaning, SCHEDULER[row.retry]) for row in TABLE]
    assert ("other", "loss", "the driver was lost: a signal, a node, memory", SCHEDULER["retry"]) in first


def test_no_floor_has_codes_of_its_own() -> None:
    pattern = re.compile(r"^[A-Z_, ]+ = [\d, ]*\b(70|130)\b.*exit code", re.MULTILINE)
    files = [path for floor in FLOORS for path in (ROOT / floor).rglob("*.py")]
    assert not [str(path) for path in files if pattern.search(path.read_text())]
    assert len(CODES) == len(TABLE)


@given(st.integers(-64, 255))
def test_every_code_has_one_row_and_only_losses_and_bugs_are_retried(code: int) -> None:
    row = classify(code)
    assert row.code == code
    if code in CODES:
        assert (row.retry == "retry") == (code == BUG) and (row.retry == "resume") == (code == STOPPED)
    else:
        assert (row.name, row.retry) == ("loss", "retry")


@pytest.mark.parametrize(("code", "cause"), [(-9, "signal 9"), (137, "signal 9"), (143, "signal 15"), (13, "code 13")])
def test_a_loss_names_its_cause(code: int, cause: str) -> None:
    assert cause in classify(code).meaning
