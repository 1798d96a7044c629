"""BLEU of one text, as a reference for self-BLEU."""

import math
from collections import Counter
from collections.abc import Sequence

from gristmill.evaluation.text import Tokens, ngrams


def bleu(text: Tokens, references: Sequence[Tokens], max_n: int = 4, floor: float = 0.0) -> float:
    """Clipped n-gram precisions, their geometric mean with equal weights, and the brevity penalty by the reference of
    the closest length, of two the shorter (Papineni et al. 2002, sections 2.1 to 2.3).

    A precision of 0 makes it 0. With `floor`, that many hits are counted instead (Chen and Cherry 2014, smoothing 1).
    """
    logs = []
    for n in range(1, max_n + 1):
        counts = Counter(ngrams(text, n))
        limits = [Counter(ngrams(reference, n)) for reference in references]
        hits = sum(min(count, max(limit[gram] for limit in limits)) for gram, count in counts.items()) or floor
        if not hits:
            return 0.0
        logs.append(math.log(hits / counts.total()))
    closest = min((len(r) for r in references), key=lambda length: (abs(length - len(text)), length))
    return math.exp(min(0.0, 1 - closest / len(text)) + sum(logs) / max_n)
