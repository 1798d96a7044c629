"""What bounds the speed of a run, in words, from what its engines report."""

from collections.abc import Mapping
from typing import Any

BUSY = 0.9  # share of busy slots from which a pool is said to be full
HELD_BACK = {
    "asks": "the run has no further asks to begin",
    "source": "the step that makes the rows of the source is slower",
    "round": "asks of a round need the rows of the round before",
    "budget": "the budget lets no further lot begin",
    "window": "cluster.window lots are in flight: raise it",
    "memory": "uncommitted rows fill cluster.window_mb: raise it, or add nodes",
    "generators": "another generator is slower for its share: give it more engines, or a smaller share",
    "stages": "stages behind the engines are slower: add CPUs or engines to them",
    "lots_per_replica": "they have cluster.lots_per_replica lots each: leave it unset",
    "limits": "the lots in flight are expected to reach the limits",
}


def speed_literals(progress: Any) -> dict[str, Any]:
    """The shares and waiting times of a Progress, for events and the manifest; empty without engines that count."""
    pools = {name: pool for name, pool in progress.occupancy.items() if pool.share is not None}
    if not pools:
        return {}
    return {
        "slots_busy": {name: round(pool.share, 4) for name, pool in pools.items()},
        "queue_empty": {name: round(pool.empty_s / pool.open_s, 4) for name, pool in pools.items()},
        "waits_s": {reason: round(seconds, 1) for reason, seconds in progress.waits_s.items()},
    }


def slots_words(values: Mapping[str, Any]) -> str:
    """For example "generator 98 %, judge 61 %"; empty without engines that count their asks."""
    shares = values.get("slots_busy") or {}
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())


def bound(values: Mapping[str, Any]) -> str:
    """What bounds the speed, in a sentence without its stop; empty when it is not known."""
    shares = values.get("slots_busy") or {}
    if not shares:
        return ""
    name, share = max(shares.items(), key=lambda item: item[1])
    if share >= BUSY:
        return f"bounded by the engines of '{name}': {100 * share:.0f} % of their slots are busy"
    waits = {reason: seconds for reason, seconds in (values.get("waits_s") or {}).items() if seconds > 0}
    if not waits:
        return ""
    reason, seconds = max(waits.items(), key=lambda item: item[1])
    return f"engines waited {seconds:,.0f} s: {HELD_BACK.get(reason, reason)}"
