"""The numbers of a comparison: measures of each student, their means and intervals, and paired differences."""

from collections.abc import Sequence
from typing import Any

from gristmill.generators.lm.student import Measures
from gristmill.jobs.compare.inputs import REAL, Corpus


def summary(corpora: Sequence[Corpus], students: Sequence[Measures]) -> list[dict[str, Any]]:
    """A row for each corpus, the best first: mean and half-width of each measure, and of the difference to real text.

    Intervals are Student's, 95 %, over seeds. Differences are paired by seed. A half-width of one seed is None.
    """
    by_corpus = {corpus.name: _by_seed(students, corpus.name) for corpus in corpora}
    rows = []
    for corpus in corpora:
        of_seeds = by_corpus[corpus.name]
        if not of_seeds:
            continue
        bits = [s["bits_per_byte"] for s in of_seeds.values()]
        perplexities = [s["perplexity"] for s in of_seeds.values()]
        probes = {p: [s["probes"][p] for s in of_seeds.values()] for p in next(iter(of_seeds.values()))["probes"]}
        rows.append(
            {
                "corpus": corpus.name,
                "path": corpus.path,
                "num_texts": corpus.num_texts,
                "num_seeds": len(of_seeds),
                "bits_per_byte": _interval(bits),
                "perplexity": _interval(perplexities),
                "probes": {name: _interval(values) for name, values in probes.items()},
                "to_real": None if corpus.name == REAL else difference(of_seeds, by_corpus[REAL]),
            }
        )
    return sorted(rows, key=lambda row: row["bits_per_byte"]["mean"])


def difference(of_seeds: dict[int, Measures], of_others: dict[int, Measures]) -> dict[str, Any] | None:
    """Mean and half-width of the difference in bits per byte, paired by seed; None without a common seed."""
    common = sorted(of_seeds.keys() & of_others.keys())
    return _interval([of_seeds[s]["bits_per_byte"] - of_others[s]["bits_per_byte"] for s in common]) if common else None


def verdict(rows: Sequence[dict[str, Any]], students: Sequence[Measures]) -> str:
    """Which synthetic corpus was best, and whether the next one is surely worse."""
    synthetic = [row for row in rows if row["corpus"] != REAL]
    if not synthetic:
        return ""
    best = synthetic[0]["corpus"]
    if len(synthetic) == 1:
        gap = synthetic[0]["to_real"]
        return f"'{best}' against as much real text: {_words(gap)} bits per byte" if gap else ""
    second = synthetic[1]["corpus"]
    gap = difference(_by_seed(students, second), _by_seed(students, best))
    if gap is None:
        return ""
    if gap["half"] is None:
        return (
            f"'{best}' is ahead of '{second}' by {gap['mean']:.4f} bits per byte, by a single seed: take more --seeds"
        )
    if gap["mean"] > gap["half"]:
        return f"'{best}' helps most: '{second}' needs {_words(gap)} bits per byte more"
    return (
        f"'{best}' and '{second}' are not told apart: {_words(gap)} bits per byte; take more --seeds, or more --tokens"
    )


def _words(gap: dict[str, Any]) -> str:
    return f"{gap['mean']:+.4f}" if gap["half"] is None else f"{gap['mean']:+.4f} ± {gap['half']:.4f}"


def _interval(values: list[float]) -> dict[str, Any]:
    from gristmill.evaluation.intervals import t_interval

    mean, half = t_interval(values)
    return {"mean": mean, "half": half}


def _by_seed(students: Sequence[Measures], corpus: str) -> dict[int, Measures]:
    return {s["seed"]: s for s in students if s["corpus"] == corpus}
