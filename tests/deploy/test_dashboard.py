"""The dashboard and the metrics name each other; the scrape example finds the pods of the manifests."""

import json
import re
from typing import Any

import yaml

from gristmill.cluster.metrics import COUNTERS, GAUGES, RUN_KEYS
from tests.conftest import ROOT

BOARD = ROOT / "deploy" / "grafana" / "gristmill.json"
LABELS = {name: label for name, (_, label) in {**COUNTERS, **GAUGES}.items()}


def board() -> dict[str, Any]:
    return json.loads(BOARD.read_text())


def queries() -> list[str]:
    return [target["expr"] for panel in board()["panels"] for target in panel.get("targets", [])]


def test_every_metric_has_a_panel_and_every_panel_a_metric() -> None:
    text = BOARD.read_text()
    shown = set(re.findall(r"ray_(gristmill_\w+)", " ".join(queries())))
    assert shown == LABELS.keys()
    assert {name for name in re.findall(r"\bray_(gristmill_\w+)", text)} == LABELS.keys()
    for panel in board()["panels"]:
        assert panel["type"] == "row" or (panel["title"] and panel["targets"])


def test_queries_name_labels_that_are_there() -> None:
    for query in queries():
        used = set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", query))
        used |= {word for by in re.findall(r"by \(([^)]*)\)", query) for word in re.split(r",\s*", by)}
        known = {LABELS[name] for name in re.findall(r"ray_(gristmill_\w+)", query)} | set(RUN_KEYS)
        assert used <= known, query
        assert 'run=~"$run"' in query and 'recipe=~"$recipe"' in query


def test_counters_are_rated_or_summed_and_gauges_are_not() -> None:
    for query in queries():
        for name in re.findall(r"ray_(gristmill_\w+)", query):
            is_rated = re.search(rf"(rate|increase)\(ray_{name}\b", query) is not None
            assert not (is_rated and name in GAUGES), query
            assert is_rated or name in GAUGES or "sum by" in query, query  # every start counts for itself


def test_the_board_is_whole() -> None:
    found = board()
    ids = [panel["id"] for panel in found["panels"]]
    assert len(ids) == len(set(ids)) and found["uid"] == "gristmill"
    rows = [panel["title"] for panel in found["panels"] if panel["type"] == "row"]
    assert rows == ["Throughput", "Verdicts", "Engines", "Commit", "Storage", "Cost"]
    places = {
        (x, y)
        for panel in found["panels"]
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    }
    assert len(places) == sum(p["gridPos"]["w"] * p["gridPos"]["h"] for p in found["panels"])  # none upon another
    assert max(x for x, _ in places) < 24
    assert [v["name"] for v in found["templating"]["list"]] == ["datasource", "recipe", "run"]


def test_prometheus_finds_the_pods() -> None:
    scrape = {
        job["job_name"]: job
        for job in yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["scrape_configs"]
    }
    rules = scrape["gristmill-kuberay"]["relabel_configs"]
    manifest = (ROOT / "deploy" / "kuberay" / "base" / "rayjob.yaml").read_text()
    notes = {s for rule in rules for s in rule["source_labels"] if s.startswith("__meta_kubernetes_pod_annotation_")}
    for note in notes:
        name = note.removeprefix("__meta_kubernetes_pod_annotation_prometheus_io_")
        assert f"prometheus.io/{name}:" in manifest
    address = next(rule for rule in rules if rule.get("target_label") == "__address__")
    pattern = address["regex"]
    assert re.fullmatch(pattern, "10.0.0.7:8265;8080").groups() == ("10.0.0.7", "8080")
    assert re.fullmatch(pattern, "10.0.0.7;8080").groups() == ("10.0.0.7", "8080")
    assert scrape["gristmill-nodes"]["file_sd_configs"]
