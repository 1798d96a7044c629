"""The remedy for each loss, without Ray: which step is repeated, what is bounded, when claims are taken back."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray import exceptions

from gristmill.cluster.errors import Loss, RunFailed
from gristmill.cluster.lots.in_flight import InFlightLot, Step
from gristmill.cluster.lots.recovery import Recovery
from gristmill.cluster.spec import ClusterSpec
from gristmill.engines.needs import Needs

WORKER, OBJECT = Loss(exceptions.WorkerCrashedError()), Loss(exceptions.ObjectLostError("0" * 56, None, ""))


class Engines:
    """A pool whose engines die for the given reason."""

    def __init__(self, reason: str | None) -> None:
        self.reason, self.removed, self.released, self.needs = reason, 0, 0, Needs()

    def lose(self, member: Any, lot: int, why: str) -> str | None:
        return self.reason

    def had_several(self, member: Any) -> bool:
        return False

    def remove_lot(self, member: Any, lot: int) -> None:
        self.removed += 1

    def release(self, lot: int) -> None:
        self.released += 1


def recovery(reason: str | None = None, **spec: int) -> tuple[Recovery, Engines, list[dict[str, Any]]]:
    pool, events = Engines(reason), []
    job = SimpleNamespace(
        spec=ClusterSpec(**spec), note=lambda event, **values: events.append({"event": event, **values})
    )
    rewound: list[int] = []
    sequencer = SimpleNamespace(rewind=rewound.append, rewound=rewound)
    recover: Any = Recovery(job, [Step("making", pool), Step("processing")], [pool], sequencer)
    return recover, pool, events


def test_a_lost_worker_repeats_its_step_a_bounded_number_of_times() -> None:
    recover, _, events = recovery(max_retries=2)
    lot = InFlightLot(7, 10, step=1, phase="running", input_ref="rows", asks_ref="asks")
    assert [recover.remedy(lot, WORKER) for _ in range(2)] == ["step", "step"]
    assert lot.step == 1 and lot.input_ref == "rows"
    with pytest.raises(RunFailed, match="lot 7, processing: lost its worker 3 times"):
        recover.remedy(lot, WORKER)
    assert recover.retries == {"worker": 3}
    assert events[0].items() >= {"event": "retry", "lot": 7, "stage": "processing", "lost": "worker"}.items()


def test_claimed_rows_are_finished_again_or_claims_are_taken_back() -> None:
    recover, pool, _ = recovery()
    lot = InFlightLot(3, 10, step=2, phase="finishing", asks_ref="asks", output_ref="rows")
    assert recover.remedy(lot, WORKER) == "finish" and lot.output_ref == "rows"
    assert recover.remedy(lot, OBJECT) == "rewind"
    assert lot.step == 0 and lot.input_ref == "asks" and lot.output_ref is None and pool.released == 1
    later = {
        n: InFlightLot(n, 10, phase=phase, ref="call") for n, phase in ((4, "finished"), (5, "ready"), (6, "running"))
    }
    recover.rewind(3, later.values())
    assert recover.sequencer.rewound == [3]
    assert [lot.phase for lot in later.values()] == ["ready", "ready", "running"]
    assert later[4].ref is None and later[6].ref == "call"


def test_a_lost_input_spares_the_engine() -> None:
    recover, pool, _ = recovery("engine_crash")
    lot = InFlightLot(1, 10, phase="running", member="engine", asks_ref="asks")  # type: ignore[arg-type]
    assert recover.remedy(lot, OBJECT) == "step"
    assert pool.removed == 1 and lot.suspicion == 0 and lot.tries == 1 and recover.retries == {"object": 1}


def test_engines_that_die_under_a_lot_bring_it_into_quarantine_and_then_to_the_ask() -> None:
    recover, _, events = recovery("engine_crash", max_retries=0, max_poison=1)
    lot = InFlightLot(1, 4, phase="running", asks_ref="asks")

    def die() -> None:
        lot.phase, lot.member = "running", "engine"  # type: ignore[assignment]
        assert recover.remedy(lot, WORKER) == "step"

    die()
    assert lot.quarantine is None
    die()
    assert lot.quarantine and lot.tries == 0
    die()
    die()  # the second death of the single ask
    assert lot.quarantine.refused == {0: "engine_crash"}
    assert events[-1] == {"event": "poison", "lot": 1, "row": 0, "reason": "engine_crash", "tries": 2}
    die()
    with pytest.raises(RunFailed, match="2 asks have killed their engines"):
        die()
