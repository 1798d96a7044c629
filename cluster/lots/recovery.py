"""Decides what happens to a lot after a loss: which step it repeats, and when the run ends.

A lost worker costs its lot one step, a bounded number of times. Asks under suspicion of killing engines go to
quarantine. A lot whose claimed rows are lost is generated again, and every later lot claims again.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from gristmill.cluster.errors import Loss, RunFailed
from gristmill.cluster.lots.in_flight import InFlightLot, Step
from gristmill.cluster.lots.job import Job
from gristmill.cluster.lots.quarantine import SUSPECT_AFTER, Quarantine
from gristmill.cluster.lots.sequencer import CommitSequencer
from gristmill.cluster.pools.pool import Pool

logger = logging.getLogger(__name__)

Remedy = Literal["step", "finish", "rewind"]


class Recovery:
    """Counts losses and finds the remedy for each."""

    def __init__(self, job: Job, route: Sequence[Step], pools: Sequence[Pool], sequencer: CommitSequencer) -> None:
        self.job, self.route, self.pools, self.sequencer = job, route, pools, sequencer
        self.retries: Counter[str] = Counter()  # by what was lost
        self.num_poison = 0

    def remedy(self, lot: InFlightLot, loss: Loss) -> Remedy:
        """What to repeat: the step that the lot is at now, "finish", or "rewind" the claims from this lot on.

        Raises RunFailed when the lot has lost too many workers, or too many asks have killed their engines.
        """
        is_finishing = lot.phase == "finishing"
        phase = "finishing" if is_finishing else self.route[lot.step].name
        reason = self._release_engine(lot, loss, phase)
        if reason and lot.quarantine:
            self._blame(lot, lot.quarantine, reason)
            return "step"
        if reason is None:  # the quarantine bounds losses with a reason
            lot.tries += 1
        if lot.tries > self.job.spec.max_retries:
            raise RunFailed(f"lot {lot.number}, {phase}: lost its worker {lot.tries} times (last: {loss})")
        logger.warning(f"lot {lot.number}: lost its worker while {phase}; trying again ({loss})")
        if is_finishing and not loss.is_object:
            return "finish"  # the claimed rows are still in the object store
        if loss.is_object:
            for pool in self.pools:
                pool.release(lot.number)
            lot.begin_again()
            return "rewind" if is_finishing else "step"
        lot.suspicion += reason is not None
        if lot.suspicion >= SUSPECT_AFTER and not lot.quarantine:
            lot.quarantine = Quarantine(lot.num_rows, lot.was_beside_others)
            logger.warning(
                f"lot {lot.number}: {lot.suspicion} engines died under it; looking for the ask that kills them"
            )
        return "step"

    def _release_engine(self, lot: InFlightLot, loss: Loss, phase: str) -> str | None:
        """Count the loss and free the engine. Returns the reason if the asks of the lot may be at fault."""
        member, lot.member, reason, lost = lot.member, None, None, "worker"
        if member:
            pool = self.route[lot.step].pool
            assert pool
            if loss.is_object:  # the engine lives, its input is lost
                pool.remove_lot(member, lot.number)
            else:
                reason = pool.lose(member, lot.number, str(loss))
                lost = "replica" if pool.needs.is_remote else "node"
                lot.was_beside_others = pool.had_several(member)
        what = "object" if loss.is_object else reason or lost
        self.retries[what] += 1
        self.job.note("retry", lot=lot.number, stage=phase, lost=what, why=str(loss))
        return reason

    def _blame(self, lot: InFlightLot, quarantine: Quarantine, reason: str) -> None:
        tries = quarantine.num_tries + 1
        row = quarantine.blame(reason)
        if row is None:
            return
        self.num_poison += 1
        self.job.note("poison", lot=lot.number, row=row, reason=reason, tries=tries)
        logger.warning(f"lot {lot.number}, row {row}: rejected ({reason}), {tries} engines died of this ask alone")
        if self.num_poison > self.job.spec.max_poison:
            raise RunFailed(
                f"{self.num_poison} asks have killed their engines ({reason}): the engine is at fault, not the asks; "
                f"look at its log, or raise cluster.max_poison"
            )

    def rewind(self, number: int, in_flight: Iterable[InFlightLot]) -> None:
        """Retract the claims of a lot whose claimed rows are lost, and of all later lots.

        An engine that is not deterministic generates other rows, so every later lot must claim again.
        """
        self.sequencer.rewind(number)
        for later in in_flight:
            if later.number > number and later.phase in ("finishing", "finished"):
                later.phase = "ready"
                later.ref = later.twin = later.encoded = later.verdicts = None
