"""Gives the pool's next lot to the engine that will be out of asks first, by what the engines report."""

import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import islice

from gristmill.cluster.errors import LOSSES
from gristmill.cluster.pools.feed import Report, Totals
from gristmill.cluster.pools.member import Member

REPORT_S = 1.0  # between two reports of a replica that has nothing to say
REPORTS_PER_S = 20.0  # such reports of all replicas; each takes 0.25 ms of the loop
MAX_LOOKS = 64  # engines that are compared when very many want a lot


class Feeder:
    """Knows the open engines and which of them want a lot.

    max_lots: lots that an engine may have at once; None: as many as it wants. events: reports are put there, as
    functions for the loop of the driver to call. on_loss: called when an engine without lots is found to be lost.
    max_wait_s: the longest time between two reports of an engine, however many there are.
    """

    def __init__(
        self,
        max_lots: int | None,
        events: "queue.SimpleQueue[Callable[[], None]]",
        on_loss: Callable[[Member, BaseException], None],
        max_wait_s: float,
    ) -> None:
        self.max_lots, self.events, self.on_loss, self.max_wait_s = max_lots, events, on_loss, max_wait_s
        self.totals = Totals()
        self._open: dict[Member, None] = {}
        self._hungry: dict[Member, None] = {}
        self._bounded: dict[Member, None] = {}  # those that would take a lot but for `max_lots`

    def open(self, member: Member) -> None:
        """An engine is open: ask for its reports."""
        self._open[member] = None
        self._ask(member, None)

    def close(self, member: Member) -> None:
        self._open.pop(member, None)
        self._hungry.pop(member, None)
        self._bounded.pop(member, None)

    def _ask(self, member: Member, known: Report | None) -> None:
        wait_s = min(max(REPORT_S, len(self._open) / REPORTS_PER_S), self.max_wait_s)
        future: Future[Report] = member.actor.report.remote(known and known.news, wait_s).future()
        future.add_done_callback(lambda done: self.events.put(partial(self._take, member, done)))

    def _take(self, member: Member, done: "Future[Report]") -> None:
        """Take a report, and ask for the next."""
        if member not in self._open:
            return
        try:
            report = done.result()
        except LOSSES as error:
            if member.lots:  # they report the loss, unless all of them were done before it
                self._ask(member, member.report)
            else:
                self.on_loss(member, error)
            return
        if (report.num_done, report.num_tokens) != (member.report.num_done, member.report.num_tokens):
            member.advanced_at = time.monotonic()
        self.totals.advance(member.report, report)
        member.report = report
        self.see(member)
        self._ask(member, report)

    def see(self, member: Member) -> None:
        """Note whether an engine takes a lot, after anything that may have changed it."""
        is_free = member.reserved_for is None and not member.is_leaving and member.blame is None
        wants = is_free and member in self._open and member.is_hungry(None)
        takes = wants and member.is_hungry(self.max_lots)
        for members, is_in in ((self._hungry, takes), (self._bounded, wants and not takes)):
            if is_in:
                members[member] = None
            else:
                members.pop(member, None)

    def room(self) -> Member | None:
        """The engine that will be out of asks first; None if no engine wants any."""
        return min(islice(self._hungry, MAX_LOOKS), key=lambda m: (m.backlog, len(m.lots)), default=None)

    @property
    def num_hungry(self) -> int:
        """Number of engines that want asks."""
        return len(self._hungry)

    @property
    def num_bounded(self) -> int:
        """Number of engines that want asks and have `max_lots` lots already."""
        return len(self._bounded)
