"""`[cluster]` and `[limits]` of a recipe: placement, width and end of a run. Never part of the fingerprint.

This file must not import ray: recipes are checked without it.
"""

from dataclasses import dataclass, field

from gristmill.records.output.shards import Summary
from gristmill.records.output.templates import largest
from gristmill.records.spec import later

BUDGETS = ("device_s", "cost")
ALARM, EXACT = "template_share", "exact"
SNAPSHOT_LOTS = 1024
MAX_SNAPSHOT_LOTS = 4096


@dataclass(frozen=True)
class PoolSpec:
    """`[cluster.pools.NAME]`: the width of the pool of one stage, or of one of [[generators]]."""

    replicas: int = 1  # Number of engines at the start.
    max_replicas: int | None = None  # Largest number of engines while nodes have room; unset: `replicas`.
    lots_per_replica: int | None = None  # Largest number of lots per engine; unset: as many as keep it busy.
    # Price of one device for one hour, in cluster.currency; unset: cluster.price_per_device_hour.
    price_per_device_hour: float | None = None

    def __post_init__(self) -> None:
        for name in ("replicas", "lots_per_replica"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError("max_replicas must not be below replicas")
        if self.price_per_device_hour is not None and self.price_per_device_hour < 0:
            raise ValueError("price_per_device_hour must not be negative")


@dataclass(frozen=True)
class ClusterSpec:
    """`[cluster]`: placement, width and timeouts. No key here changes a byte of the output."""

    address: str | None = None  # Address of a Ray cluster; unset: RAY_ADDRESS, the enclosing Ray job or a local Ray.
    num_cpus: int | None = None  # CPU cores of a local Ray; unset: all cores.
    replicas: int = 1  # Number of generator engines at the start.
    max_replicas: int | None = None  # Largest number of generator engines while nodes have room; unset: `replicas`.
    lots_per_replica: int | None = None  # Largest number of lots per generator engine; unset: as many as keep it busy.
    # Width of the pools of stages and of [[generators]], by name; other generators take the keys above.
    pools: dict[str, PoolSpec] = field(default_factory=dict)
    window: int | None = None  # Largest number of lots in flight, from first step to commit; unset: bounded by memory.
    # Largest size of uncommitted rows in MB; unset: half of the memory of Ray's object stores. Ray spills to disk.
    window_mb: float | None = None
    index_actors: int = 1  # Number of actors that share the dedup index: by band, or by row for `dedup_semantic`.
    # Lots per snapshot of the dedup index, 0 for none; a start after a crash reads at most that many lots from shards.
    snapshot_lots: int = SNAPSHOT_LOTS
    max_retries: int = 3  # Retries of a lot that lost its worker, and of an engine that does not start.
    max_poison: int = 16  # Largest number of asks per start that may be rejected because they kill their engines.
    start_timeout_s: float = 1800.0  # Time in seconds for an engine to load.
    stall_timeout_s: float = 900.0  # Seconds without a finished ask after which a busy engine counts as hung.
    # Seconds in which an autoscaler may add nodes; 0: a run that the present nodes cannot hold is refused.
    nodes_timeout_s: float = 0.0
    wait_s: float = 86_400.0  # Seconds to wait for room that other runs hold before the run is refused.
    priority: int = 0  # A run of higher priority takes engines from others, when these have finished their lots.
    share: float = 1.0  # Weight of this run when runs of one priority divide the engines above their `replicas`.
    labels: dict[str, str] = field(default_factory=dict)  # Labels of the run, such as its team, for quotas.
    stage_cpus: int = 1  # CPU cores that are reserved for the stages on a shared cluster; they use idle cores as well.
    price_per_device_hour: float | None = None  # Price of one device for one hour, in `currency`; unset: no cost.
    currency: str = "USD"  # Currency of all prices and costs.
    tokens_per_s: float | None = None  # Raw speed of one engine in tokens per second, for forecasts and comparison.

    def __post_init__(self) -> None:
        PoolSpec(self.replicas, self.max_replicas, self.lots_per_replica, self.price_per_device_hour)
        if self.index_actors < 1:
            raise ValueError("index_actors must be at least 1")
        if self.window is not None and self.window < 1:
            raise ValueError("window must be at least 1")
        if self.window_mb is not None and self.window_mb <= 0:
            raise ValueError("window_mb must be more than 0")
        if not 0 <= self.snapshot_lots <= MAX_SNAPSHOT_LOTS:
            raise ValueError(f"snapshot_lots must lie in 0..{MAX_SNAPSHOT_LOTS}")
        if self.stage_cpus < 1:
            raise ValueError("stage_cpus must be at least 1")
        if not (0 < self.share < float("inf")):
            raise ValueError("share must be more than 0")
        for name in ("max_retries", "max_poison", "nodes_timeout_s", "wait_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        for name in ("start_timeout_s", "stall_timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0")
        if self.tokens_per_s is not None and self.tokens_per_s <= 0:
            raise ValueError("tokens_per_s must be more than 0")

    def generator_pool(self, name: str) -> PoolSpec:
        """The width of a generator's pool; `[cluster.pools]` may have one of several generators."""
        return self.pools.get(name) or PoolSpec(
            self.replicas, self.max_replicas, self.lots_per_replica, self.price_per_device_hour
        )

    def pool(self, stage: str) -> PoolSpec:
        return self.pools.get(stage, PoolSpec())


@dataclass(frozen=True)
class Limits:
    """`[limits]`: the run ends at the first lot border at which it reaches a limit."""

    asks: int | None = None  # Number of asks, kept or rejected.
    kept_rows: int | None = None  # Number of kept rows.
    kept_tokens: int | None = None  # Number of tokens that the model wrote and kept rows hold.
    tokens: int | None = None  # Number of generated tokens in all rows, kept or rejected.
    device_s: float | None = None  # Device-seconds held by engines, over all starts of the run.
    # Cost in cluster.currency over all starts: devices by cluster.price_per_device_hour, calls of endpoints by tokens.
    cost: float | None = None
    # An alarm: largest share of kept texts with one opening, closing or skeleton, 0 to 1, from 100 texts on.
    template_share: float | None = None
    # Whether the run keeps exactly `kept_rows` rows: later rows of its last lot are rejected as `limit:surplus`.
    exact: bool = later(False)

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if name == EXACT or value is None:
                continue
            if value <= 0 or (isinstance(value, int) and value < 1):
                raise ValueError(f"{name} must be {'more than 0' if name in (*BUDGETS, ALARM) else 'at least 1'}")
        if self.exact and self.kept_rows is None:
            raise ValueError("exact = true needs kept_rows, the number of rows to keep")
        if self.template_share is not None and self.template_share >= 1:
            raise ValueError("template_share must be less than 1, the share that all texts have")

    @property
    def is_endless(self) -> bool:
        """Whether no limit ends a run that goes well."""
        return all(value is None for name, value in self.__dict__.items() if name not in (ALARM, EXACT))

    @property
    def exact_rows(self) -> int | None:
        """The exact number of rows to keep; None where the run may keep more than `kept_rows`, to the end of a lot."""
        return self.kept_rows if self.exact else None

    @property
    def budgets(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in BUDGETS if getattr(self, name) is not None}

    def reached(self, totals: Summary) -> str | None:
        """The limit on rows or tokens that `totals` has reached, else None.

        The plan enforces `asks`, and gristmill.cluster.budget the budgets.
        """
        for name, done in (
            ("kept_rows", totals.kept),
            ("kept_tokens", totals.kept_tokens),
            ("tokens", totals.tokens_out),
        ):
            limit = getattr(self, name)
            if limit is not None and done >= limit:
                return name
        return None

    def alarm(self, totals: Summary) -> str | None:
        """ALARM if more of the kept texts of `totals` are alike than the limit allows, else None."""
        best = None if self.template_share is None else largest(totals.templates)
        return ALARM if best is not None and best.share > (self.template_share or 0.0) else None


@dataclass(frozen=True)
class UnitSpec:
    """`[work]` of a study: the resources of one unit."""

    num_cpus: float = 1.0  # CPU cores per unit.
    num_gpus: float = 0.0  # GPUs per unit.
    max_retries: int = 3  # Retries of a unit that lost its worker.

    def __post_init__(self) -> None:
        if self.num_cpus <= 0 or self.num_gpus < 0 or self.max_retries < 0:
            raise ValueError("num_cpus must be above 0; num_gpus and max_retries must not be negative")


@dataclass(frozen=True)
class EngineUse:
    """`[engines]` of a study with a language model: number and resources of its engines."""

    replicas: int = 1  # Number of engines.
    num_cpus: float = 1.0  # CPU cores per engine.
    num_gpus: float | None = None  # GPUs per engine; unset: 1 with a GPU build of vLLM, times the parallel sizes.
    memory_gb: float = 0.0  # Memory reserved per engine in GiB; 0: no reservation.
    kv_cache_gb: int = 1  # KV cache of a CPU engine in GiB.
    threads: int = 0  # Threads of a CPU engine; 0: num_cpus.
    # tensor_parallel_size and pipeline_parallel_size of an engine, each a number of GPUs.
    parallel: dict[str, int] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)  # Environment variables of an engine.
    max_retries: int = 3  # Restarts of an engine that was lost.
    start_timeout_s: float = 600.0  # Seconds to find room for all engines.

    def __post_init__(self) -> None:
        if self.replicas < 1 or self.num_cpus <= 0 or self.kv_cache_gb < 1 or self.threads < 0 or self.max_retries < 0:
            raise ValueError(
                "replicas and kv_cache_gb must be at least 1, num_cpus above 0, threads and max_retries not negative"
            )
        if set(self.parallel) - {"tensor_parallel_size", "pipeline_parallel_size"}:
            raise ValueError(
                "parallel accepts tensor_parallel_size and pipeline_parallel_size; set other options in family.engine"
            )
        if self.start_timeout_s <= 0:
            raise ValueError("start_timeout_s must be above 0")
