"""Counts the rows of a mixture. Draw, card and audit use the same counts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gristmill.jobs.release.mixture.draw import Candidates, Draw
from gristmill.records.mixing.regimes import REAL, SYNTHETIC

DIGITS = 9  # decimal places of a fraction


def count_mixture(rows: Candidates, drawn: Draw, titles: Sequence[str], has_tokens: bool) -> dict[str, Any]:
    """Totals, fractions, parts and ancestry of the drawn rows, repeats included; tokens are null without text."""
    taken = np.flatnonzero(drawn.times)
    times, weights = drawn.times[taken].astype(np.int64), drawn.weights[taken]
    real, tokens = rows.is_real[taken], rows.tokens[taken]

    def sums(mask: np.ndarray) -> dict[str, int | None]:
        num = int(times[mask].sum())
        return {"rows": num, "tokens": int((times * tokens)[mask].sum()) if has_tokens else None}

    def share(amounts: np.ndarray) -> float:
        total = amounts.sum()
        return round(float(amounts[~real].sum() / total), DIGITS) if total else 0.0

    all_rows = np.ones(len(taken), bool)
    is_weighted = bool((weights != 1).any())
    ancestry = []
    for origin, has_origin in ((REAL, real), (SYNTHETIC, ~real)):
        for generation in np.unique(rows.generation[taken][has_origin]).tolist():
            group = sums(has_origin & (rows.generation[taken] == generation))
            ancestry.append({"origin": origin, "generation": generation, **group})
    return {
        "totals": {"all": sums(all_rows), "real": sums(real), "synthetic": sums(~real)},
        "fractions": {
            "rows": share(times),
            "tokens": share(times * tokens) if has_tokens else None,
            "rows_by_weight": share(times * weights) if is_weighted else None,
            "tokens_by_weight": share(times * weights * tokens) if is_weighted and has_tokens else None,
        },
        "repeated_rows": int((times - 1).sum()),
        "effective_rows": round(drawn.effective_rows(), 6),
        "parts": {title: sums(rows.part[taken] == number) for number, title in enumerate(titles)},
        "ancestry": ancestry,
    }
