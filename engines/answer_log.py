"""The answers of a lot in one process: those that are kept in the output, and those that are not kept yet."""

import asyncio
import logging
import secrets
import threading
import time
from collections import deque
from typing import Any

from gristmill.records.errors import UserError
from gristmill.records.output.answers import AnswerFolder, Record, keep, name_of, records_of
from gristmill.records.stores.retry import retry_s

logger = logging.getLogger(__name__)

PUT_SHARE = 0.25  # of `flush_s` that is left for the put itself
OVERDUE_FLUSHES = 5  # an answer that is kept so late holds back further calls
LOOK_S = 0.05


class AnswerLog:
    """Keeps answers within `flush_s` seconds, in batches.

    All methods but `flush` are called on one event loop.
    """

    def __init__(self, folder: AnswerFolder, part: str, lot: int, flush_s: float) -> None:
        self.folder, self.part, self.lot, self.flush_s = folder, part, lot, flush_s
        self._kept: dict[tuple[str, str], Any] = {}  # by row and key
        self._pending: deque[tuple[float, Record]] = deque()  # with the times of the answers
        self._batch: list[Record] = []  # that is being put: a put that failed is repeated with the same content
        self._batch_since = 0.0
        self._writer, self._num_put = secrets.token_hex(8), 0
        self._flushing = threading.Lock()
        self._timer: asyncio.Task[None] | None = None
        self._failing_since: float | None = None
        self._error: UserError | None = None

    async def load(self) -> None:
        """Read what is kept of the lot. Raises UserError when the store cannot be read."""
        for record in await asyncio.to_thread(lambda: list(records_of(self.folder, self.lot))):
            if record.part == self.part:
                self._kept.setdefault((record.row, record.key), record.value)

    def value(self, row_id: str, key: str) -> Any:
        """What is kept under a key of a row, as literals; None for nothing."""
        return self._kept.get((row_id, key))

    def keep(self, row_id: str, key: str, value: Any, cost: float = 0.0) -> None:
        """Keep literals under a key of a row."""
        self._kept[row_id, key] = value
        self._pending.append((time.monotonic(), Record(self.part, row_id, key, value, cost)))
        if self._timer is None or self._timer.done():
            self._timer = asyncio.ensure_future(self._flush_soon())

    async def room(self) -> None:
        """Wait while answers are kept too late: what is paid for meanwhile would be lost with this process.

        Raises UserError when the store has failed for too long.
        """
        while self._error is None and self._age_s > OVERDUE_FLUSHES * self.flush_s:
            await asyncio.sleep(LOOK_S)
        if self._error is not None:
            raise self._error

    @property
    def _age_s(self) -> float:
        """Age of the oldest answer that is not kept yet."""
        try:
            since = self._batch_since if self._batch else self._pending[0][0]
        except IndexError:
            return 0.0
        return time.monotonic() - since

    def flush(self) -> None:
        """Put what is not put yet. Raises UserError or OSError; another call tries again. Any thread may call it."""
        with self._flushing:
            while self._batch or self._pending:
                if not self._batch:
                    answers = [self._pending.popleft() for _ in range(len(self._pending))]
                    self._batch_since, self._batch = answers[0][0], [record for _, record in answers]
                keep(self.folder, name_of(self.lot, self._writer, self._num_put), self._batch)
                self._num_put += 1
                self._batch = []
            self._failing_since = None

    def flush_once(self) -> None:
        """`flush` at an end that cannot wait: a failure is logged."""
        try:
            self.flush()
        except (UserError, OSError) as error:
            logger.warning(f"lot {self.lot}: the last answers are not kept: {error}")

    async def flush_all(self) -> None:
        """Put all answers. Raises UserError when the store has failed for too long."""
        while self._batch or self._pending:
            await self._try_flush()
            if self._error is not None:
                raise self._error

    async def _flush_soon(self) -> None:
        """Put the answers when the first of them has waited long enough for others."""
        while (self._pending or self._batch) and self._error is None:
            await asyncio.sleep(max(0.0, (1 - PUT_SHARE) * self.flush_s - self._age_s))
            await self._try_flush()

    async def _try_flush(self) -> None:
        try:
            await asyncio.to_thread(self.flush)
        except (UserError, OSError) as error:
            now = time.monotonic()
            if self._failing_since is None:
                self._failing_since = now
                logger.warning(f"lot {self.lot}: answers are not kept yet, so calls wait: {error}")
            elif now - self._failing_since > retry_s():
                self._error = UserError(
                    f"answers that are paid for cannot be kept ({error}); repair that, and run the same command again"
                )
                return
            await asyncio.sleep(self.flush_s / OVERDUE_FLUSHES)

    def stop(self) -> None:
        """End the timer. A put that has begun goes on."""
        if self._timer is not None:
            self._timer.cancel()
