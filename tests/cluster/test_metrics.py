"""The metrics of a run, as Prometheus sees them on the port of a real Ray."""

import json
import os
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gristmill.cluster.metrics import COUNTERS, GAUGES, Metrics, Sample, label_text
from tests.conftest import ROOT
from tests.s3server import free_port

RUN = {"run": "s3://mill/demo", "recipe": "demo"}

# A driver of its own: after each update it waits until the port says so, and in the end it prints the pages.
DRIVER = """
import json, sys, time, urllib.request
import ray
from gristmill.cluster.metrics import Metrics, Sample

port = int(sys.argv[1])
ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR", _metrics_export_port=port,
         _system_config={"metrics_report_interval_ms": 1000})
metrics = Metrics("s3://mill/demo", "demo", before=Sample(asks=1000, rows={"kept": 900}, num_lots=4))


def page(until):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            text = ""
        if until in text:
            return text
        time.sleep(0.2)
    raise TimeoutError(until)


def told(sample):
    metrics.update(sample)
    return page(f'phase="{list(sample.in_flight)[-1]}"')


first = Sample(asks=1000, rows={"kept": 900}, num_lots=4, in_flight={"asked": 1})
second = Sample(
    asks=1512, rows={"kept": 1300, "rules:gopher_min_words": 100, "dedup:duplicate": 12}, tokens_in=7, tokens_out=70,
    kept_tokens=60, num_lots=6, retries={"engine": 2}, storage_errors={"503": 3}, device_s=90.5, cost=1.25,
    currency="USD", in_flight={"making": 3, "ready": 1}, commit_lag_s=4.5, engine_tokens_per_s=550.0,
    engine_share=0.9, engines_open=2, engines_loading=1, index_bytes=4096, budget_share=0.125, window_share=0.75,
    slot_busy_s={"generator": 90.0}, slot_s={"generator": 100.0}, queue_empty_s={"judge": 2.5},
    engine_wait_s={"stages": 1.5}, template_share={"openings": 0.25},
)
third = Sample(
    asks=1400, rows={"kept": 1301}, tokens_in=9, tokens_out=70, num_lots=7, device_s=91.0, cost=1.5, currency="USD",
    in_flight={"processing": 2},
)
print(json.dumps([told(first), told(second), told(third)]))
"""


@pytest.fixture(scope="module")
def pages() -> list[dict[tuple[str, frozenset], float]]:
    """Three scrapes of the port: (name, labels besides Ray's own) to number."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(free_port())],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return [_points(text) for text in json.loads(done.stdout.splitlines()[-1])]


def _points(text: str) -> dict[tuple[str, frozenset], float]:
    ours = {"run", "recipe", *(label for _, label in [*COUNTERS.values(), *GAUGES.values()] if label)}
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("ray_gristmill_"):
                labels = frozenset((k, v) for k, v in sample.labels.items() if k in ours)
                found[sample.name.removeprefix("ray_"), labels] = sample.value
    return found


def at(page: dict, name: str, **labels: str) -> float | None:
    return page.get((name, frozenset({**RUN, **labels}.items())))


def test_what_is_not_stated_is_absent(pages) -> None:
    names = {name for name, _ in pages[0]}
    assert not names & {"gristmill_engine_share", "gristmill_budget_share", *COUNTERS}
    assert names == GAUGES.keys() - {"gristmill_engine_share", "gristmill_budget_share", "gristmill_template_share"}


def test_every_name_is_there_with_its_numbers(pages) -> None:
    page = pages[1]
    assert {name for name, _ in page} == {*COUNTERS, *GAUGES}
    assert all(set(RUN.items()) <= labels for _, labels in page)
    assert at(page, "gristmill_asks_total") == 512  # not the 1000 of an earlier start
    assert at(page, "gristmill_rows_total", verdict="kept") == 400
    assert at(page, "gristmill_rows_total", verdict="rules:gopher_min_words") == 100
    assert at(page, "gristmill_rows_total", verdict="dedup:duplicate") == 12
    assert at(page, "gristmill_tokens_total", direction="in") == 7
    assert at(page, "gristmill_tokens_total", direction="out") == 70
    assert at(page, "gristmill_kept_tokens_total") == 60
    assert at(page, "gristmill_lots_committed_total") == 2
    assert at(page, "gristmill_retries_total", kind="engine") == 2
    assert at(page, "gristmill_storage_errors_total", kind="503") == 3
    assert at(page, "gristmill_device_s_total") == 90.5
    assert at(page, "gristmill_cost_total", currency="USD") == 1.25
    assert at(page, "gristmill_slot_busy_s_total", pool="generator") == 90
    assert at(page, "gristmill_slot_s_total", pool="generator") == 100
    assert at(page, "gristmill_queue_empty_s_total", pool="judge") == 2.5
    assert at(page, "gristmill_engine_wait_s_total", reason="stages") == 1.5
    assert at(page, "gristmill_window_share") == 0.75
    assert at(page, "gristmill_template_share", mark="openings") == 0.25
    assert at(page, "gristmill_lots_in_flight", phase="making") == 3
    assert at(page, "gristmill_commit_lag_s") == 4.5
    assert at(page, "gristmill_engine_tokens_per_s") == 550
    assert at(page, "gristmill_engine_share") == 0.9
    assert at(page, "gristmill_engines", state="open") == 2
    assert at(page, "gristmill_engines", state="loading") == 1
    assert at(page, "gristmill_index_bytes") == 4096
    assert at(page, "gristmill_budget_share") == 0.125


def test_counters_grow_by_the_increase_and_never_fall(pages) -> None:
    page = pages[2]
    assert at(page, "gristmill_asks_total") == 512  # the total fell: nothing is counted, nothing is taken back
    assert at(page, "gristmill_rows_total", verdict="kept") == 401
    assert at(page, "gristmill_rows_total", verdict="dedup:duplicate") == 12
    assert at(page, "gristmill_tokens_total", direction="in") == 9
    assert at(page, "gristmill_lots_committed_total") == 3
    assert at(page, "gristmill_device_s_total") == 91
    assert at(page, "gristmill_cost_total", currency="USD") == 1.5


def test_gauges_of_what_is_gone_go_to_0(pages) -> None:
    page = pages[2]
    assert at(page, "gristmill_lots_in_flight", phase="making") == 0
    assert at(page, "gristmill_lots_in_flight", phase="ready") == 0
    assert at(page, "gristmill_lots_in_flight", phase="processing") == 2
    assert at(page, "gristmill_engines", state="open") == 0
    assert at(page, "gristmill_engine_share") == 0


def test_no_label_and_no_number_ends_a_run(caplog: pytest.LogCaptureFixture) -> None:
    """Ray takes ASCII labels and finite numbers; whatever else comes is escaped, or logged once."""
    assert label_text("café €") == "caf\\xe9 \\u20ac"
    assert label_text("a\nb\x00\ud800") == "a\\x0ab\\x00\\ud800"
    metrics = Metrics("s3://bücher/x", "café")
    rows = {"süß:zu_kurz": 3, "x" * 5000: 1, "": 2, "a\nb": 1}
    metrics.update(Sample(asks=7, rows=rows, currency="€", cost=1.0, in_flight={"é": 1}))
    assert not caplog.records
    for _ in range(2):
        metrics.update(Sample(asks=10**400, cost=float("nan"), commit_lag_s=float("inf"), index_bytes=10**400))
    assert [r.levelname for r in caplog.records] == ["WARNING"] and "not exported" in caplog.text
