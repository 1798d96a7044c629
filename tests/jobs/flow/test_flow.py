"""A flow from its first step to its pages: what each step leaves, what a second start does, and how it ends early."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gristmill.jobs.flow.state import load
from gristmill.records.stores.opening import open_store
from tests.conftest import gristmill
from tests.inputs import middle_byte
from tests.jobs.flow.flows import chain, flow_file, step
from tests.outputs import kept_hashes

POOLED = {"set": {"generator": {"pooled": True, "seconds_per_ask": 0.005}}}


def records(out: Path) -> dict[str, Any]:
    state = load(open_store(str(out)))
    assert state is not None
    return {record.name: record for record in state.steps}


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished flow of four steps, whose first two have pools of the same engine."""
    folder = tmp_path_factory.mktemp("flow")
    steps = [*chain(topics=POOLED, texts=POOLED), step("release", "pack", run="step:judged")]
    done = gristmill("flow", flow_file(folder, steps), "--out", str(folder / "out"))
    assert done.returncode == 0, done.stderr
    return folder


def test_every_step_is_an_output_and_names_what_it_has_read(flow: Path) -> None:
    out = flow / "out"
    steps = records(out)
    assert {name: (s.verb, s.state, s.exit_code) for name, s in steps.items()} == {
        "topics": ("produce", "complete", 0),
        "texts": ("produce", "complete", 0),
        "judged": ("produce", "complete", 0),
        "release": ("pack", "complete", 0),
    }
    assert [entry["by"] for s in steps.values() for entry in s.inputs] == ["plan", "plan", "content"]
    manifest = json.loads((out / "texts" / "manifest.json").read_text())
    assert manifest["identity"]["source"]["content"] == steps["texts"].inputs[0]["identity"]
    assert manifest["inputs"]["source"]["num_shards"] == 6
    topics, texts = pq.read_table(out / "topics" / "kept"), pq.read_table(out / "texts" / "kept")
    assert set(texts.column("source_id").to_pylist()) <= set(topics.column("id").to_pylist())
    assert manifest["totals"]["asks"] == 2 * topics.num_rows
    released = pq.read_table(next((out / "release").glob("train-*.parquet")))
    judged = pq.read_table(out / "judged" / "kept")
    assert sorted(released.column("id").to_pylist()) == sorted(judged.column("id").to_pylist())


def test_an_engine_goes_on_to_the_next_step(flow: Path) -> None:
    def engines(name: str) -> list[str]:
        parts = sorted((flow / "out" / name / "events").glob("*.jsonl"))
        events = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
        return [event["state"] for event in events if event["event"] == "engine"]

    assert engines("topics") == ["loading", "open", "handed on"]
    assert engines("texts") == ["taken over", "open", "closed"]


def test_one_status_one_page_one_audit(flow: Path) -> None:
    out = str(flow / "out")
    status = json.loads(gristmill("status", out, "--json").stdout)
    assert status["state"] == "complete" and [s["name"] for s in status["steps"]][-1] == "release"
    assert status["steps"][0]["run"]["totals"]["asks"] == 96
    shown = gristmill("status", out).stdout
    assert "flow-test: complete" in shown and "judged" in shown
    watched = gristmill("status", out, "--watch")
    assert watched.returncode == 0 and "flow-test: complete" in watched.stdout
    page = (flow / "out" / "report.html").read_text()
    assert 'href="texts/report.html"' in page and 'href="release/README.md"' in page and "complete" in page
    (flow / "out" / "report.html").unlink()
    assert gristmill("report", out).stdout.strip().endswith("report.html")
    assert (flow / "out" / "report.html").exists()
    audit = gristmill("audit", out)
    assert audit.returncode == 0 and "3 links" in audit.stdout, audit.stdout
    assert "rows compared with their source" in audit.stdout and "packed rows" in audit.stdout


def test_a_second_start_skips_what_is_done_and_starts_no_ray(flow: Path) -> None:
    before = kept_hashes(str(flow / "out" / "texts"))
    again = gristmill("flow", str(flow / "flow.toml"), "--out", str(flow / "out"))
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("done already") == 4 and "starting" not in again.stderr
    assert kept_hashes(str(flow / "out" / "texts")) == before


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("steps.texts.recipe.method.template=Sing of {text}.", "step 'texts': .* was made by another recipe"),
        ("steps.topics.recipe.limits.asks=112", "step 'texts': .* was made by another recipe.*source.content"),
        ("steps.release.flags.seed=7", "step 'release': .* was made of other inputs"),
        ("steps.release.verb=evaluate", "step 'release' was a pack step"),
    ],
)
def test_a_change_is_refused_by_the_step_that_it_changes(setting: str, message: str, flow: Path) -> None:
    before = {name: record.state for name, record in records(flow / "out").items()}
    settings = ["--set", setting]
    if setting.endswith("evaluate"):
        settings += ["--set", "steps.release.flags={real_train = 'a', real_holdout = 'b'}"]
    done = gristmill("flow", str(flow / "flow.toml"), "--out", str(flow / "out"), *settings)
    assert done.returncode == 2, done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert {name: record.state for name, record in records(flow / "out").items()} == before


def test_a_step_can_be_added_and_its_link_is_audited(flow: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(flow / "out", out)
    more = step(
        "again",
        recipe={
            "name": "again",
            "lot_size": 32,
            "source": {"path": "step:texts", "cycle": True},
            "generator": {"kind": "passthrough", "origin": "synthetic"},
            "limits": {"asks": 512},
        },
    )
    steps = [*chain(topics=POOLED, texts=POOLED), step("release", "pack", run="step:judged"), more]
    done = gristmill("flow", flow_file(tmp_path, steps), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "waits for the end of step 'texts': source.cycle" in done.stderr
    assert records(out)["again"].inputs[0]["by"] == "content"
    assert gristmill("audit", str(out)).returncode == 0
    shard = out / "texts" / "kept" / "part-00000001.parquet"
    middle_byte(shard)
    wrong = gristmill("audit", str(out))
    assert wrong.returncode == 1 and "texts: kept/part-00000001.parquet" in wrong.stdout


def test_the_audit_sees_rows_of_another_run(flow: Path, tmp_path: Path) -> None:
    """Another run of the same recipe with another seed takes the place of a step: each output is proven by itself."""
    out = tmp_path / "out"
    shutil.copytree(flow / "out", out)
    other = flow_file(tmp_path, chain(topics={"set": {"seed": 5}})[:1])
    assert gristmill("flow", other, "--out", str(tmp_path / "other")).returncode == 0
    shutil.rmtree(out / "topics")
    shutil.copytree(tmp_path / "other" / "topics", out / "topics")
    wrong = gristmill("audit", str(out), "--json")
    assert wrong.returncode == 1
    (line,) = json.loads(wrong.stdout)["wrong"]
    assert line.startswith("texts: source.path = step:topics: that step has another fingerprint")


def test_the_exit_code_is_that_of_the_first_step_that_is_not_done(tmp_path: Path) -> None:
    short = {"set": {"source": {"cycle": False}, "limits": {"asks": 96, "kept_rows": 90}}}
    done = gristmill("flow", flow_file(tmp_path, chain(topics=short)), "--out", str(tmp_path / "out"))
    assert done.returncode == 3 and "step 'topics' ended with exit code 3 (exhausted)" in done.stderr
    states = {name: record.state for name, record in records(tmp_path / "out").items()}
    assert states == {"topics": "exhausted", "texts": "waiting", "judged": "waiting"}
    status = json.loads(gristmill("status", str(tmp_path / "out"), "--json").stdout)
    assert status["state"] == "incomplete"


def test_a_dry_run_shows_every_plan_and_writes_nothing(tmp_path: Path) -> None:
    steps = [*chain(), step("release", "pack", run="step:judged", flags={"format": "text"})]
    done = gristmill("flow", flow_file(tmp_path, steps), "--out", str(tmp_path / "out"), "--dry-run")
    assert done.returncode == 0, done.stderr
    for line in (
        "1. topics: produce",
        "2. texts: produce, source.path = step:topics",
        "the kept rows of step 'topics'",
    ):
        assert line in done.stdout
    assert "a release of step:judged as text" in done.stdout and not (tmp_path / "out").exists()


def test_a_driver_that_died_before_it_noted_the_end(flow: Path, tmp_path: Path) -> None:
    """The outputs are whole, but flow.json says that two steps are running: nothing is made again."""
    out = tmp_path / "out"
    shutil.copytree(flow / "out", out)
    table = json.loads((out / "flow.json").read_text())
    for record in table["steps"][2:]:
        record["state"] = "running"
    (out / "flow.json").write_text(json.dumps(table | {"state": "running"}))
    assert json.loads(gristmill("status", str(out), "--json").stdout)["state"] == "stopped"
    shards = [path.stat().st_mtime_ns for path in sorted(out.rglob("*.parquet"))]
    again = gristmill("flow", str(flow / "flow.toml"), "--out", str(out))
    assert again.returncode == 0 and "all of this run is there already" in again.stderr, again.stderr
    assert [path.stat().st_mtime_ns for path in sorted(out.rglob("*.parquet"))] == shards
    assert {record.state for record in records(out).values()} == {"complete"}


def test_a_release_that_was_cut_off_is_packed_again(flow: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(flow / "out", out)
    (out / "release" / "README.md").unlink()  # it is written last
    (shard,) = (out / "release").glob("train-*.parquet")
    before = shard.read_bytes()
    shard.write_bytes(b"a part")
    again = gristmill("flow", str(flow / "flow.toml"), "--out", str(out))
    assert again.returncode == 0, again.stderr
    assert shard.read_bytes() == before and (out / "release" / "README.md").exists()
