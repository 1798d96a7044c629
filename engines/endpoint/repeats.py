"""Recognises an answer that a proxy delivers twice, so that it is not taken for that of another call."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

NUM_IDS = 16_384  # that are remembered


class Repeats:
    """Remembers the ids of answers. Where a server gives all the same id, ids say nothing and are not compared."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._last: str | None = None  # the repeated id of the last answer
        self._are_useful = True

    def is_repeat(self, data: Any) -> bool:
        """Whether an answer has the id of an earlier one."""
        answer_id = data.get("id") if isinstance(data, Mapping) else None
        if not self._are_useful or not isinstance(answer_id, str) or not answer_id:
            return False
        if answer_id not in self._ids:
            self._ids[answer_id] = self._last = None
            if len(self._ids) > NUM_IDS:
                self._ids.popitem(last=False)
            return False
        if self._last == answer_id:
            self._are_useful = False  # it came a third time, without another between: a constant
            return False
        self._last = answer_id
        return True
