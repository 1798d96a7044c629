"""The alerts: the same rules for both kinds of Prometheus, of metrics that exist, firing when and only when they say.

Promtool evaluates them; it comes with Debian's package prometheus.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gristmill.cluster.metrics import COUNTERS, GAUGES, RUN_KEYS
from tests.conftest import ROOT
from tests.deploy.rendered import by_kind, overlay

FILE = ROOT / "deploy" / "alerts.yml"
LABELS = {name: label for name, (_, label) in {**COUNTERS, **GAUGES}.items()}
RUN = 'run="a1b2", recipe="textbook"'
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool (Debian: prometheus)")


def rules() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]}


def test_the_operator_gets_the_same_rules() -> None:
    (document,) = by_kind(overlay("permanent"), "PrometheusRule")
    assert document["spec"]["groups"] == yaml.safe_load(FILE.read_text())["groups"]
    assert yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["rule_files"] == [FILE.name]


def test_every_alert_is_of_metrics_that_exist_and_says_what_to_do() -> None:
    for name, rule in rules().items():
        expression = rule["expr"]
        metrics = set(re.findall(r"ray_(gristmill_\w+)", expression))
        assert metrics and metrics <= LABELS.keys(), name
        used = {label for by in re.findall(r"(?:by|on) \(([^)]*)\)", expression) for label in re.split(r",\s*", by)}
        used |= set(re.findall(r"[{,]\s*(\w+)\s*=", expression))
        assert used <= {LABELS[metric] for metric in metrics} | set(RUN_KEYS), name
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "action"} and "$labels.run" in rule["annotations"]["summary"]
        shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert shown <= {label for by in re.findall(r"by \(([^)]*)\)", expression) for label in re.split(r",\s*", by)}


# alert: (series that fire it with the minute at which it fires, series that do not)
CASES: dict[str, tuple[dict[str, str], int, dict[str, str]]] = {
    "GristmillCommitsNothing": (
        {
            f'gristmill_engines{{{RUN}, state="open"}}': "4x90",
            f"gristmill_lots_committed_total{{{RUN}}}": "0+1x10 10x80",
        },
        60,
        {f'gristmill_engines{{{RUN}, state="open"}}': "4x90", f"gristmill_lots_committed_total{{{RUN}}}": "0+1x90"},
    ),
    "GristmillHasNoEngine": (
        {
            f'gristmill_engines{{{RUN}, state="open"}}': "0x90",
            f'gristmill_engines{{{RUN}, state="loading"}}': "4x90",
            f'gristmill_lots_in_flight{{{RUN}, phase="waiting"}}': "8x90",
        },
        50,
        {
            f'gristmill_engines{{{RUN}, state="open"}}': "0x30 4x60",
            f'gristmill_lots_in_flight{{{RUN}, phase="waiting"}}': "8x90",
        },
    ),
    "GristmillCommitsLate": (
        {f"gristmill_commit_lag_s{{{RUN}}}": "0+60x90"},
        30,
        {f"gristmill_commit_lag_s{{{RUN}}}": "0+60x20 0x70"},
    ),
    "GristmillStoreFails": (
        {f'gristmill_storage_errors_total{{{RUN}, kind="503"}}': "_x20 1x70"},
        25,
        {f'gristmill_storage_errors_total{{{RUN}, kind="503"}}': "3x90"},
    ),
    "GristmillLosesWorkers": (
        {f'gristmill_retries_total{{{RUN}, kind="node"}}': "0+1x90"},
        40,
        {f'gristmill_retries_total{{{RUN}, kind="node"}}': "0+1x15 15x75"},
    ),
    "GristmillBudgetNearlySpent": (
        {f"gristmill_budget_share{{{RUN}}}": "0+0.02x60"},
        48,
        {f"gristmill_budget_share{{{RUN}}}": "0+0.01x90"},
    ),
    "GristmillTextsAlike": (
        {f'gristmill_template_share{{{RUN}, mark="openings"}}': "0.1x20 0.5x70"},
        40,
        {f'gristmill_template_share{{{RUN}, mark="openings"}}': "0.1x90"},
    ),
}


def test_every_alert_has_a_case() -> None:
    assert CASES.keys() == rules().keys()


@needs_promtool
def test_alerts_fire_when_and_only_when_they_say(tmp_path: Path) -> None:
    tests = []
    for name, (loud, minute, quiet) in CASES.items():
        labels = {"run": "a1b2", "recipe": "textbook", "severity": rules()[name]["labels"]["severity"]}
        labels |= dict(re.findall(r'(kind|mark)="(\w+)"', " ".join(loud)))
        for series, minutes in ((loud, [minute]), (quiet, [20, 40, 60, 85])):
            tests.append(
                {
                    "interval": "1m",
                    "input_series": [{"series": f"ray_{key}", "values": values} for key, values in series.items()],
                    "alert_rule_test": [
                        {
                            "eval_time": f"{at}m",
                            "alertname": name,
                            "exp_alerts": [{"exp_labels": labels}] if series is loud else [],
                        }
                        for at in minutes
                    ],
                }
            )
    bare = yaml.safe_load(FILE.read_text())  # promtool compares annotations too, where there are some
    for group in bare["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(bare))
    (tmp_path / "tests.yml").write_text(yaml.safe_dump({"rule_files": ["alerts.yml"], "tests": tests}))
    for command in (["check", "rules", str(FILE)], ["test", "rules", str(tmp_path / "tests.yml")]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
