"""What is killed, when, and on which cluster: all of it drawn from the seed before anything starts."""

import math
import random
from dataclasses import dataclass

S3_KINDS = ("s3-stop", "s3-freeze", "s3-slow")
KINDS = ("driver", "replica", "worker", "index", "node", "head", "pause", "source", *S3_KINDS)
ENDS_DRIVER = ("driver", "head", "pause", "source")  # the next commit is another driver's
NUM_PER_RUN = 11
MAX_AFTER = 5
SHARE_AT_ONCE = 0.15  # of the kills come while the one before may still be healing
AT_ONCE_S = 4.0
OUTAGE_S = {"node": (2.0, 10.0), "s3-stop": (1.0, 8.0), "s3-freeze": (3.0, 15.0), "s3-slow": (5.0, 15.0)}


@dataclass(frozen=True)
class Kill:
    """One blow: `after` more commits and `plus_s` seconds later. `victim` in [0, 1) picks among those there are."""

    number: int
    kind: str
    after: int
    plus_s: float
    victim: float
    outage_s: float  # until what was taken away comes back; 0 where nothing is


@dataclass(frozen=True)
class Shape:
    """A cluster's width: none of it may change a byte."""

    replicas: int
    nodes: int  # worker nodes of 3 CPUs, beside a head of 1
    index_actors: int
    window: int  # lots in flight

    def __str__(self) -> str:
        return (
            f"{self.replicas} replica(s) on {self.nodes} node(s) and a head, {self.index_actors} index actor(s), "
            f"window {self.window}"
        )


SHAPES = (
    Shape(replicas=2, nodes=2, index_actors=2, window=6),
    Shape(replicas=1, nodes=1, index_actors=1, window=8),
    Shape(replicas=4, nodes=3, index_actors=3, window=18),
    Shape(replicas=2, nodes=1, index_actors=3, window=4),
    Shape(replicas=4, nodes=2, index_actors=1, window=12),
    Shape(replicas=1, nodes=3, index_actors=2, window=2),
)


def kills(num_kills: int, seed: int, kinds: tuple[str, ...], num_lots: int) -> list[Kill]:
    """The kills in order. Kinds come in shuffled rounds, so that each is there about as often as any other."""
    rng = random.Random(seed)
    max_after = min(
        MAX_AFTER, max(1, num_lots * num_runs(num_kills) // num_kills - 1)
    )  # so that a run has room for all
    drawn: list[Kill] = []
    while len(drawn) < num_kills:
        for kind in rng.sample(kinds, len(kinds))[: num_kills - len(drawn)]:
            is_at_once = rng.random() < SHARE_AT_ONCE
            after = 0 if is_at_once else rng.randint(1, max_after)
            plus_s = rng.uniform(0, AT_ONCE_S if is_at_once else 1.0)
            outage_s = rng.uniform(*OUTAGE_S.get(kind, (0.0, 0.0)))
            drawn.append(Kill(len(drawn) + 1, kind, after, round(plus_s, 2), rng.random(), round(outage_s, 1)))
    return drawn


WAKES = ("before its next commit", "after its next commit", "after its next commit, and the newcomer is killed then")


def wake(kill: Kill) -> str:
    """When a paused driver is woken, in terms of the newcomer that has taken its lease: one of `WAKES`."""
    return WAKES[int(kill.victim * len(WAKES))]


def is_local(run: int) -> bool:
    """Whether the output of a run is a folder. Half of them are, and each shape is met with both."""
    return (run + (run - 1) // len(SHAPES)) % 2 == 0


def num_runs(num_kills: int) -> int:
    return max(1, math.ceil(num_kills / NUM_PER_RUN))
