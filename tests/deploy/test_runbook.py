"""The runbook names settings, files, metrics and words of the program as they are."""

import re
from dataclasses import fields

from gristmill.cluster.metrics import COUNTERS, GAUGES
from gristmill.cluster.spec import ClusterSpec, Limits
from gristmill.jobs.verbs import parser
from tests.conftest import ROOT
from tests.deploy.rendered import COMPONENTS, OVERLAYS

TEXT = (ROOT / "deploy" / "runbook.md").read_text()
CODE = "\n".join(
    p.read_text() for floor in ("records", "stages", "cluster", "jobs") for p in (ROOT / floor).rglob("*.py")
)


def test_keys_exist() -> None:
    assert set(re.findall(r"\bcluster\.(\w+)", TEXT)) <= {f.name for f in fields(ClusterSpec)}
    assert set(re.findall(r"\blimits\.(\w+)", TEXT)) <= {f.name for f in fields(Limits)}


def test_metrics_exist() -> None:
    assert set(re.findall(r"ray_(gristmill_\w*\w)", TEXT)) - {"gristmill_"} <= COUNTERS.keys() | GAUGES.keys()


def test_files_exist() -> None:
    for name in re.findall(r"(?:deploy|docs|requirements|recipes)/[\w./-]+\.\w+", TEXT):
        assert (ROOT / name).is_file(), name
    for name in (
        "kuberay/secret.example.yaml",
        "operator-values.yaml",
        "iam/policy.json",
        "iam/trust-web-identity.json",
        "grafana/gristmill.json",
        "prometheus.yml",
        "alerts.yml",
    ):
        assert name in TEXT
        assert list((ROOT / "deploy").rglob(name.rpartition("/")[2]))


def test_every_overlay_and_component_has_its_row() -> None:
    rows = {name for line in TEXT.splitlines() if line.startswith("| `") for name in re.findall(r"`([\w-]+)`", line)}
    helpers = {"identity-no-keys", "permanent/copy"}  # parts of others
    assert set(OVERLAYS) | set(COMPONENTS) - helpers <= rows


def test_commands_are_understood() -> None:
    verbs = set(re.findall(r"`gristmill (\w+) URI", TEXT))
    assert {"status", "audit"} <= verbs
    for verb in verbs:
        assert parser().parse_args([verb, "s3://bucket/run"]).verb == verb
    for command in re.findall(r"python -m gristmill (produce [^\n`]+)", TEXT):
        assert parser().parse_args(command.split()).verb == "produce"


def test_messages_are_the_programs_own() -> None:
    for words in (
        "looking for the ask",
        "waiting for room",
        "no node had room for one",
        "hold all cores",
        "is being written by another driver",
        "has been taken over by another driver",
        "the dedup index was lost and is built again",
        "the engine cannot start",
        "no space left",
    ):
        assert words in TEXT and words in CODE, words


def test_secrets_are_not_in_it() -> None:
    for path in (ROOT / "deploy").rglob("*"):
        if path.is_file():
            assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY", path.read_text()), path
