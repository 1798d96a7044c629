"""Reads scores from a judge's answer. An unreadable answer is a missing score, never an error."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def schema_of(names: Sequence[str], low: int, high: int) -> dict[str, Any]:
    """JSON schema of an object with a score on the scale under each of `names`."""
    score = {"type": "integer", "minimum": low, "maximum": high}
    return {
        "type": "object",
        "properties": {name: dict(score) for name in names},
        "required": list(names),
        "additionalProperties": False,
    }


def read_scores(text: str, names: Sequence[str], low: int, high: int) -> tuple[int, ...] | None:
    """The scores under `names` in a judge's answer; None unless all are present and on the scale."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, Mapping):
        return None
    scores = []
    for name in names:
        score = answer.get(name)
        if not isinstance(score, int) or isinstance(score, bool) or not low <= score <= high:
            return None
        scores.append(score)
    return tuple(scores)


def read_score(text: str, low: int, high: int) -> int | None:
    """The score in a judge's answer; None if it is missing or off the scale."""
    scores = read_scores(text, ("score",), low, high)
    return scores[0] if scores else None
