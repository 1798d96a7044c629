"""Logprobs of an answer: mean, least, and the entropy of the candidates with the rest as one more outcome."""

import math
from types import SimpleNamespace as Namespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.contract import NUM_CANDIDATES, Logprobs
from gristmill.engines.logprobs import answer_logprobs, entropy, logprobs_of

SHARES = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=40)


@given(SHARES, st.floats(0.05, 1.0))
def test_the_entropy_of_candidates_is_at_most_that_of_the_whole_distribution(weights: list[float], seen: float) -> None:
    shares = sorted((weight / sum(weights) for weight in weights), reverse=True)
    whole = -math.fsum(share * math.log(share) for share in shares)
    some = shares[: max(1, int(seen * len(shares)))]
    found = entropy([math.log(share) for share in some])
    assert -1e-9 <= found <= whole + 1e-9
    assert found <= math.log(len(some) + 1) + 1e-9
    if len(some) == len(shares):
        assert found == pytest.approx(whole, abs=1e-6)


def test_a_certain_token_has_no_entropy_and_equal_ones_have_the_most() -> None:
    assert entropy([0.0]) == 0.0 and entropy([0.0, -math.inf]) == 0.0
    assert entropy([math.log(0.25)] * 4) == pytest.approx(math.log(4))
    assert entropy([math.log(0.5)]) == pytest.approx(math.log(2))  # the rest is the other half


def test_only_the_most_probable_candidates_count() -> None:
    place = [math.log(1 / 32)] * 32
    expected = entropy(place[:NUM_CANDIDATES])
    assert logprobs_of([-1.0, -3.0], [place, place]) == Logprobs(-2.0, -3.0, pytest.approx(expected))
    assert logprobs_of([], []) is None


def test_only_the_tokens_of_the_answer_count() -> None:
    def places(*values: float) -> list[dict[int, Namespace]]:
        return [{at: Namespace(logprob=value)} for at, value in enumerate(values)]

    def output(finish: str, stop: int | str | None) -> Namespace:
        logprobs = places(-9.0, -1.0, -2.0, -7.0)
        return Namespace(token_ids=[0, 1, 2, 3], logprobs=logprobs, finish_reason=finish, stop_reason=stop)

    assert answer_logprobs(output("stop", None), 1) == Logprobs(
        -1.5, -2.0, pytest.approx((entropy([-1.0]) + entropy([-2.0])) / 2)
    )
    assert answer_logprobs(output("stop", 3), 0).min == -9.0  # type: ignore[union-attr]
    assert answer_logprobs(output("length", None), 1).min == -7.0  # type: ignore[union-attr]
    assert answer_logprobs(output("stop", "end"), 1).min == -7.0  # type: ignore[union-attr]
    assert answer_logprobs(output("stop", None), 3) is None
