"""`[cluster]` and `[limits]` of a recipe: where, how wide and how far a run goes. Never part of the fingerprint.

This file must not import ray: recipes are checked without it.
"""

from dataclasses import dataclass

from records.shards import Summary

SNAPSHOT_LOTS = 1024
MAX_SNAPSHOT_LOTS = 4096


@dataclass(frozen=True)
class ClusterSpec:
    """Placement and patience. Nothing here may change a byte of the output."""

    address: str | None = None  # Ray address; unset: RAY_ADDRESS or the enclosing Ray job, else a local Ray
    num_cpus: int | None = None  # of a local Ray; unset: all cores
    replicas: int = 1  # engines in the pool
    lots_per_replica: int = 2  # lots in flight per engine, so that its batch never drains between lots
    window: int | None = None  # lots between birth and commit; unset: enough for the pool and every core
    index_actors: int = 1  # the dedup index is sharded by band over so many actors
    # Lots a snapshot of the dedup index, 0 for none. Every row is written once whatever this is; it bounds what a start
    # after a crash reads from shards (1024 lots of 512 rows: a second or two) and how many objects there are.
    snapshot_lots: int = SNAPSHOT_LOTS
    max_retries: int = 3  # of a lot whose worker was lost, and of an engine that does not come up
    start_timeout_s: float = 1800.0  # for an engine to load

    def __post_init__(self) -> None:
        for name in ("replicas", "lots_per_replica", "index_actors"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.window is not None and self.window < 1:
            raise ValueError("window must be at least 1")
        if self.max_retries < 0:
            raise ValueError("max_retries must not be negative")
        if not 0 <= self.snapshot_lots <= MAX_SNAPSHOT_LOTS:
            raise ValueError(f"snapshot_lots must lie in 0..{MAX_SNAPSHOT_LOTS}")


@dataclass(frozen=True)
class Limits:
    """`[limits]` of a recipe. The run ends at the first lot border where one is reached."""

    asks: int | None = None
    kept_rows: int | None = None
    kept_tokens: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1")

    def reached(self, totals: Summary) -> str | None:
        """The limit that `totals` has reached, None while there is more to do (`asks` is the plan's business)."""
        if self.kept_rows is not None and totals.kept >= self.kept_rows:
            return "kept_rows"
        if self.kept_tokens is not None and totals.kept_tokens >= self.kept_tokens:
            return "kept_tokens"
        return None
