"""What a run shows while it goes on: lines for people or JSON lines, each once, and the same events either way."""

import json
import logging
from pathlib import Path

import pytest

from gristmill.cluster.lots.job import Progress
from gristmill.jobs.produce import monitor as module
from gristmill.jobs.produce.monitor import Monitor
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.jobs.terminal.console import SafeConsole
from gristmill.jobs.terminal.logs import set_up_logging
from gristmill.records.output.events import read_events
from gristmill.records.output.lease import Lease
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.manifest import load as read_manifest
from gristmill.records.output.shards import Summary
from gristmill.records.stores.opening import open_store
from tests.recipes import canned


@pytest.mark.parametrize("is_json", [False, True])
def test_every_line_once(
    is_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY_S", 0.0)
    monkeypatch.setenv("GRISTMILL_LOG", "json" if is_json else "")
    set_up_logging()
    compiled = compile_recipe(load(canned(tmp_path)))
    store, totals = open_store(str(tmp_path / "out")), Summary()
    manifest = Manifest(compiled.fingerprint, compiled.resolved(), compiled.identity)
    with Monitor(compiled, store, manifest, totals, Lease(store), SafeConsole(stderr=True)) as monitor:
        monitor.begin()
        logging.getLogger("gristmill.cluster").warning("an engine was lost")
        totals.add(Summary(num_lots=1, asks=32, kept=20, rejected={"rules:short": 12}))
        monitor.update(Progress(totals, {"making": 2}, 2, 1, {}, {}))
        monitor.end("complete", None)
    logging.getLogger("gristmill.cluster").warning("after the run")
    lines = capsys.readouterr().err.splitlines()
    if is_json:
        assert [json.loads(line)["event"] for line in lines] == ["start", "log", "progress", "end", "log"]
    else:
        assert lines[0] == "an engine was lost" and "20 kept + 12 rejected" in lines[1]
        assert lines[2:] == ["after the run"]
    events = list(read_events(store))
    assert [event["event"] for event in events] == ["start", "log", "progress", "end"]
    assert events[1]["text"] == "an engine was lost" and events[2]["in_flight"] == {"making": 2}
    saved = read_manifest(store)
    assert saved is not None and saved.state == "complete" and saved.totals.literals() == totals.literals()
