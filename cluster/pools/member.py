"""The driver's record of a replica."""

from dataclasses import dataclass, field
from typing import Any

from gristmill.cluster.pools.feed import NOTHING, Occupancy, Report


@dataclass(eq=False)
class Member:
    """The driver's record of a replica. Times are monotonic seconds."""

    number: int  # of its slot in the pool
    actor: Any
    group: Any  # its placement group, if any
    node_ref: Any  # running call of where(), None once the replica has a node
    open_ref: Any  # running call of open(), None once the replica is open
    started_at: float
    node: str | None = None
    placed_at: float | None = None  # when it got its node; device-seconds count from here
    lots: dict[int, float] = field(default_factory=dict)  # lots in flight, with their start times
    num_handed: int = 0  # asks that it was ever given
    num_lost: int = 0  # engines of this slot that were lost since one of them finished a lot
    report: Report = NOTHING  # its last
    advanced_at: float = 0.0  # when it last made progress, or got its first lot
    reserved_for: int | None = None  # the only lot that it accepts
    is_leaving: bool = False  # it gets no more lots: its node drains, or another run takes its room
    is_draining: bool = False  # its node drains
    num_lots_at_loss: int = 0  # lots that it had when it was lost
    blame: str | None = None  # why its loss counts against its asks; None: its node is lost

    @property
    def backlog(self) -> int:
        """Asks that it has not begun, by its last report and by what it was given since."""
        return self.report.num_waiting + self.num_handed - self.report.num_received

    @property
    def occupancy(self) -> Occupancy:
        return Occupancy.of(self.report.load)

    def is_hungry(self, max_lots: int | None) -> bool:
        """Whether it takes another lot. `max_lots`: the lots that it may have at once; None: no such bound."""
        if max_lots is not None and len(self.lots) >= max_lots:
            return False
        if self.report.low_water is None:
            return len(self.lots) < LOTS_UNCOUNTED
        return self.backlog < self.report.low_water


LOTS_UNCOUNTED = 2  # of an engine that does not count its asks: one in work, one next
