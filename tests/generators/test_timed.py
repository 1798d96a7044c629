"""The speed of an engine while its batch is full, from the times of its calls."""

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.sizes import sizes_of
from gristmill.generators.timed import FULL, CallTime, full_rate
from tests import engine
from tests.generators.test_teacher import asks, questions


def calls_of(num_slots: int, tokens: list[int], speed: float) -> list[CallTime]:
    """Calls that wait for one of the slots, in order; each gets `speed` tokens a second."""
    free, calls = [0.0] * num_slots, []
    for number in tokens:
        begin = heapq.heappop(free)
        end = begin + number / speed
        calls.append(CallTime(begin, end, number))
        heapq.heappush(free, end)
    return calls


SLOTS, TOKENS = st.integers(1, 12), st.lists(st.integers(1, 200), min_size=12, max_size=60)
SPEED = st.floats(0.5, 50)


@given(SLOTS, TOKENS, SPEED)
def test_a_full_batch_has_the_speed_of_its_slots(num_slots: int, tokens: list[int], speed: float) -> None:
    """However unequal the answers: what one long answer takes at the end does not count."""
    calls = calls_of(num_slots, tokens, speed)
    rate = full_rate(calls, max(call.end or 0 for call in calls))
    assert FULL * num_slots * speed * 0.999 <= rate <= num_slots * speed * 1.001


@given(SLOTS, TOKENS, SPEED, st.floats(0.1, 0.9))
def test_calls_without_an_answer_count_as_fast_as_the_others(
    num_slots: int, tokens: list[int], speed: float, share: float
) -> None:
    calls = calls_of(num_slots, tokens, speed)
    end = share * max(call.end or 0 for call in calls)
    earlier = [call for call in calls if call.begin < end]
    for call in earlier:
        if call.end is not None and call.end > end:
            call.end, call.tokens = None, 0
    rate = full_rate(earlier, end)
    if all(call.end is None for call in earlier):
        assert rate == 0
    else:
        assert FULL * num_slots * speed * 0.999 <= rate <= num_slots * speed * 1.001


def test_no_answer_is_no_speed() -> None:
    assert full_rate([], 1.0) == 0
    assert full_rate([CallTime(0.0)], 5.0) == 0


@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_a_timed_teacher_writes_the_same_rows(shared_engine) -> None:
    from gristmill.generators.timed import TimedEngine, TimedTeacher

    teacher = engine.teacher(sampling={"temperature": 0.8, "max_tokens": 12})
    teacher._engine = shared_engine.engine
    timed = TimedTeacher(teacher.spec, teacher.program)
    timed._engine = timed.timed = TimedEngine(shared_engine.engine)
    batch = asks(questions(6))
    rows = shared_engine.loop.run(teacher.make(batch))
    assert shared_engine.loop.run(timed.make(batch)).equals(rows)
    assert list(timed.rows) and set(timed.rows) == set(batch.column("id").to_pylist())
    tokens = sum(rows.column("tokens_out").to_pylist())
    assert sum(call.tokens for call in timed.timed.calls) == tokens
    facts = sizes_of(shared_engine.engine)
    assert facts.max_num_seqs == 32 and facts.max_model_len == 2048 and facts.kv_cache_tokens > 2048
