"""Measures candidates on the asks of a recipe, each with an engine of its own."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gristmill.engines.installed import engine_arguments, on_gpu
from gristmill.generators.several import Several
from gristmill.generators.teacher import Teacher
from gristmill.generators.timed import TimedTeacher
from gristmill.jobs.recipes.compile import CompiledRecipe
from gristmill.jobs.tune.candidates import Measured, Proposal, applied, propose
from gristmill.jobs.tune.halving import Candidate, Trial, TrialLimits
from gristmill.records.errors import UserError
from gristmill.records.lots import SourceLot, source_lot
from gristmill.records.pins import active
from gristmill.records.stores.opening import open_store

if TYPE_CHECKING:
    from gristmill.cluster.trial import Device, Measurement
    from gristmill.engines.sizes import EngineSizes

Show = Callable[[Candidate, str, int, int], None]  # a candidate, what it does, answered asks, asks


@dataclass(frozen=True)
class Facts:
    """What a trial showed beside its speed."""

    engine: "EngineSizes"
    measurement: "Measurement"


class Bench:
    """The teacher of a recipe and its first asks. Call `measure` while connected to Ray."""

    def __init__(self, compiled: CompiledRecipe, num_asks: int | None, is_stopped: Callable[[], bool]) -> None:
        """`num_asks`: the most of a trial; None: all of the recipe. Raises UserError for a recipe without a teacher."""
        teacher = compiled.generator
        if isinstance(teacher, Several):
            raise UserError("tune measures one engine: put the keys of one of [[generators]] into a table [generator]")
        if type(teacher) is not Teacher:
            raise UserError(f"tune measures the engine of a teacher; generator '{teacher.kind}' has none")
        with active(compiled.pins):
            engine_arguments()  # raises without vLLM
            teacher.check()
        self.compiled, self.teacher, self.is_stopped = compiled, teacher, is_stopped
        plan = compiled.plan
        # The asks of later rounds are made of kept rows, which a measurement does not have.
        most = [plan.num_asks, num_asks, plan.round_lots * plan.lot_size if plan.round_lots else None]
        self.most_asks = min((number for number in most if number is not None), default=None)
        # The asks of the first round are made of the source alone, so its store is never read.
        self.source = compiled.ask_source(open_store(tempfile.gettempdir()))
        self.device: Device | None = None
        self.candidates: list[Candidate] = []  # those of the first round, in order, measured or not
        self.notes: list[str] = []

    def propose(self, base: Trial) -> list[Candidate]:
        """The candidates, by what the first trial of the recipe's settings showed; `notes` has what is left out."""
        device, facts = self.device, base.facts
        assert device is not None
        measured = Measured(
            facts.engine,
            facts.measurement.tokens_in,
            facts.measurement.longest,
            self.most_asks,
            on_gpu(),
            device.num_cpus,
            device.num_gpus,
            device.memory_gb,
        )
        proposal: Proposal = propose(self.teacher.spec, dict(self.teacher.sampling), measured)
        self.candidates, self.notes = proposal.candidates, proposal.notes
        return proposal.candidates

    def measure(self, candidate: Candidate, num_asks: int, limits: TrialLimits, show: Show) -> Trial:
        """Start an engine with the candidate's settings and let it answer the first `num_asks` asks.

        They are at least as many as it has slots, where the recipe has so many: with fewer its batch is never full.
        """
        from gristmill.cluster.trial import EngineTrial, TrialFailed, device

        began = time.monotonic()
        if self.device is None:
            self.device = device()
        spec = applied(self.teacher.spec, candidate)
        teacher = TimedTeacher(spec, self.teacher.program)
        teacher.pins = self.compiled.pins

        def told(phase: str, done: int) -> None:
            show(candidate, phase, done, num_asks)

        try:
            with EngineTrial(teacher, self.is_stopped, told) as engine:
                facts = engine.open(limits.start_s)
                started = time.monotonic()
                num_asks = max(num_asks, facts.max_num_seqs * int(spec.engine.get("data_parallel_size", 1)))
                num_asks = min(num_asks, self.most_asks or num_asks)
                run_s = min(limits.run_s, limits.whole_s - (started - began))
                if run_s <= 0:
                    raise TrialFailed("its start took all of the time")
                done = engine.measure(self.lots(num_asks), num_asks, run_s)
        except TrialFailed as error:
            return Trial(candidate, num_asks, time.monotonic() - began, failure=str(error))
        return Trial(
            candidate,
            num_asks,
            time.monotonic() - began,
            started - began,
            done.run_s,
            done.tokens_per_s,
            done.rows_per_s,
            teacher.needs.num_devices,
            done.is_cut,
            rows=done.rows,
            facts=Facts(facts, done),
        )

    def lots(self, num_asks: int) -> list[SourceLot]:
        """The first lots of the recipe, which hold at least `num_asks` asks."""
        plan = self.compiled.plan
        return [source_lot(plan, self.source, lot) for lot in range(-(-num_asks // plan.lot_size))]
