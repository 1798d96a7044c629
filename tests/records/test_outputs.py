"""Outputs of every readable format, stored by make_outputs.py: this version reads them."""

import json
import shutil
from pathlib import Path

import pytest

from gristmill.jobs.cli import main
from gristmill.records.output.formats import READABLE

OUTPUTS = Path(__file__).parent / "outputs"
FORMATS = [f"format-{number}" for number in sorted(READABLE["manifest.json"])]


@pytest.fixture(params=FORMATS)
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the stored run, model and study."""
    return Path(shutil.copytree(OUTPUTS / request.param, tmp_path / "output"))


def test_status_audit_and_report_read_a_run(output: Path, capsys: pytest.CaptureFixture) -> None:
    run = str(output / "run")
    assert main(["status", run, "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["state"] == "complete" and status["totals"]["asks"] == 16
    assert status["totals"]["kept"] and status["totals"]["rejected"]
    assert main(["audit", run]) == 0
    assert main(["report", run]) == 0
    assert (output / "run" / "report.html").stat().st_size > 1000


def test_pack_reads_a_run(output: Path, ray_session: None) -> None:
    assert main(["pack", str(output / "run"), "--to", str(output / "release")]) == 0
    assert list((output / "release").glob("train-*.parquet"))


def test_evaluate_reads_a_model(output: Path) -> None:
    data = "package:breast-cancer"
    sides = ["--real-train", f"{data}#train", "--real-holdout", f"{data}#holdout"]
    model, out = str(output / "model"), str(output / "evaluation")
    assert main(["evaluate", data, *sides, "--model", model, "--max-rows", "60", "--out", out]) == 0
    metrics = json.loads((output / "evaluation" / "metrics.json").read_text())
    assert metrics["model"]["kind"] == "independent"


def test_audit_reads_a_study(output: Path) -> None:
    assert main(["audit", str(output / "study")]) == 0
