"""The order in which the asks of a lot begin. It changes no row, only how well they share an engine."""

from collections.abc import Sequence

from gristmill.generators.contract import fields_of

LEAST_CHARS = 400  # of a text that is worth keeping in the engine's cache between asks


def begin_order(asks: Sequence[str | None], answers_follow_asks: bool) -> list[int] | None:
    """Numbers of the asks (JSON texts) in the order in which they begin; None: as they come.

    Asks about one long text begin together, so that the engine computes their common prefix once. Where answers are as
    long as their asks, long ones begin first, so that none is left alone at the end.
    """
    texts = [_long_text(ask) for ask in asks]
    groups: dict[str | int, list[int]] = {}
    for number, text in enumerate(texts):
        groups.setdefault(number if text is None else text, []).append(number)
    if len(groups) == len(asks) and not answers_follow_asks:
        return None
    lengths = [len(ask or "") if answers_follow_asks else 0 for ask in asks]
    ordered = sorted(groups.values(), key=lambda group: -max(lengths[number] for number in group))
    return [number for group in ordered for number in sorted(group, key=lambda number: -lengths[number])]


def _long_text(ask: str | None) -> str | None:
    """The longest text among the fields of an ask; None if it is short."""
    if ask is None or len(ask) < LEAST_CHARS:
        return None
    values = [value for value in (fields_of(ask) or {}).values() if isinstance(value, str)]
    longest = max(values, key=len, default="")
    return longest if len(longest) >= LEAST_CHARS else None
