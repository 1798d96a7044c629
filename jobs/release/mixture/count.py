"""What a mixture comes to, counted row by row: the same count for the draw, for the card and for the audit."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gristmill.jobs.release.mixture.draw import Candidates, Drawn
from gristmill.records.mixing.regimes import REAL, SYNTHETIC

DIGITS = 9  # of a fraction


def counted(rows: Candidates, drawn: Drawn, titles: Sequence[str], has_tokens: bool) -> dict[str, Any]:
    """Totals, fractions, parts and ancestry of the rows that were taken, repeats included; tokens null without text."""
    taken = np.flatnonzero(drawn.times)
    times, weights = drawn.times[taken].astype(np.int64), drawn.weights[taken]
    real, tokens = rows.is_real[taken], rows.tokens[taken]

    def sums(which: np.ndarray) -> dict[str, int | None]:
        num = int(times[which].sum())
        return {"rows": num, "tokens": int((times * tokens)[which].sum()) if has_tokens else None}

    def share(amounts: np.ndarray) -> float:
        total = amounts.sum()
        return round(float(amounts[~real].sum() / total), DIGITS) if total else 0.0

    every = np.ones(len(taken), bool)
    weighted = bool((weights != 1).any())
    ancestry = []
    for origin, mask in ((REAL, real), (SYNTHETIC, ~real)):
        for generation in np.unique(rows.generation[taken][mask]).tolist():
            found = sums(mask & (rows.generation[taken] == generation))
            ancestry.append({"origin": origin, "generation": generation, **found})
    return {
        "totals": {"all": sums(every), "real": sums(real), "synthetic": sums(~real)},
        "fractions": {
            "rows": share(times),
            "tokens": share(times * tokens) if has_tokens else None,
            "rows_by_weight": share(times * weights) if weighted else None,
            "tokens_by_weight": share(times * weights * tokens) if weighted and has_tokens else None,
        },
        "repeated_rows": int((times - 1).sum()),
        "effective_rows": round(drawn.effective_rows(), 6),
        "parts": {title: sums(rows.part[taken] == number) for number, title in enumerate(titles)},
        "ancestry": ancestry,
    }
