"""The engine behind an endpoint: one prompt in, one reply out, by the async client of the `openai` package.

Its own retries are off: this file waits, sends again and gives up, so that every call is counted. Answers are not
streamed: at 1,000 calls in flight the chunks of a stream would take more than a core. A body that ends early is an
error of the connection, and the call is sent again.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from gristmill.engines.contract import FREE_TEXT, AnswerForm, Messages, Reply
from gristmill.engines.endpoint.answer import read_answer, stated_cost
from gristmill.engines.endpoint.batch import BatchSender
from gristmill.engines.endpoint.client import async_client, fault_of, secrets_in_environment
from gristmill.engines.endpoint.faults import EndpointDown, Fault
from gristmill.engines.endpoint.limiter import Limiter
from gristmill.engines.endpoint.preflight import check_endpoint
from gristmill.engines.endpoint.repeats import Repeats
from gristmill.engines.endpoint.request import RequestWriter, num_chars
from gristmill.engines.endpoint.settings import EndpointSettings
from gristmill.engines.endpoint.structure import PROBE_PROMPT
from gristmill.engines.errors import AskRefused, EngineDead
from gristmill.engines.user_turn import is_users
from gristmill.records.errors import UserError

logger = logging.getLogger(__name__)

MAX_WEIGHT = 6  # of the faults of a call while others are answered; then its ask is refused
MAX_LOST = 16  # asks that may be refused for it while they are more than LOST_SHARE of the answers
LOST_SHARE = 0.01
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0  # between two tries of a call
PROBE_S = 60.0  # after that a probe counts as not answered
NO_USER_TURN = "an endpoint does not let the model write the user's message"


class EndpointEngine:
    """An open endpoint. All methods are called on one event loop."""

    synchronous = False

    def __init__(self, spec: EndpointSettings) -> None:
        self.spec, self.flush_s = spec, spec.flush_s
        self.limiter = Limiter(
            spec.most_in_flight, spec.requests_per_minute, spec.tokens_per_minute, not spec.batch_api
        )
        self.writer = RequestWriter(spec)
        self.served: dict[str, Any] = {}  # what the preflight has seen
        self._connect: Callable[[], Any] | None = None  # makes a client; None: not open
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None  # to which the connections of the client belong
        self._batches: BatchSender | None = None
        self._repeats = Repeats()
        self._probe: asyncio.Task[float] | None = None  # the last
        self._random = random.Random()  # of waiting times only
        self.num_answers = self._num_lost = 0
        self.answered_at = 0.0  # on the clock of the loop
        self._tokens_per_char = 0.4

    def open(self, sampling: Mapping[str, Any], form: AnswerForm = FREE_TEXT) -> None:
        """Ask the endpoint for its models and for one token. Raises UserError when it would refuse every call."""
        secrets = secrets_in_environment(self.spec)
        self.served = check_endpoint(self.spec, self.writer, sampling, form, secrets, self._repeats)
        self.num_answers = 1  # that of the preflight
        self._connect = partial(async_client, self.spec, secrets)

    @property
    def num_slots(self) -> int:
        """The number of calls at once at present."""
        return self.limiter.concurrency.limit

    @property
    def most_slots(self) -> int:
        """The largest number of calls at once."""
        return self.spec.most_in_flight

    def watch_slots(self, on_change: Callable[[int, int, int], None]) -> None:
        """Call a function with (calls at once at present, calls in flight, calls that wait) whenever one changes."""
        self.limiter.on_change = on_change

    def check_user_turn(self) -> None:
        raise UserError(f"{self.spec.words}: {NO_USER_TURN}")

    async def facts(self) -> dict[str, Any]:
        """What a manifest records of the open endpoint: what the server says of itself."""
        notes = {"notes": self.writer.notes} if self.writer.notes else {}
        return {"endpoint": self.spec.base_url, "batch_invariant": None, **self.served, **notes}

    async def chat(
        self, prompt: Messages, sampling: Mapping[str, Any], seed: int, form: AnswerForm = FREE_TEXT
    ) -> Reply:
        """A completion. Raises AskRefused when this ask cannot be served, EndpointDown when none can."""
        self._on_this_loop()
        if is_users(prompt):
            raise AskRefused("engine_refused", NO_USER_TURN)
        chars = num_chars(prompt)
        outage = Outage(self)
        while True:
            body = self.writer.body(prompt, sampling, seed, form)
            try:
                reply = await self._call(body, seed, chars, form)
                return replace(reply, cost=reply.cost + outage.cost) if outage.cost else reply
            except Fault as fault:
                await outage.wait(fault)

    def _on_this_loop(self) -> None:
        """Have a client for the running loop. Raises EngineDead when the engine is not open."""
        if self._connect is None:
            raise EngineDead("chat before open")
        if self._loop is not asyncio.get_running_loop():
            self._loop, self._client, self._probe = asyncio.get_running_loop(), self._connect(), None
            if self.spec.batch_api:
                self._batches = BatchSender(self.spec, self._client, self.writer.path)

    async def _call(
        self, body: dict[str, Any], seed: int, chars: int, form: AnswerForm, is_probe: bool = False
    ) -> Reply:
        """Send one request. `is_probe`: at once, even where the others go in batches. Raises Fault."""
        most = 0.0
        if self.limiter.counts_tokens:
            most = chars * self._tokens_per_char + (body.get("max_tokens") or body.get("max_completion_tokens") or 0)
        slot = await self.limiter.enter(most)
        tokens: int | None = None
        try:
            waits = self._batches is not None and not is_probe
            data = await (self._batches.send(body, seed) if self._batches and waits else self._send(body))
            reply = read_answer(data, self.spec, chars, form.logprobs)
            tokens = reply.tokens_in + reply.tokens_out
            self._answered(reply, chars)
            self.limiter.answer(slot, tokens)
        except Fault as fault:
            if fault.kind == "busy":
                self.limiter.overload(slot, fault.retry_after_s)
            elif fault.kind == "broken":
                self.limiter.fault(slot)
            else:
                tokens = 0
            raise
        finally:
            self.limiter.leave(slot, tokens)
        return reply

    async def _send(self, body: dict[str, Any]) -> Any:
        """The JSON of the response. Raises Fault."""
        try:
            async with asyncio.timeout(self.spec.timeout_s):
                data = await self._client.post(self.writer.path, cast_to=object, body=body)
        except Exception as error:  # noqa: BLE001 - the client raises errors of several libraries
            raise fault_of(error, self.writer.adaptable) from None  # the error of the client holds headers
        if self._repeats.is_repeat(data):
            words = "the answer of another call came again"
            raise Fault("broken", "repeated answer", words, cost=stated_cost(data, self.spec))
        return data

    async def probe(self) -> float:
        """Ask for one token, to see whether the server answers anything; returns the cost. One probe runs at a time."""
        is_first = self._probe is None or self._probe.done()
        if is_first:
            body = self.writer.body(PROBE_PROMPT, {"max_tokens": 1}, 0, FREE_TEXT)
            self._probe = asyncio.ensure_future(self._probe_cost(body))
        assert self._probe is not None
        await asyncio.wait({self._probe}, timeout=PROBE_S)
        return self._probe.result() if is_first and self._probe.done() else 0.0

    async def _probe_cost(self, body: dict[str, Any]) -> float:
        try:
            return (await self._call(body, 0, len(PROBE_PROMPT), FREE_TEXT, is_probe=True)).cost
        except Fault as fault:
            if fault.kind in ("ask", "parameter"):  # it is there, and thinks about what it is sent
                self._count_answer()
            return fault.cost

    def _count_answer(self) -> None:
        self.num_answers += 1
        self.answered_at = asyncio.get_running_loop().time()

    def _answered(self, reply: Reply, chars: int) -> None:
        self._count_answer()
        if chars:
            self._tokens_per_char += 0.1 * (1.2 * reply.tokens_in / chars - self._tokens_per_char)

    def wait_s(self, num_tries: int) -> float:
        """The time before the next try of a call: twice as long each time, by chance shorter."""
        return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**num_tries) * self._random.uniform(0.5, 1.0)

    def lose(self, fault: Fault, reason: str, cost: float) -> AskRefused:
        """The refusal of an ask whose calls fail while others are answered. Raises EndpointDown for too many."""
        self._num_lost += 1
        if self._num_lost > MAX_LOST and self._num_lost > LOST_SHARE * self.num_answers:
            raise EndpointDown(f"{self.spec.words}: {self._num_lost} asks got no answer; the last: {fault.words}")
        logger.warning(f"{self.spec.words}: an ask is rejected, its calls fail while others do not ({fault.words})")
        return AskRefused(reason, fault.words, cost)

    def close(self) -> None:
        client, self._client, self._connect = self._client, None, None
        if self._batches is not None:
            self._batches.close()
        if client is None:
            return
        try:
            asyncio.get_running_loop().create_task(client.close())
        except RuntimeError:  # the loop has ended, and its connections with it
            return


class Outage:
    """The faults of one call, until it is answered or given up."""

    def __init__(self, engine: EndpointEngine) -> None:
        self.engine = engine
        self.num_tries = 0
        self._weight = self._silent_weight = 0  # of its faults while others were answered, and while none was
        self.cost = 0.0  # money paid for answers of no use
        self._num_adapted = 0  # times that a parameter was left out
        self._began_at = 0.0
        self._num_answers = 0  # of the engine, when the last fault came

    async def wait(self, fault: Fault) -> None:
        """Wait before the call is sent again. Raises AskRefused or EndpointDown when it is not."""
        engine, words = self.engine, self.engine.spec.words
        self.cost += fault.cost
        if fault.kind == "ask":
            raise AskRefused(fault.reason, fault.detail, self.cost)
        if fault.kind == "parameter":
            if not engine.writer.adapt(fault.parameter) and self._num_adapted:
                raise AskRefused(fault.reason, fault.detail, self.cost)
            self._num_adapted += 1
            return
        if fault.kind == "run":
            if not engine.num_answers or (fault.is_certain and not fault.is_absence):
                raise EndpointDown(f"{words}: {fault.words}")
            if not fault.is_certain:
                # The server has answered others, and only words of a message speak of the key or the model.
                raise engine.lose(fault, "engine_refused", self.cost)
            # A model that was there is away while its server restarts behind a gateway.
        now = asyncio.get_running_loop().time()
        self._began_at = self._began_at or now
        self.num_tries += 1
        others_work = engine.num_answers > self._num_answers
        self._num_answers = engine.num_answers
        if others_work:
            self._weight += fault.weight
            if self._weight >= MAX_WEIGHT:
                raise engine.lose(fault, "endpoint_failed", self.cost)
        else:
            self._silent_weight += fault.weight
            if self._silent_weight >= MAX_WEIGHT or self._silent_s(now) >= engine.spec.retry_s:
                self.cost += await engine.probe()
                if engine.num_answers > self._num_answers:
                    self._weight = MAX_WEIGHT  # it answers others: the next fault is that of the ask
        if (silent_s := self._silent_s(now)) >= engine.spec.retry_s:
            raise EndpointDown(
                f"{words}: no answer for {silent_s:.0f} s, the last try: {fault.words}; the same command goes on when "
                f"it answers again"
            )
        await asyncio.sleep(max(engine.wait_s(self.num_tries), fault.retry_after_s))

    def _silent_s(self, now: float) -> float:
        """Seconds without any answer of the server."""
        return now - max(self._began_at, self.engine.answered_at)
