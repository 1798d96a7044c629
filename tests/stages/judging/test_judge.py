"""The judge: what it reads out of answers, and a run with two real models in two pools."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.records.spec import build
from gristmill.stages.judging.judge import JudgeSpec, read_score
from tests.conftest import gristmill
from tests.outputs import shard_paths
from tests.recipes import teacher


@pytest.mark.parametrize(
    ("text", "score"),
    [('{"score": 4}', 4), ('{"score": 9}', None), ('{"score": true}', None), ("4", None), ("{", None), ("[4]", None)],
)
def test_scores_off_the_scale_and_other_answers_are_no_scores(text: str, score: int | None) -> None:
    assert read_score(text, 1, 5) == score


@given(st.text())
def test_any_answer_is_read_without_a_crash(text: str) -> None:
    assert read_score(text, 1, 5) is None or text


@given(st.text())
def test_any_text_fits_into_the_prompt(text: str) -> None:
    assert text in JudgeSpec(model="package:smollm2").ask(text)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": "rate it"}, "prompt must hold"),
        ({"prompt": "{text} {mood}"}, "prompt may hold"),
        ({"min_score": 7}, "min_score must lie in 1..5"),
        ({"low": 5}, "low must be below high"),
    ],
)
def test_a_bad_judge_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(Exception, match=words):
        build(JudgeSpec, {"model": "package:smollm2", **changes}, "stages[0]")


@pytest.mark.vllm
@pytest.mark.nightly  # test_judge_engine.py has the judge on a real engine, test_elastic.py a stage in a pool
@pytest.mark.timeout(900)
def test_teacher_and_judge_each_have_a_pool(tmp_path: Path) -> None:
    one = {"max_model_len": 512, "max_num_seqs": 16}
    recipe = teacher(
        tmp_path,
        num_asks=24,
        generator={
            "kind": "teacher",
            "model": "package:smollm2",
            "threads": 1,
            "engine": one,
            "sampling": {"max_tokens": 40},
        },
        stages=[
            {"kind": "language"},
            {"kind": "judge", "model": "package:smollm2", "threads": 1, "engine": one, "max_in_flight": 8},
            {"kind": "dedup"},
        ],
        cluster={"num_cpus": 4, "pools": {"judge": {"lots_per_replica": 1}}},
    )
    done = gristmill("produce", recipe, "--out", str(tmp_path / "out"), timeout=800)
    assert done.returncode == 0, done.stderr
    rows = [row for path in shard_paths(tmp_path / "out") for row in pq.read_table(path).to_pylist()]
    assert rows
    assert all(1 <= row["judge_score"] <= 5 and row["judge_tokens_out"] > 0 for row in rows)
    assert gristmill("audit", str(tmp_path / "out")).returncode == 0
