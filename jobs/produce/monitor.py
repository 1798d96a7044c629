"""Everything that shows a run while it goes on: the display, the manifest, the events and the metrics."""

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

from gristmill.jobs.produce.progress import ProgressDisplay
from gristmill.jobs.recipes.compile import CompiledRecipe
from gristmill.jobs.terminal.console import SafeConsole
from gristmill.jobs.terminal.logs import ROOT, is_json
from gristmill.jobs.terminal.speed import speed_literals
from gristmill.records.errors import UserError
from gristmill.records.output.events import Events
from gristmill.records.output.lease import Lease
from gristmill.records.output.manifest import Manifest, State
from gristmill.records.output.shards import Summary
from gristmill.records.output.templates import likeness, shares
from gristmill.records.stores.contract import Store

if TYPE_CHECKING:
    from gristmill.cluster.lots.job import Progress
    from gristmill.cluster.metrics import Metrics, Sample
    from gristmill.cluster.pools.feed import Occupancy

logger = logging.getLogger(__name__)

SAVE_EVERY_S = 10.0
METRICS_EVERY_S = 1.0
WARN_SHARE = 0.2  # of texts that are alike


class EventRecorder(logging.Handler):
    """Keeps the log among the events of the run, so that it can be read after the terminal is gone.

    Where several runs share a process, each in a thread of its own, a run keeps what its thread logs.
    """

    _threads: ClassVar[set[int]] = set()  # of the runs of this process

    def __init__(self, events: Events) -> None:
        super().__init__(logging.INFO)
        self.events, self.run_thread = events, threading.get_ident()
        self._threads.add(self.run_thread)

    def close(self) -> None:
        self._threads.discard(self.run_thread)
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread != self.run_thread and record.thread in self._threads:
            return
        self.events.note("log", echo=False, level=record.levelname.lower(), text=record.getMessage())


class Monitor:
    """Takes the progress of a run a few times a second and keeps everything that shows it up to date."""

    def __init__(
        self,
        compiled: CompiledRecipe,
        store: Store,
        manifest: Manifest,
        totals: Summary,
        lease: Lease,
        console: SafeConsole,
    ) -> None:
        self.compiled, self.store, self.manifest, self.totals, self.lease = compiled, store, manifest, totals, lease
        # In JSON mode events go to stderr as JSON lines, and the display shows nothing.
        self.events = Events(store, compiled.fingerprint, len(manifest.starts) + 1, echo=is_json())
        recipe = compiled.recipe
        self.display = ProgressDisplay(
            recipe.name, compiled.plan.num_asks, recipe.limits, totals, console, quiet=is_json()
        )
        self._recorder = EventRecorder(self.events)
        self.before = manifest.spent("device_s"), manifest.spent("cost"), manifest.spent("paid")
        self.started = self._saved = self._measured = time.monotonic()
        self._errors: dict[str, int] = {}
        self._metrics: Metrics | None = None
        self._last: Progress | None = None
        self._noted: Progress | None = None  # at the last "progress" event
        self._lanes: dict[str, Occupancy] = {}  # by engine, at the last "progress" event
        self._has_warned = False
        self.paid = 0.0  # at least so much money for calls over all starts, as the store says

    def __enter__(self) -> "Monitor":
        self.display.__enter__()
        logging.getLogger(ROOT).addHandler(self._recorder)
        return self

    def __exit__(self, *error: Any) -> None:
        logging.getLogger(ROOT).removeHandler(self._recorder)
        self._recorder.close()
        self.display.__exit__(*error)

    def begin(self) -> None:
        """The run starts: Ray is connected and has room."""
        from gristmill.cluster.metrics import Metrics

        self._saved = time.monotonic()
        self.manifest.begin()
        self._metrics = Metrics(self.compiled.fingerprint[:12], self.compiled.recipe.name, self._sample(None))
        pools = {name: pool.replicas for name, (_, pool) in self.compiled.pools.items()}
        self.events.note(
            "start",
            num_lots=self.totals.num_lots,
            num_asks=self.compiled.plan.num_asks,
            replicas=sum(pools[name] for name in self.compiled.generator.pooled),
            pools=pools,
        )
        self.save()

    def update(self, progress: "Progress") -> None:
        """Show and save. Raises UserError when another driver has taken the output over."""
        self._last, now = progress, time.monotonic()
        literals = self._literals(progress)
        self.display.update(progress, literals)
        self.lease.check()
        if not self._has_warned and (words := likeness(self.totals.templates, WARN_SHARE)):
            self._has_warned = True
            logger.warning(f"kept texts are alike: {words}; limits.template_share stops a run at a share")
        if self._metrics and now - self._measured > METRICS_EVERY_S:
            self._metrics.update(self._sample(progress))
            self._measured = now
        if now - self._saved > SAVE_EVERY_S:
            self._saved = now
            self._note(progress, literals)
            self._save_if_possible()

    def _note(self, progress: "Progress", literals: dict[str, Any]) -> None:
        self._noted = progress
        self.events.note("progress", **literals, lanes=self._lane_shares(progress))

    def end(self, state: State, ended: str | None, why: str | None = None) -> None:
        """Record how the run ended, or in `why` what stopped it. A store that is gone is left as it is."""
        self.manifest.state, self.manifest.ended = state, ended
        if self._metrics:
            self._metrics.update(self._sample(self._last))
        if self._last is not self._noted and self._last is not None:
            self._note(self._last, self._literals(self._last))
        self.events.note("end", state=state, why=why or ended)
        if self.lease.lost:
            return
        try:
            self.save()
        except (UserError, OSError):
            if why is None:
                raise  # otherwise the error that stopped the run is the one to read

    def save(self) -> None:
        """Put the manifest and the events into the store, unless another driver has taken it."""
        self.lease.check()
        start, progress = self.manifest.starts[-1], self._last
        start["wall_s"] = round(time.monotonic() - self.started, 1)
        if progress:
            start["stage_s"] = {k: round(v, 2) for k, v in progress.busy_s.items()}
            start["device_s"] = round(progress.device_s - self.before[0], 1)
            start["cost"] = round(progress.cost - self.before[1], 9)
            start["paid"] = round(progress.paid - self.before[2], 9)
            start["pools"] = {
                name: {
                    "device_s": round(pool.device_s, 1),
                    "cost": round(pool.cost, 9),
                    "paid": round(pool.paid, 9),
                }
                for name, pool in progress.spending.items()
            }
            start["retries"] = dict(progress.retries)
            start["engines"] = speed_literals(progress)
            if progress.facts:
                start["engines"]["facts"] = progress.facts
        for kind, number in self.store.errors.items():
            if number > self._errors.get(kind, 0):
                self.events.note("storage", kind=kind, num=number - self._errors.get(kind, 0))
        self._errors = dict(self.store.errors)
        self.manifest.recount(self.totals, self.paid)
        self.manifest.save(self.store)
        self.events.flush()

    def _lane_shares(self, progress: "Progress") -> dict[str, float]:
        """Share of busy slots of each engine since the last call; an engine that was replaced since counts alone."""
        shares = {}
        for name, lane in progress.lanes.items():
            before = self._lanes.get(name)
            if before is None or before.open_s > lane.open_s:
                before = type(lane)()
            if lane.slot_s > before.slot_s:
                shares[name] = round((lane.busy_s - before.busy_s) / (lane.slot_s - before.slot_s), 3)
        self._lanes = dict(progress.lanes)
        return shares

    def _literals(self, progress: "Progress") -> dict[str, Any]:
        """The values of a "progress" event, with the money for calls where there are any."""
        paid = {"paid": progress.paid, "currency": self.compiled.recipe.cluster.currency}
        return {**_literals(progress), **(paid if progress.paid else {})}

    def _save_if_possible(self) -> None:
        """Save in the middle of a run. The rows do not need it: a store in trouble fails the next commit, if at all."""
        try:
            self.save()
        except (UserError, OSError) as error:
            logger.warning(f"{error} (trying again in {SAVE_EVERY_S:.0f} s)")

    def _sample(self, progress: "Progress | None") -> "Sample":
        from gristmill.cluster.metrics import Sample

        totals = self.totals
        counted: dict[str, Any] = {
            "asks": totals.asks,
            "rows": {"kept": totals.kept, **totals.rejected},
            "tokens_in": totals.tokens_in,
            "tokens_out": totals.tokens_out,
            "kept_tokens": totals.kept_tokens,
            "num_lots": totals.num_lots,
            "currency": self.compiled.recipe.cluster.currency,
            "template_share": shares(totals.templates),
        }
        if progress is None:
            return Sample(**counted, device_s=self.before[0], cost=self.before[1])
        return Sample(
            **counted,
            retries=progress.retries,
            storage_errors=dict(self.store.errors),
            device_s=progress.device_s,
            cost=progress.cost,
            in_flight=progress.in_flight,
            commit_lag_s=progress.commit_lag_s,
            engine_tokens_per_s=progress.tokens_per_s,
            engine_share=progress.engine_share,
            engines_open=progress.num_engines_open,
            engines_loading=progress.num_engines - progress.num_engines_open,
            index_bytes=progress.index_bytes,
            budget_share=progress.budget_share,
            slot_busy_s={name: pool.busy_s for name, pool in progress.occupancy.items()},
            slot_s={name: pool.slot_s for name, pool in progress.occupancy.items()},
            queue_empty_s={name: pool.empty_s for name, pool in progress.occupancy.items()},
            engine_wait_s=progress.waits_s,
            window_share=progress.window_share,
        )


def _literals(progress: "Progress") -> dict[str, Any]:
    """The values of a "progress" event."""
    return {
        "in_flight": progress.in_flight,
        "engines_open": progress.num_engines_open,
        "engines_loading": progress.num_engines - progress.num_engines_open,
        "made_asks": progress.made_asks,
        "made_tokens": progress.made_tokens,
        "commit_lag_s": round(progress.commit_lag_s, 2),
        "retries": progress.num_retries,
        "index_bytes": progress.index_bytes,
        "device_s": round(progress.device_s, 1),
        "cost": progress.cost,
        **speed_literals(progress),
        "window_share": round(progress.window_share, 4),
    }
