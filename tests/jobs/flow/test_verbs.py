"""A flow of every verb: a fitted model makes rows, which are evaluated and mixed; a study stands beside them."""

import json
from pathlib import Path
from typing import Any

import pytest

from gristmill.jobs.flow.state import load
from gristmill.records.stores.opening import open_store
from tests.conftest import gristmill
from tests.jobs.flow.flows import flow_file, step

REAL = "package:breast-cancer"
MIXTURE: dict[str, Any] = {
    "name": "mixed",
    "synthetic_max": 0.9,
    "shortfall": "shrink",
    "payload": ["diagnosis"],
    "parts": [{"uri": "step:rows"}, {"path": REAL}],
}
STUDY: dict[str, Any] = {
    "name": "law",
    "n": 50,
    "generations": 3,
    "chains": 20,
    "family": {"kind": "gaussian", "estimator": "mle"},
    "regimes": {"replace": {}},
}


def steps() -> list[dict[str, Any]]:
    split = f"{REAL}#train", f"{REAL}#holdout"
    rows = {
        "name": "rows",
        "lot_size": 64,
        "generator": {"kind": "model", "model": "step:model"},
        "limits": {"asks": 256},
    }
    return [
        step(
            "model", "fit", recipe={"name": "f", "data": {"path": REAL, "part": "train"}, "model": {"kind": "copula"}}
        ),
        step("rows", recipe=rows),
        step("evaluation", "evaluate", run="step:rows", flags={"real_train": split[0], "real_holdout": split[1]}),
        step("release", "pack", mixture=MIXTURE),
        step("law", "study", study=STUDY),
        step("again", "fit", recipe={"name": "g", "data": {"path": "step:rows"}, "model": {"kind": "copula"}}),
    ]


@pytest.mark.nightly
def test_every_verb_is_a_step(tmp_path: Path) -> None:
    out, path = tmp_path / "out", flow_file(tmp_path, steps())
    plan = gristmill("flow", path, "--out", str(out), "--dry-run")
    assert plan.returncode == 0 and "the rest is checked when step 'model' is done" in plan.stdout, plan.stderr
    done = gristmill("flow", path, "--out", str(out))
    assert done.returncode == 0, done.stderr
    state = load(open_store(str(out)))
    assert state is not None and {record.state for record in state.steps} == {"complete"}
    links = [(record.name, entry["key"], entry["by"]) for record in state.steps for entry in record.inputs]
    assert links == [
        ("rows", "generator.model", "content"),
        ("evaluation", "run", "content"),
        ("release", "parts.0.uri", "content"),
        ("again", "data.path", "content"),
    ]
    assert json.loads((out / "evaluation" / "metrics.json").read_text())["fidelity"]
    audit = gristmill("audit", str(out))
    assert audit.returncode == 0 and "4 links" in audit.stdout, audit.stdout
    page = (out / "report.html").read_text()
    assert 'href="evaluation/report.html"' in page and 'href="law/report.html"' in page
    again = gristmill("flow", path, "--out", str(out))
    assert again.returncode == 0 and again.stderr.count("done already") == 6, again.stderr
    model = out / "model" / "model.json"
    model.write_text(model.read_text().replace("copula", "copulb"))
    wrong = gristmill("audit", str(out))
    assert wrong.returncode == 1 and "rows: generator.model = step:model: the output of that step" in wrong.stdout
