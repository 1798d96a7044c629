r"""The stage `consistency`: majorities, ties, shares, and that the order of samples matters to ties alone."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.spec import build, literals
from gristmill.stages.verify.consistency import Consistency, ConsistencySpec, majority

SCHEMA = pa.schema([("answers", pa.list_(pa.string())), ("answer", pa.string()), ("reject", pa.string())])


def run(rows: list[tuple[list[str | None] | None, str | None]], **settings: Any) -> list[dict[str, Any]]:
    stage = Consistency(build(ConsistencySpec, settings, "stages[0]"))
    batch = pa.RecordBatch.from_pylist([{"answers": a, "answer": own, "reject": None} for a, own in rows], SCHEMA)
    try:
        told: list[dict[str, Any]] = stage.run(batch).to_pylist()
        return told
    finally:
        stage.close()


@pytest.fixture(scope="module")
def algebraic() -> Iterator[Consistency]:
    made = Consistency(ConsistencySpec(math=True))
    yield made
    made.close()


def test_the_majority_is_kept_and_the_rest_rejected() -> None:
    told = run(
        [
            (["18", "The answer is 18.", "$18", "26", "14"], "18"),
            (["18", "18", "18.0"], "26"),
            (["1", "2", "3", "3"], "3"),
            ([], "3"),
            ([None, " "], "3"),
            (None, "3"),
            (["18", "18", None, None, None], "18"),
            (["18", "18"], None),
        ],
        min_share=0.5,
    )
    assert [row["consistency_answer"] for row in told] == ["18", "18", "3", None, None, None, "18", "18"]
    assert [row["consistency_votes"] for row in told] == [3, 3, 2, None, None, None, 2, 2]
    assert told[0]["consistency_share"] == pytest.approx(0.6) and told[6]["consistency_share"] == pytest.approx(0.4)
    reasons = [None, "minority", None, "no_answer", "no_answer", "no_answer", "share", "minority"]
    assert [row["reject"] for row in told] == [r and f"consistency:{r}" for r in reasons]


def test_a_tie_goes_to_the_answer_given_first() -> None:
    told = run([(["b+1", "a+1", "a+1", "b+1"], None), (["1/2", "2", "0.5", "2.0"], None)], own="")
    assert [(row["consistency_answer"], row["consistency_votes"]) for row in told] == [("b+1", 2), ("1/2", 2)]
    assert all(row["reject"] is None for row in told)


def test_algebra_joins_what_text_cannot() -> None:
    samples = [r"2\sqrt{2}", r"\sqrt{8}", "3", "3", r"\boxed{8^{1/2}}"]
    plain, by_algebra = (run([(samples, r"\sqrt{8}")], math=m, min_share=0.4)[0] for m in (False, True))
    assert (plain["consistency_answer"], plain["reject"]) == ("3", "consistency:minority")
    assert (by_algebra["consistency_answer"], by_algebra["consistency_votes"]) == (r"2\sqrt{2}", 3)
    assert by_algebra["reject"] is None


@pytest.mark.parametrize("own", ["1 + x", "x + 1", "1+x", "x+1", "$1 + x$", r"\boxed{x + 1}"])
@pytest.mark.parametrize("samples", [["x+1", "x+1", "1+x"], ["1+x", "x+1", "x+1"], ["x+1", "x + 1"]])
def test_the_own_answer_may_be_spaced_as_no_sample_is(algebraic: Consistency, samples: list[str], own: str) -> None:
    batch = pa.RecordBatch.from_pylist([{"answers": samples, "answer": own, "reject": None}], SCHEMA)
    (row,) = algebraic.run(batch).to_pylist()
    assert (row["reject"], row["consistency_answer"], row["consistency_votes"]) == (None, samples[0], len(samples))
    batch = pa.RecordBatch.from_pylist([{"answers": samples, "answer": "x + 2", "reject": None}], SCHEMA)
    assert algebraic.run(batch).column("reject").to_pylist() == ["consistency:minority"]


def test_the_own_answer_is_compared_where_there_is_one() -> None:
    batch = pa.RecordBatch.from_pylist([{"answers": ["1", "1"], "mine": "2", "reject": None}],
        pa.schema([("answers", pa.list_(pa.string())), ("mine", pa.string()), ("reject", pa.string())]),
    )  # fmt: skip
    assert Consistency(ConsistencySpec()).run(batch).column("reject").to_pylist() == [None]
    named = Consistency(ConsistencySpec(own="mine"))
    assert named.reads() == ["answers", "mine"]
    assert named.run(batch).column("reject").to_pylist() == ["consistency:minority"]


def test_limits_of_algebra_bear_identity_where_it_is_used_and_its_workers_nowhere() -> None:
    def identity(**table: Any) -> Any:
        return literals(build(ConsistencySpec, table, "stages[0]"), identity=True)

    assert identity(math=True, algebra={"workers": 3}) == identity(math=True)
    assert identity(math=True, algebra={"deadline_s": 9}) != identity(math=True)
    assert identity(algebra={"deadline_s": 9}) == identity() != identity(math=True)


def test_refusals() -> None:
    stage = Consistency(ConsistencySpec(own="answer"))
    assert stage.refuses(pa.field("answers", pa.string())) == "is not a list of texts"
    assert stage.refuses(pa.field("answers", pa.list_(pa.int64()))) == "is not a list of texts"
    assert stage.refuses(pa.field("answer", pa.int64())) == "holds no text"
    assert stage.refuses(pa.field("answers", pa.list_(pa.string()))) is None
    for spec in ({"min_share": 1.5}, {"extract": []}):
        with pytest.raises(UserError, match="stages"):
            build(ConsistencySpec, spec, "stages[0]")


SAMPLES = st.lists(st.integers(0, 3).map(str), min_size=1, max_size=9)


@given(SAMPLES, st.integers(0, 5), st.randoms(use_true_random=False))
def test_votes_are_counted(samples: list[str], num_silent: int, shuffler: Any) -> None:
    vote = majority(samples, len(samples) + num_silent, {})
    counts = Counter(samples)
    assert vote is not None and vote.votes == max(counts.values()) == counts[vote.answer]
    assert vote.share == vote.votes / (len(samples) + num_silent)
    assert vote.answer == next(s for s in samples if counts[s] == vote.votes)
    shuffled = list(samples)
    shuffler.shuffle(shuffled)
    other = majority(shuffled, len(samples) + num_silent, {})
    assert other is not None and (other.votes, other.share) == (vote.votes, vote.share)


@pytest.fixture(scope="module")
def open_stage() -> Iterator[Consistency]:
    yield Consistency(ConsistencySpec())


@given(
    rows=st.lists(st.tuples(st.none() | st.lists(st.none() | st.text(max_size=20), max_size=5), st.none() | st.text()))
)
def test_any_lists_are_judged_row_by_row(open_stage: Consistency, rows: Any) -> None:
    batch = pa.RecordBatch.from_pylist([{"answers": a, "answer": own, "reject": None} for a, own in rows], SCHEMA)
    together = open_stage.run(batch)
    for number in range(batch.num_rows):
        assert open_stage.run(batch.slice(number, 1)).equals(together.slice(number, 1))
