"""`[cluster]` and `[limits]` of a recipe: where, how wide and how far a run goes. Never part of the fingerprint.

This file must not import ray: recipes are checked without it.
"""

from dataclasses import dataclass, field

from gristmill.records.shards import Summary

BUDGETS = ("device_s", "cost")
SNAPSHOT_LOTS = 1024
MAX_SNAPSHOT_LOTS = 4096


@dataclass(frozen=True)
class PoolSpec:
    """How wide the pool of one stage is: `[cluster.pools.NAME]`."""

    replicas: int = 1  # Replicas of the stage; with max_replicas, the fewest to start with.
    max_replicas: int | None = None  # The most replicas; unset: no more than `replicas`.
    lots_per_replica: int = 2  # Lots in flight per replica.
    price_per_device_hour: float | None = None  # unset: the cluster's

    def __post_init__(self) -> None:
        for name in ("replicas", "lots_per_replica"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError("max_replicas must not be below replicas")
        if self.price_per_device_hour is not None and self.price_per_device_hour < 0:
            raise ValueError("price_per_device_hour must not be negative")


@dataclass(frozen=True)
class ClusterSpec:
    """Placement and patience. Nothing here may change a byte of the output."""

    address: str | None = None  # Ray address; unset: RAY_ADDRESS or the enclosing Ray job, else a local Ray
    num_cpus: int | None = None  # of a local Ray; unset: all cores
    replicas: int = 1  # engines of the generator; with max_replicas, the fewest to start with
    max_replicas: int | None = None  # grow to so many while nodes have room, and shrink when they leave
    lots_per_replica: int = 2  # lots in flight per engine, so that its batch never drains between lots
    pools: dict[str, PoolSpec] = field(default_factory=dict)  # by name of a stage that lives in a pool
    window: int | None = None  # lots between birth and commit; unset: enough for the pools and every core
    index_actors: int = 1  # the dedup index is sharded by band over so many actors
    # Lots a snapshot of the dedup index, 0 for none. Every row is written once whatever this is; it bounds what a start
    # after a crash reads from shards (1024 lots of 512 rows: a second or two) and how many objects there are.
    snapshot_lots: int = SNAPSHOT_LOTS
    max_retries: int = 3  # of a lot whose worker was lost, and of an engine that does not come up
    max_poison: int = 16  # asks of one start that may be rejected for killing their engines
    start_timeout_s: float = 1800.0  # for an engine to load
    stall_timeout_s: float = 900.0  # an engine with work that finishes no ask for so long is taken for hung
    nodes_timeout_s: float = 0.0  # how long to wait for nodes with room before the run is refused
    price_per_device_hour: float | None = None  # Price of one device for an hour; needed for limits.cost.
    currency: str = "USD"  # Currency of the price.
    tokens_per_s: float | None = None  # raw speed of one engine, to forecast with and to compare with

    def __post_init__(self) -> None:
        PoolSpec(self.replicas, self.max_replicas, self.lots_per_replica, self.price_per_device_hour)
        if self.index_actors < 1:
            raise ValueError("index_actors must be at least 1")
        if self.window is not None and self.window < 1:
            raise ValueError("window must be at least 1")
        if not 0 <= self.snapshot_lots <= MAX_SNAPSHOT_LOTS:
            raise ValueError(f"snapshot_lots must lie in 0..{MAX_SNAPSHOT_LOTS}")
        for name in ("max_retries", "max_poison", "nodes_timeout_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        for name in ("start_timeout_s", "stall_timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0")
        if self.tokens_per_s is not None and self.tokens_per_s <= 0:
            raise ValueError("tokens_per_s must be more than 0")

    @property
    def generator_pool(self) -> PoolSpec:
        return PoolSpec(self.replicas, self.max_replicas, self.lots_per_replica, self.price_per_device_hour)

    def pool(self, stage: str) -> PoolSpec:
        return self.pools.get(stage, PoolSpec())


@dataclass(frozen=True)
class Limits:
    """`[limits]` of a recipe. The run ends at the first lot border where one is reached."""

    asks: int | None = None  # Asks of the run.
    kept_rows: int | None = None  # Rows kept.
    kept_tokens: int | None = None  # Tokens generated in kept rows.
    tokens: int | None = None  # Tokens generated in all rows, kept or not.
    device_s: float | None = None  # Seconds of devices held by engines, over all starts.
    cost: float | None = None  # Cost in cluster.currency, by cluster.price_per_device_hour.

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if value is not None and (value <= 0 or (isinstance(value, int) and value < 1)):
                raise ValueError(f"{name} must be {'more than 0' if name in BUDGETS else 'at least 1'}")

    @property
    def budgets(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in BUDGETS if getattr(self, name) is not None}

    def reached(self, totals: Summary) -> str | None:
        """The limit on rows or tokens that `totals` has reached, None while there is more to do.

        `asks` is the plan's business, and budgets are counted by gristmill.cluster.budget.
        """
        for name, done in (
            ("kept_rows", totals.kept),
            ("kept_tokens", totals.kept_tokens),
            ("tokens", totals.tokens_out),
        ):
            goal = getattr(self, name)
            if goal is not None and done >= goal:
                return name
        return None


@dataclass(frozen=True)
class UnitSpec:
    """`[work]` of a study: what one unit takes."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    max_retries: int = 3  # of a unit whose worker was lost

    def __post_init__(self) -> None:
        if self.num_cpus <= 0 or self.num_gpus < 0 or self.max_retries < 0:
            raise ValueError("num_cpus must be above 0; num_gpus and max_retries must not be negative")


@dataclass(frozen=True)
class EngineUse:
    """`[engines]` of a study whose rows a language model writes: how many engines, and what each takes."""

    replicas: int = 1
    num_cpus: float = 1.0
    num_gpus: float | None = None  # default: 1 where the installed vLLM runs on GPUs, times the parallel sizes
    memory_gb: float = 0.0
    kv_cache_gb: int = 1  # of a CPU engine
    threads: int = 0  # of a CPU engine; 0: as many as num_cpus
    parallel: dict[str, int] = field(default_factory=dict)  # tensor_parallel_size, pipeline_parallel_size
    env: dict[str, str] = field(default_factory=dict)
    max_retries: int = 3  # of an engine that was lost
    start_timeout_s: float = 600.0  # to find room

    def __post_init__(self) -> None:
        if self.replicas < 1 or self.num_cpus <= 0 or self.kv_cache_gb < 1 or self.threads < 0 or self.max_retries < 0:
            raise ValueError(
                "replicas and kv_cache_gb must be at least 1, num_cpus above 0, threads and max_retries not negative"
            )
        if set(self.parallel) - {"tensor_parallel_size", "pipeline_parallel_size"}:
            raise ValueError(
                "parallel knows tensor_parallel_size and pipeline_parallel_size; the rest is family.engine's"
            )
        if self.start_timeout_s <= 0:
            raise ValueError("start_timeout_s must be above 0")
