"""Metrics of a run for Prometheus, through Ray's metrics: the agent of every node exports them with the prefix `ray_`.

Counters cover this start of the driver. Gauges show the present state and disappear with the driver. Ray sends them
every `metrics_report_interval_ms` (10 s by default) and once more when the driver ends.

Metrics only watch: what Ray refuses is logged once, and the run goes on.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ray.util.metrics import Counter, Gauge

logger = logging.getLogger(__name__)

MAX_LABEL_CHARS = 200

# name: (description, label besides run and recipe)
COUNTERS: dict[str, tuple[str, str | None]] = {
    "gristmill_asks_total": ("Asks of committed lots", None),
    "gristmill_rows_total": ("Rows of committed lots: kept, or rejected as stage:reason", "verdict"),
    "gristmill_tokens_total": ("Tokens that the generator read and wrote, of committed lots", "direction"),
    "gristmill_kept_tokens_total": ("Tokens that the model wrote and kept rows hold", None),
    "gristmill_lots_committed_total": ("Lots committed", None),
    "gristmill_retries_total": ("Work repeated after a loss, by what was lost", "kind"),
    "gristmill_storage_errors_total": ("Failed requests to the store", "kind"),
    "gristmill_device_s_total": ("Device-seconds held by engines", None),
    "gristmill_cost_total": ("Cost by the price of a device-hour, and of calls by their tokens", "currency"),
    "gristmill_slot_busy_s_total": ("Seconds of busy slots of the engines, summed over the slots", "pool"),
    "gristmill_slot_s_total": ("Seconds of all slots of open engines", "pool"),
    "gristmill_queue_empty_s_total": ("Seconds in which an engine had a free slot and no ask to begin", "pool"),
    "gristmill_engine_wait_s_total": ("Seconds in which engines wanted lots, by what held the lots back", "reason"),
}
GAUGES: dict[str, tuple[str, str | None]] = {
    "gristmill_lots_in_flight": ("Lots between birth and commit", "phase"),
    "gristmill_commit_lag_s": ("Waiting time in seconds of the oldest processed lot", None),
    "gristmill_engine_tokens_per_s": ("Tokens per second of all engines", None),
    "gristmill_engine_share": ("That rate as a share of the raw speed of the engines", None),
    "gristmill_engines": ("Engines of the pool", "state"),
    "gristmill_index_bytes": ("Memory of the dedup index", None),
    "gristmill_budget_share": ("Spent share of the budget", None),
    "gristmill_template_share": ("Share of kept texts with the most frequent mark, from 100 texts on", "mark"),
    "gristmill_window_share": ("Uncommitted rows as a share of the memory for them; at 1 no further lot starts", None),
}
RUN_KEYS = ("run", "recipe")


@dataclass(frozen=True)
class Sample:
    """The metrics at one time. Totals never fall. A gauge that is None is not exported."""

    asks: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)  # by verdict: "kept" or "stage:reason"
    tokens_in: int = 0
    tokens_out: int = 0
    kept_tokens: int = 0
    num_lots: int = 0  # committed
    retries: Mapping[str, int] = field(default_factory=dict)  # by kind
    storage_errors: Mapping[str, int] = field(default_factory=dict)  # by kind
    device_s: float = 0.0
    cost: float = 0.0
    currency: str = ""
    slot_busy_s: Mapping[str, float] = field(default_factory=dict)  # by pool
    slot_s: Mapping[str, float] = field(default_factory=dict)  # by pool
    queue_empty_s: Mapping[str, float] = field(default_factory=dict)  # by pool
    engine_wait_s: Mapping[str, float] = field(default_factory=dict)  # by what held lots back

    in_flight: Mapping[str, int] = field(default_factory=dict)  # lots by phase
    commit_lag_s: float = 0.0
    engine_tokens_per_s: float = 0.0
    engine_share: float | None = None  # None: no raw speed is configured
    engines_open: int = 0
    engines_loading: int = 0
    index_bytes: int = 0
    budget_share: float | None = None  # None: there is no budget
    window_share: float = 0.0
    template_share: Mapping[str, float] = field(default_factory=dict)  # by kind of mark


Point = tuple[str, str, float]  # name, value of its label ("" without a label), number


def _totals(sample: Sample) -> Iterator[Point]:
    yield "gristmill_asks_total", "", sample.asks
    for verdict, count in sample.rows.items():
        yield "gristmill_rows_total", verdict, count
    yield "gristmill_tokens_total", "in", sample.tokens_in
    yield "gristmill_tokens_total", "out", sample.tokens_out
    yield "gristmill_kept_tokens_total", "", sample.kept_tokens
    yield "gristmill_lots_committed_total", "", sample.num_lots
    for kind, count in sample.retries.items():
        yield "gristmill_retries_total", kind, count
    for kind, count in sample.storage_errors.items():
        yield "gristmill_storage_errors_total", kind, count
    yield "gristmill_device_s_total", "", sample.device_s
    yield "gristmill_cost_total", sample.currency, sample.cost
    for name, seconds in (
        ("gristmill_slot_busy_s_total", sample.slot_busy_s),
        ("gristmill_slot_s_total", sample.slot_s),
        ("gristmill_queue_empty_s_total", sample.queue_empty_s),
        ("gristmill_engine_wait_s_total", sample.engine_wait_s),
    ):
        for label, number in seconds.items():
            yield name, label, number


def _levels(sample: Sample) -> Iterator[Point]:
    for phase, count in sample.in_flight.items():
        yield "gristmill_lots_in_flight", phase, count
    yield "gristmill_commit_lag_s", "", sample.commit_lag_s
    yield "gristmill_engine_tokens_per_s", "", sample.engine_tokens_per_s
    if sample.engine_share is not None:
        yield "gristmill_engine_share", "", sample.engine_share
    yield "gristmill_engines", "open", sample.engines_open
    yield "gristmill_engines", "loading", sample.engines_loading
    yield "gristmill_index_bytes", "", sample.index_bytes
    yield "gristmill_window_share", "", sample.window_share
    for kind, share in sample.template_share.items():
        yield "gristmill_template_share", kind, share
    if sample.budget_share is not None:
        yield "gristmill_budget_share", "", sample.budget_share


class Metrics:
    """The metrics of one run. Create it after Ray is connected, and `update` it about once a second.

    before: the totals of earlier starts of the driver, which are not counted again.
    """

    def __init__(self, run: str, recipe: str, before: Sample | None = None) -> None:
        self._has_failed = False
        tags = {"run": label_text(run), "recipe": label_text(recipe)}
        self._counters = {
            name: Counter(name, text, _keys(label)).set_default_tags(tags) for name, (text, label) in COUNTERS.items()
        }
        self._gauges = {
            name: Gauge(name, text, _keys(label)).set_default_tags(tags) for name, (text, label) in GAUGES.items()
        }
        self._counted: dict[tuple[str, str], float] = {}  # totals so far
        self._shown: set[tuple[str, str]] = set()  # gauges of the last update
        for name, value, number in _totals(before or Sample()):
            self._counted[name, value] = number

    def update(self, sample: Sample) -> None:
        """Add the increase of every total since the last update, and set the gauges.

        A total that falls, because an engine was lost, adds nothing until it exceeds its maximum. A gauge that is
        absent from the sample, such as a phase without lots, is set to 0.
        """
        for name, value, number in _totals(sample):
            rise = number - self._counted.get((name, value), 0)
            if rise > 0:
                self._record(self._counters[name], rise, _tags(COUNTERS[name][1], value))
                self._counted[name, value] = number
        levels = {(name, value): number for name, value, number in _levels(sample)}
        for name, value in self._shown - levels.keys():
            self._record(self._gauges[name], 0, _tags(GAUGES[name][1], value))
        for (name, value), number in levels.items():
            self._record(self._gauges[name], number, _tags(GAUGES[name][1], value))
        self._shown = set(levels)

    def _record(self, metric: Counter | Gauge, number: float, tags: dict[str, str]) -> None:
        """Hand a number to Ray. What Ray refuses (its errors are ValueError, TypeError and OverflowError) is logged
        once."""
        try:
            if not math.isfinite(number):
                raise ValueError(f"{number} is not finite")
            metric.inc(number, tags) if isinstance(metric, Counter) else metric.set(number, tags)
        except (ValueError, TypeError, OverflowError) as error:
            if not self._has_failed:
                self._has_failed = True
                logger.warning(f"metrics: a number is not exported ({error}); the run goes on")


def label_text(value: str) -> str:
    """The value of a label as Ray takes it: ASCII without control characters. Other characters become escapes."""
    text = value.encode("ascii", "backslashreplace").decode()
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return text if len(text) <= MAX_LABEL_CHARS else f"{text[: MAX_LABEL_CHARS - 3]}..."


def _keys(label: str | None) -> tuple[str, ...]:
    return (*RUN_KEYS, label) if label else RUN_KEYS


def _tags(label: str | None, value: str) -> dict[str, str]:
    return {label: label_text(value)} if label else {}
