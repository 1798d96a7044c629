"""The flows that come with the project: each is parsed, linked and checked; the lessons share one engine."""

import json
from pathlib import Path
from typing import Any

import pytest

from gristmill.jobs.flow.build import build_chain
from gristmill.jobs.flow.produce_step import ProduceStep
from gristmill.records.stores.opening import open_store
from tests.conftest import ROOT, gristmill
from tests.outputs import kept_hashes

FLOWS = sorted((ROOT / "flows").glob("*.toml"))


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.stem)
def test_every_flow_is_checked_as_a_whole(path: Path, tmp_path: Path) -> None:
    chain, state = build_chain(str(path), open_store(str(tmp_path / "out")))
    assert {record.state for record in state.steps} == {"waiting"}
    assert all(step.links for step in list(chain.steps.values())[1:]), "a chain"
    assert not [step.name for step in chain.steps.values() if isinstance(step, ProduceStep) and step.compiled is None]


def test_the_lessons_need_one_engine_and_no_step_waits_for_content(tmp_path: Path) -> None:
    chain, _ = build_chain("package:lessons", open_store(str(tmp_path / "out")))
    steps = [step for step in chain.steps.values() if isinstance(step, ProduceStep)]
    (key,) = {key for step in steps for key in step.engine_widths}
    assert [step.engine_widths for step in steps] == [{key: 1}] * 3
    assert not [step.why_waits for step in steps if step.why_waits]


@pytest.mark.nightly
@pytest.mark.vllm
@pytest.mark.timeout(1800)
def test_one_engine_writes_what_three_would(tmp_path: Path) -> None:
    small = ["--set", "steps.topics.recipe.source.samples=2"]
    shorter = [*small, "--set", "steps.write.recipe.generator.sampling.max_tokens=120"]
    warm, cold = tmp_path / "warm", tmp_path / "cold"
    done = gristmill("flow", "package:lessons", "--out", str(warm), *shorter)
    assert done.returncode == 0, done.stderr

    def engines(name: str) -> list[str]:
        parts = sorted((warm / name / "events").glob("*.jsonl"))
        events = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
        return [event["state"] for event in events if event["event"] == "engine"]

    assert engines("topics") == ["loading", "open", "handed on"]
    assert engines("write") == ["taken over", "open", "handed on"]
    assert engines("judge") == ["taken over", "open", "closed"]
    seconds = {name: engine_seconds(warm, name) for name in ("topics", "write", "judge")}
    assert max(seconds["write"], seconds["judge"]) < seconds["topics"] / 4, seconds
    for last in ("topics", "write", "judge"):  # each start of the flow starts an engine of its own
        flow = up_to(last, tmp_path / f"{last}.toml")
        done = gristmill("flow", flow, "--out", str(cold), *(small if last == "topics" else shorter))
        assert done.returncode == 0, done.stderr
        assert kept_hashes(str(cold / last)) == kept_hashes(str(warm / last))
    assert gristmill("audit", str(warm)).returncode == 0


def engine_seconds(out: Path, name: str) -> float:
    """Seconds until the engine of a step was open."""
    parts = sorted((out / name / "events").glob("*.jsonl"))
    events: list[dict[str, Any]] = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    return next(float(event["seconds"]) for event in events if event.get("state") == "open")


def up_to(last: str, path: Path) -> str:
    """The shipped flow without the steps after `last`."""
    parts = (ROOT / "flows" / "lessons.toml").read_text().split("[[steps]]\n")
    number = next(at for at, part in enumerate(parts) if part.startswith(f'name = "{last}"'))
    path.write_text("[[steps]]\n".join(parts[: number + 1]))
    return str(path)
