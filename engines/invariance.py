"""A probe of batch invariance: whether an engine computes the same for an ask alone and among others, bit for bit.

It compares the log-probabilities of the first tokens. A difference in the order of a sum shows there at once, where
texts agree for a while. So a few tokens tell more than long answers.
"""

import asyncio
from typing import Protocol

Trace = tuple[tuple[int, float], ...]  # (token id, its log-probability) for each token of an answer

NUM_ALONE, NUM_BESIDE, NUM_TOKENS = 2, 30, 3


class Traced(Protocol):
    """An engine that tells the log-probabilities of an answer."""

    async def trace(self, text: str, num_tokens: int, seed: int) -> Trace:
        """The tokens of a continuation of `text` with their log-probabilities."""

    async def forget(self) -> None:
        """Empty the cache of prompts, from which an answer would be taken instead of being computed."""


async def is_invariant(engine: Traced) -> bool:
    """Whether NUM_ALONE asks of different lengths get the same traces alone and beside NUM_BESIDE others."""
    texts = [" ".join(str(number) for number in range(n, n + 3 + n // 3)) for n in range(NUM_ALONE + NUM_BESIDE)]
    alone = [await engine.trace(texts[n], NUM_TOKENS, n) for n in range(NUM_ALONE)]
    await engine.forget()
    together = await asyncio.gather(*[engine.trace(text, NUM_TOKENS, n) for n, text in enumerate(texts)])
    return together[:NUM_ALONE] == alone
