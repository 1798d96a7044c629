"""The Batch API: calls that wait are sent together as a file, and their answers come within a day, at a lower price.

Calls are gathered until no further one comes for a moment. So the first calls of the lots in flight are one batch, and
methods of several calls go in rounds. The id of a request is a digest of what it asks. After a restart the same calls
have the same ids: batches of this client that the server still has are found, and their requests are not sent again.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Coroutine, Mapping, Set
from typing import Any

from gristmill.engines.endpoint.client import fault_of
from gristmill.engines.endpoint.faults import Fault, Kind, clean_line, response_fault
from gristmill.engines.endpoint.settings import EndpointSettings

logger = logging.getLogger(__name__)

GATHER_S, LONGEST_GATHER_S = 2.0, 30.0  # without a further call, and since the first
MAX_CALLS, MAX_BYTES = 50_000, 150 * 2**20  # of a batch; OpenAI allows 50,000 and 200 MB
MAX_BATCHES = 1_000  # of the server's list that are looked at, newest first
SEARCH_DEPTH = 4  # times the calls at once: no process dies with more calls than that in its last batches
MARK = "gristmill"  # key of the metadata of our batches
WINDOW = "24h"
RUNNING = ("validating", "in_progress", "finalizing", "cancelling")
WAIT_S = 60.0  # before calls are sent again that the server has no room for


def request_id(body: Mapping[str, Any], seed: int) -> str:
    """The id of a request: 128 bits of what it asks."""
    content = json.dumps([body, seed], sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class BatchSender:
    """Sends calls by batches. All methods are called on one event loop."""

    def __init__(self, spec: EndpointSettings, client: Any, path: str) -> None:
        self.spec, self.client, self.path = spec, client, path
        self.num_batches = 0  # sent
        self._mark = hashlib.blake2b(f"{spec.model} {path}".encode(), digest_size=8).hexdigest()
        self._futures: dict[str, asyncio.Future[Any]] = {}  # of the calls that wait, by request id
        self._answers: dict[str, Any] = {}  # of earlier batches, for calls that have not come yet
        self._running: set[str] = set()  # ids of requests in batches that run
        self._queue: list[tuple[str, bytes]] = []  # (id, line of the file) of the next batch
        self._num_bytes = 0
        self._arrived_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._search: asyncio.Future[None] | None = None

    async def send(self, body: Mapping[str, Any], seed: int) -> Any:
        """The JSON of the answer to a request. Raises Fault."""
        if self._search is None:
            self._search = asyncio.ensure_future(self._find())
        try:
            await asyncio.shield(self._search)
        except Fault:
            self._search = None
            raise
        key = request_id(body, seed)
        if key in self._answers:
            return self._answers.pop(key)
        if (future := self._futures.get(key)) is None:
            future = self._futures[key] = asyncio.get_running_loop().create_future()
            if key not in self._running:
                self._put(key, body)
        return await asyncio.shield(future)

    def close(self) -> None:
        """Stop to wait. The batches go on at the server."""
        for task in self._tasks:
            task.cancel()

    def _start(self, work: Coroutine[Any, Any, None], keys: Set[str] = frozenset()) -> None:
        """Run `work`. If it fails, whatever the reason, the calls `keys` get the fault: none waits for ever."""

        async def guard() -> None:
            try:
                await work
            except Fault as fault:
                self._fail(keys, fault)
            except Exception as error:  # noqa: BLE001 - a server may send anything
                self._fail(keys, fault_of(error))
            finally:
                self._running -= keys

        task = asyncio.ensure_future(guard())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Gathering

    def _put(self, key: str, body: Mapping[str, Any]) -> None:
        request = {"custom_id": key, "method": "POST", "url": f"/v1{self.path}", "body": body}
        line = json.dumps(request).encode() + b"\n"
        if self._queue and (len(self._queue) >= MAX_CALLS or self._num_bytes + len(line) > MAX_BYTES):
            self._flush()
        if not self._queue:
            self._start(self._gather())
        self._queue.append((key, line))
        self._num_bytes += len(line)
        self._arrived_at = asyncio.get_running_loop().time()

    async def _gather(self) -> None:
        """Send the queue when no further call has come for a moment."""
        loop, queue = asyncio.get_running_loop(), self._queue
        began_at = loop.time()
        while self._queue is queue:
            now = loop.time()
            wait_s = min(self._arrived_at + GATHER_S, began_at + LONGEST_GATHER_S) - now
            if wait_s <= 0:
                self._flush()
                return
            await asyncio.sleep(wait_s)

    def _flush(self) -> None:
        queue, self._queue, self._num_bytes = self._queue, [], 0
        keys = {key for key, _ in queue}
        self._start(self._run(queue, keys), keys)

    async def _run(self, queue: list[tuple[str, bytes]], keys: Set[str]) -> None:
        """Send a batch and deliver its answers. Raises Fault, and errors of the client."""
        content = b"".join(line for _, line in queue)
        file = await self.client.files.create(file=("gristmill.jsonl", content), purpose="batch")
        batch = await self.client.batches.create(
            input_file_id=file.id,
            endpoint=f"/v1{self.path}",
            completion_window=WINDOW,
            metadata={MARK: self._mark, "calls": str(len(queue))},
        )
        self.num_batches += 1
        logger.info(f"{self.spec.words}: batch {batch.id} of {len(queue):,} calls")
        await self._watch(batch, keys)

    # Answers

    async def _watch(self, batch: Any, keys: Set[str]) -> None:
        """Wait until a batch has ended, then deliver its answers. Raises Fault."""
        self._running |= keys
        batch = await self._ended(batch)
        answers = await self._read(batch)
        self._running -= keys
        for key, answer in answers.items():
            self._deliver(key, answer)
        self._fail(keys - set(answers), _failure(batch))

    async def _ended(self, batch: Any) -> Any:
        """The batch once it has ended. Raises Fault when the server does not answer for `retry_s`."""
        loop = asyncio.get_running_loop()
        answered_at = loop.time()
        while batch.status in RUNNING:
            await asyncio.sleep(self.spec.batch_poll_s)
            try:
                batch = await self.client.batches.retrieve(batch.id)
                answered_at = loop.time()
            except Exception as error:  # noqa: BLE001 - the client raises errors of several libraries
                fault = fault_of(error)
                if fault.kind not in ("busy", "broken") or loop.time() - answered_at > self.spec.retry_s:
                    raise fault from None
        return batch

    async def _read(self, batch: Any) -> dict[str, Any]:
        """The answers of a batch by request id: the JSON of a response, or a Fault. Raises Fault."""
        answers: dict[str, Any] = {}
        for file in filter(None, (batch.error_file_id, batch.output_file_id)):
            for line in await self._lines(file):
                answers[line["custom_id"]] = _answer(line)
        return answers

    async def _lines(self, file: str) -> list[dict[str, Any]]:
        """The lines of a file of the server that have an id. Raises Fault when there is no file."""
        try:
            content = (await self.client.files.content(file)).content
        except Exception as error:  # noqa: BLE001 - the client raises errors of several libraries
            raise fault_of(error) from None
        texts = [text for text in content.splitlines() if text.strip()]
        lines = [line for text in texts if (line := _line(text)) is not None]
        if len(lines) < len(texts):
            num = len(texts) - len(lines)
            logger.warning(
                f"{self.spec.words}: {num:,} lines of file {file} cannot be read; their calls are sent again"
            )
        return lines

    def _deliver(self, key: str, answer: Any) -> None:
        future = self._futures.pop(key, None)
        if future is None:
            if not isinstance(answer, Fault):
                self._answers[key] = answer  # its call has not come yet
        elif not future.done():
            if isinstance(answer, Fault):
                future.set_exception(answer)
                future.exception()  # its call may have been cancelled
            else:
                future.set_result(answer)

    def _fail(self, keys: Set[str], fault: Fault) -> None:
        for key in keys:
            self._deliver(key, fault)

    # After a restart

    async def _find(self) -> None:
        """Take up the batches that an earlier process has sent. Raises Fault."""
        num = num_calls = 0
        try:
            async for batch in self.client.batches.list(limit=100):
                num += 1
                if num > MAX_BATCHES or num_calls > SEARCH_DEPTH * self.spec.most_in_flight:
                    break
                if (batch.metadata or {}).get(MARK) == self._mark:
                    num_calls += await self._take_up(batch)
        except Fault:
            raise
        except Exception as error:  # noqa: BLE001 - the client raises errors of several libraries
            raise fault_of(error) from None

    async def _take_up(self, batch: Any) -> int:
        """Wait for a batch, or take its answers; the number of its calls. Raises Fault."""
        try:
            if batch.status in RUNNING:
                keys = {line["custom_id"] for line in await self._lines(batch.input_file_id)}
                self._running |= keys
                self._start(self._watch(batch, keys), keys)
                logger.info(f"{self.spec.words}: batch {batch.id} of {len(keys):,} calls is still in work")
            elif batch.output_file_id:
                answers = await self._read(batch)
                self._answers |= {key: answer for key, answer in answers.items() if not isinstance(answer, Fault)}
        except Fault as fault:
            if not fault.is_absence:
                raise
            logger.warning(f"{self.spec.words}: the files of batch {batch.id} are no longer there")
        calls = str(batch.metadata.get("calls"))
        return int(calls) if calls.isdecimal() else 0


def _line(text: bytes) -> dict[str, Any] | None:
    """A line of a file; None for one without an id."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("custom_id"), str) else None


def _answer(line: Mapping[str, Any]) -> Any:
    """The answer in a line: the JSON of a response, or a Fault."""
    response = line.get("response")
    response = response if isinstance(response, Mapping) else {}
    status, body = response.get("status_code"), response.get("body")
    if status == 200 and body is not None:
        return body
    return response_fault(
        status if isinstance(status, int) and status >= 400 else 500, body or line.get("error") or "", {}
    )


def _failure(batch: Any) -> Fault:
    """The fault of a request for which an ended batch has no answer."""
    errors = getattr(batch.errors, "data", None) or []
    if batch.status != "failed" or not errors:
        # A batch that has come to its end may lack an answer again and again: that counts against its ask.
        kind: Kind = "broken" if batch.status == "completed" else "busy"
        return Fault(kind, "no answer in the batch", clean_line(f"the batch is {batch.status}"))
    text = clean_line(f"{errors[0].code}: {errors[0].message}")
    if "limit" in text.lower():
        return Fault("busy", "the batch has no room", text, WAIT_S)
    return Fault("run", "the batch failed", text)
