"""Recognises an answer that a proxy delivers twice, so that it is not taken for that of another call."""

import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)

NUM_IDS = 16_384  # that are remembered


class Repeats:
    """Remembers the ids of answers, and a digest of each.

    An answer with the id and the content of an earlier one is a repeat. Some servers draw ids from a few hundred, so an
    id alone says nothing. Others give all answers the same id: there two equal answers are no repeat.
    """

    def __init__(self) -> None:
        self._digests: OrderedDict[str, bytes] = OrderedDict()  # by id
        self._num_ids = 0  # different ones
        self._num_equal = 0  # answers in a row that repeat the only id

    def is_repeat(self, data: Any) -> bool:
        """Whether an answer is an earlier one, delivered again."""
        answer_id = data.get("id") if isinstance(data, Mapping) else None
        if not isinstance(answer_id, str) or not answer_id:
            return False
        digest = hashlib.blake2b(json.dumps(data, sort_keys=True, default=str).encode(), digest_size=16).digest()
        earlier = self._digests.get(answer_id)
        self._digests[answer_id] = digest
        if earlier is None:
            self._num_ids += 1
            if len(self._digests) > NUM_IDS:
                self._digests.popitem(last=False)
            return False
        if self._num_ids > 1:
            return earlier == digest
        self._num_equal += 1
        if self._num_equal == 2 or (self._num_equal == 1 and earlier != digest):
            self._num_equal = 2
            logger.warning("the server gives all its answers the same id: a repeated answer is not noticed")
        return self._num_equal < 2
