"""The logprobs of an answer: how probable the model found its tokens, and how sure it was at each.

The entropy at a place is that of the NUM_CANDIDATES most probable tokens and of all other tokens as one more outcome,
which holds the rest of the probability. It is at most the entropy of the whole distribution, and 0 for a certain token.
Probabilities are the model's own, before temperature and penalties, and among the tokens that a structure allows.
"""

import math
from collections.abc import Sequence
from typing import Any

from gristmill.engines.contract import NUM_CANDIDATES, Logprobs


def logprobs_of(tokens: Sequence[float], candidates: Sequence[Sequence[float]]) -> Logprobs | None:
    """The logprobs of an answer from those of its tokens and of the candidates at their places, in nats.

    None for an answer without tokens. Of more than NUM_CANDIDATES candidates the most probable count; the entropy is
    NaN without any.
    """
    if not tokens:
        return None
    entropies = [entropy(sorted(place, reverse=True)[:NUM_CANDIDATES]) for place in candidates]
    return Logprobs(
        math.fsum(tokens) / len(tokens), min(tokens), math.fsum(entropies) / len(entropies) if entropies else math.nan
    )


def entropy(logprobs: Sequence[float]) -> float:
    """The entropy of some outcomes and the rest as one more outcome, in nats."""
    shares = [math.exp(logprob) for logprob in logprobs]
    rest = 1.0 - math.fsum(shares)
    parts = [share * math.log(share) for share in (*shares, rest) if share > 0]
    return max(0.0, -math.fsum(parts))


def answer_logprobs(output: Any, num_before: int) -> Logprobs | None:
    """The logprobs of the answer in a completion of vLLM, whose first `num_before` tokens come before the answer.

    The token that ends the reply is no part of it.
    """
    end = len(output.token_ids)
    if output.finish_reason == "stop" and not isinstance(output.stop_reason, str):
        end -= 1
    places = list(zip(output.token_ids, output.logprobs))[num_before:end]
    tokens = [candidates[token].logprob for token, candidates in places]
    return logprobs_of(tokens, [[each.logprob for each in candidates.values()] for _, candidates in places])
