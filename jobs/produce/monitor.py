"""All that looks at a run while it goes on: the display, the manifest, the log and the metrics."""

import logging
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console

from gristmill.jobs.produce.progress import ProgressDisplay
from gristmill.jobs.recipes.compile import CompiledRecipe
from gristmill.jobs.terminal.logs import ROOT, is_json
from gristmill.records.errors import UserError
from gristmill.records.events import Events
from gristmill.records.lease import Lease
from gristmill.records.manifest import Manifest, State
from gristmill.records.shards import Summary
from gristmill.records.stores.contract import Store

if TYPE_CHECKING:
    from gristmill.cluster.lots.job import Progress
    from gristmill.cluster.metrics import Metrics, Sample

SAVE_EVERY_S = 10.0
METRICS_EVERY_S = 1.0


class EventRecorder(logging.Handler):
    """Keeps the log's lines among the events of the run, so that they are there after the terminal is gone."""

    def __init__(self, events: Events) -> None:
        super().__init__(logging.INFO)
        self.events = events

    def emit(self, record: logging.LogRecord) -> None:
        self.events.note("log", echo=False, level=record.levelname.lower(), text=record.getMessage())


class Monitor:
    """Told by `beat` how a run stands, a few times a second; keeps everything that shows it up to date."""

    def __init__(
        self, compiled: CompiledRecipe, store: Store, book: Manifest, totals: Summary, lease: Lease, console: Console
    ) -> None:
        self.compiled, self.store, self.book, self.totals, self.lease = compiled, store, book, totals, lease
        # For log collectors every line is JSON, the display's too.
        self.is_json = is_json()
        self.events = Events(store, compiled.fingerprint, len(book.starts) + 1, echo=self.is_json)
        self.shown = ProgressDisplay(
            compiled.plan.num_asks, compiled.recipe.limits, totals, console, quiet=self.is_json
        )
        self._recorder = EventRecorder(self.events)
        self.before = book.spent("device_s"), book.spent("cost")
        self.started = self._saved = self._told = time.monotonic()
        self._errors: dict[str, int] = {}
        self._metrics: Metrics | None = None
        self._last: Progress | None = None

    def __enter__(self) -> "Monitor":
        self.shown.__enter__()
        logging.getLogger(ROOT).addHandler(self._recorder)
        return self

    def __exit__(self, *error: Any) -> None:
        logging.getLogger(ROOT).removeHandler(self._recorder)
        self.shown.__exit__(*error)

    def begin(self) -> None:
        """Ray is there, and there is room: the run starts."""
        from gristmill.cluster.metrics import Metrics

        self._saved = time.monotonic()
        self.book.begin()
        self._metrics = Metrics(self.compiled.fingerprint[:12], self.compiled.recipe.name, self._sample(None))
        pools = {name: pool.replicas for name, (_, pool) in self.compiled.pools.items()}
        self.events.note(
            "start",
            num_lots=self.totals.num_lots,
            num_asks=self.compiled.plan.num_asks,
            replicas=pools.get("generator", 0),
            pools=pools,
        )
        self.save()

    def beat(self, beat: "Progress") -> None:
        """Raises UserError when another driver has taken the output over."""
        self._last, now = beat, time.monotonic()
        self.shown.beat(beat)
        if self.lease.lost:
            raise UserError(
                f"{self.store.uri} has been taken over by another driver ({self.lease.lost}); this one stops"
            )
        if self._metrics and now - self._told > METRICS_EVERY_S:
            self._metrics.update(self._sample(beat))
            self._told = now
        if now - self._saved > SAVE_EVERY_S:
            self._saved = now
            self.events.note(
                "beat",
                in_flight=beat.in_flight,
                engines_open=beat.num_engines_open,
                engines_loading=beat.num_engines - beat.num_engines_open,
                made_asks=beat.made_asks,
                made_tokens=beat.made_tokens,
                commit_lag_s=round(beat.commit_lag_s, 2),
                index_bytes=beat.index_bytes,
                device_s=round(beat.device_s, 1),
                cost=beat.cost,
            )
            self.save()

    def end(self, state: State, ended: str | None, why: str | None = None) -> None:
        """The last word: how the run ended, or what stopped it. A store that is gone is left as it is."""
        self.book.state, self.book.ended = state, ended
        if self._metrics:
            self._metrics.update(self._sample(self._last))
        self.events.note("end", state=state, why=why or ended)
        if self.lease.lost:
            return
        try:
            self.save()
        except (UserError, OSError):
            if why is None:
                raise  # else what stopped the run is what a person must read

    def save(self) -> None:
        """Bring the manifest up to date, and the log into the store."""
        start, beat, spec = self.book.starts[-1], self._last, self.compiled.recipe.cluster
        start["wall_s"] = round(time.monotonic() - self.started, 1)
        if beat:
            start["stage_s"] = {k: round(v, 2) for k, v in beat.busy_s.items()}
            start["device_s"] = round(beat.device_s - self.before[0], 1)
            start["cost"] = round(beat.cost - self.before[1], 6)
            start["retries"] = dict(beat.retries)
        for kind, number in self.store.errors.items():
            if number > self._errors.get(kind, 0):
                self.events.note("storage", kind=kind, num=number - self._errors.get(kind, 0))
        self._errors = dict(self.store.errors)
        self.book.totals = self.totals
        self.book.account(spec.price_per_device_hour, spec.currency)
        self.book.save(self.store)
        self.events.flush()

    def _sample(self, beat: "Progress | None") -> "Sample":
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
        }
        if beat is None:
            return Sample(**counted, device_s=self.before[0], cost=self.before[1])
        return Sample(
            **counted,
            retries=beat.retries,
            storage_errors=dict(self.store.errors),
            device_s=beat.device_s,
            cost=beat.cost,
            in_flight=beat.in_flight,
            commit_lag_s=beat.commit_lag_s,
            engine_tokens_per_s=beat.tokens_per_s,
            engine_share=beat.engine_share,
            engines_open=beat.num_engines_open,
            engines_loading=beat.num_engines - beat.num_engines_open,
            index_bytes=beat.index_bytes,
            budget_share=beat.budget_share,
        )
