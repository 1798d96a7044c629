"""Runs the steps of a flow: in order, one after the other, or several at once where rows go on as they are committed.

Steps that run at once are a wave. A wave of one runs in the main thread, as its verb alone would. In a larger wave each
step has a thread, and signals reach all of them through a StopGroup. The first step that does not end with 0 ends the
flow, with its exit code.
"""

import contextvars
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from gristmill.jobs.flow.build import naming
from gristmill.jobs.flow.page import write_page
from gristmill.jobs.flow.produce_step import ProduceStep
from gristmill.jobs.flow.state import FlowFile
from gristmill.jobs.flow.step import Chain, Step, StepEnd
from gristmill.jobs.terminal.console import SafeConsole
from gristmill.jobs.terminal.session import GROUP, StopGroup, interruptible
from gristmill.records.errors import UserError
from gristmill.records.exit_codes import STOPPED
from gristmill.records.output.lease import Lease
from gristmill.records.output.manifest import now

if TYPE_CHECKING:
    from gristmill.cluster.pools.warm import WarmEngines

logger = logging.getLogger(__name__)

JOIN_S = 0.2  # between two looks at the threads of a wave, in which signals are handled


class FlowRun:
    """One start of a flow. `run` returns the exit code."""

    def __init__(self, chain: Chain, state: FlowFile, lease: Lease) -> None:
        self.chain, self.state, self.lease, self.store = chain, state, lease, lease.store
        self._stack = ExitStack()
        self._engines: WarmEngines | None = None

    def run(self) -> int:
        """Raises UserError for a step that cannot run; the state of all others is saved."""
        self.state.begin()
        self._save()
        try:
            with self._stack:
                code = self._run_all()
        except BaseException as error:
            is_stop = isinstance(error, KeyboardInterrupt)
            self._end_running("stopped" if is_stop else "failed", None if is_stop else error)
            raise
        self.state.state = {0: "complete", STOPPED: "stopped"}.get(code, "incomplete")
        self._save()
        write_page(self.store, self.state)
        return code

    def _run_all(self) -> int:
        steps = list(self.chain.steps.values())
        while steps:
            self.lease.check()
            wave = self._next_wave(steps)
            if wave:
                ends = self._run_wave(wave, steps[len(wave) :])
                for step in wave:
                    step.show_end()
                for name, end in ends.items():  # the first that ended so has stopped the others
                    if end.exit_code:
                        logger.info(f"step '{name}' ended with exit code {end.exit_code} ({end.state})")
                        return end.exit_code
            steps = steps[max(1, len(wave)) :]
        return 0

    # Waves

    def _next_wave(self, steps: Sequence[Step]) -> list[Step]:
        """The steps to run now, ready to; empty where the first step is finished."""
        wave: list[Step] = []
        for step in steps:
            if wave and not _can_join(step, wave):
                break
            with naming(step):
                step.prepare()
            if step.is_finished:
                if not wave:
                    self._skip(step)
                break
            wave.append(step)
        if len(wave) > 1 and (problem := self._no_room(wave)):
            names = ", ".join(f"'{step.name}'" for step in wave)
            logger.info(f"steps {names} run one after the other: {problem}")
            return wave[:1]
        return wave

    def _skip(self, step: Step) -> None:
        """A step that is finished: its record may be of a driver that was killed."""
        step.record.state, step.record.exit_code, step.record.error = "complete", 0, None
        step.record.fingerprint, step.record.extent = step.fingerprint, step.extent
        step.record.inputs = step.record.inputs or step.inputs()
        logger.info(f"step '{step.name}': done already")
        self._save()

    def _no_room(self, wave: Sequence[Step]) -> str:
        """Why the cluster cannot hold the engines of all steps of a wave at once; "" if it can."""
        from gristmill.cluster.preflight import request_of, shortage
        from gristmill.cluster.room.nodes import usable_nodes
        from gristmill.cluster.spec import ClusterSpec

        self._connect()
        pools = {}
        for step in wave:
            assert isinstance(step, ProduceStep) and step.compiled
            pools.update({f"{step.name}.{name}": pool for name, pool in step.compiled.pools.items()})
        request = request_of(self.store.uri, "flow", pools, ClusterSpec(), stage_cpus=len(wave))
        return shortage(request, usable_nodes()) or ""

    def _run_wave(self, wave: list[Step], later: Sequence[Step]) -> dict[str, StepEnd]:
        """How the steps of a wave ended, in the order of time."""
        for step in wave:
            record = step.record
            record.state, record.exit_code, record.error, record.started = "running", None, None, now()
            record.fingerprint, record.extent, record.note = step.fingerprint, step.extent, step.note
            record.inputs = step.inputs()
            beside = ", ".join(f"'{other.name}'" for other in wave if other is not step)
            if beside:
                record.note = f"beside {beside}"
            logger.info(f"step '{step.name}': {step.spec.verb}{f', {record.note}' if record.note else ''}")
        self._save()
        with self._engines_for(wave, later):
            ends, errors = _run_alone(wave[0]) if len(wave) == 1 else _run_threads(wave)
        for step in wave:
            if (end := ends.get(step.name)) is not None:
                step.record.state, step.record.exit_code = end.state, end.exit_code
            elif (error := errors.get(step.name)) is not None:
                step.record.state, step.record.error = "failed", str(error)
        for error in errors.values():
            raise error
        self._save()
        write_page(self.store, self.state)
        return ends

    # Ray, and engines that go on

    def _connect(self) -> "WarmEngines":
        """Connect to Ray, once for all steps."""
        from gristmill.cluster.connect import connected
        from gristmill.cluster.pools.warm import warm_engines
        from gristmill.cluster.spec import ClusterSpec
        from gristmill.records.spec import build

        if self._engines is None:
            self._stack.enter_context(connected(build(ClusterSpec, self._cluster(), "cluster")))
            self._engines = self._stack.enter_context(warm_engines())
        return self._engines

    def _cluster(self) -> dict[str, object]:
        """`[cluster]` of the flow; a local Ray gets the cores that the widest step asks for."""
        tables = [step.tables.get("cluster") or {} for step in self.chain.steps.values() if step.tables]
        num_cpus = [table["num_cpus"] for table in tables if table.get("num_cpus") is not None]
        widest = {"num_cpus": max(num_cpus)} if num_cpus else {}
        return {**widest, **{k: v for k, v in self.chain.flow.cluster.items() if v is not None}}

    @contextmanager
    def _engines_for(self, wave: Sequence[Step], later: Sequence[Step]) -> Iterator[None]:
        """Close engines that would take the room of this wave, and keep its own for the next step that needs them."""
        if not any(step.needs_ray for step in (*wave, *later)):
            yield
            return
        engines = self._connect()
        starts_engines = any(step.starts_engines for step in wave)
        next_step = next((step for step in later if step.starts_engines), None)
        next_widths = next_step.engine_widths if next_step else {}
        if starts_engines:
            widths: dict[str, int] = {}
            for step in wave:
                for key, width in step.engine_widths.items():
                    widths[key] = widths.get(key, 0) + width
            engines.close_others(widths)
        engines.want(next_widths)
        yield

    # State

    def _end_running(self, state: str, error: BaseException | None) -> None:
        self.state.state = state
        for record in self.state.steps:
            if record.state == "running":
                record.state = "failed" if state == "failed" else "stopped"
                record.error = str(error) if error else None
        if self.lease.lost:
            return
        try:
            self._save()
        except (UserError, OSError):
            return  # the error that ended the flow is the one to read
        write_page(self.store, self.state)

    def _save(self) -> None:
        self.state.save(self.store)


def _can_join(step: Step, wave: Sequence[Step]) -> bool:
    """Whether a step can run beside the wave: it reads one of its steps as rows are committed, and no other of them."""
    names = {other.name for other in wave}
    if not isinstance(step, ProduceStep) or not step.spec.stream:
        return False
    if step.compiled is None:  # the step before was not known yet
        with naming(step):
            step.check()
    if step.compiled is None or step.why_waits:
        return False
    link = step.source_link
    return link is not None and link.step in names and not any(o.step in names for o in step.links if o != link)


class StepConsole(SafeConsole):
    """Plain lines on stderr that begin with the name of their step."""

    def __init__(self, step: str) -> None:
        super().__init__(stderr=True, force_terminal=False)
        self.step = step

    def print_line(self, text: str, style: str | None = None) -> None:
        super().print_line(f"{self.step}: {text}", style)


def _run_alone(step: Step) -> tuple[dict[str, StepEnd], dict[str, BaseException]]:
    return {step.name: _run_step(step)}, {}


def _run_step(step: Step, console: SafeConsole | None = None) -> StepEnd:
    started = time.monotonic()
    try:
        with naming(step):
            return step.run(console)
    finally:
        step.record.wall_s = round(step.record.wall_s + time.monotonic() - started, 1)


def _run_threads(wave: Sequence[Step]) -> tuple[dict[str, StepEnd], dict[str, BaseException]]:
    """Run steps at once, each in a thread. Returns how they ended and their errors, by name, when all have ended.

    The first that fails, or ends with another exit code than 0, stops the others.
    """
    group = StopGroup()
    ends: dict[str, StepEnd] = {}
    errors: dict[str, BaseException] = {}

    def work(step: Step) -> None:
        GROUP.set(group)
        try:
            ends[step.name] = _run_step(step, StepConsole(step.name))
            if ends[step.name].exit_code:
                group.stop()
        except KeyboardInterrupt:  # it was stopped before its work began
            ends[step.name] = StepEnd("stopped", STOPPED)
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            errors[step.name] = error
            group.stop()

    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(work, step), name=step.name, daemon=True)
        for step in wave
    ]
    with interruptible(group.stop, group.give_up):
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(JOIN_S)
    return ends, errors
