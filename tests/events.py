"""Events as the lot loop would have logged them, made up around the lots that an output really holds."""

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gristmill.records.output import manifest
from gristmill.records.output.events import part_name
from gristmill.records.output.ledger import committed, summaries
from gristmill.records.stores.opening import open_store


class Story:
    """Writes events with times of its own choice."""

    def __init__(self, out: Path, seed: int = 7) -> None:
        self.store = open_store(str(out))
        book = manifest.load(self.store)
        assert book is not None
        self.book, self.random = book, random.Random(seed)
        self.lots = list(summaries(self.store, sorted(committed(self.store, book))))
        self.lines: list[tuple[float, dict[str, Any]]] = []
        self.start = 0
        self.began = datetime.now(UTC) - timedelta(days=1)

    def begin(self, began_s: float, replicas: int) -> None:
        """A new start of the driver, so many seconds after the story's first moment."""
        self.start += 1
        self.lines, self.zero = [], self.began + timedelta(seconds=began_s)
        self.note(-2.0, "log", text="waiting for room on the cluster")
        self.note(0.0, "start", num_lots=0, num_asks=sum(l.asks for l in self.lots), replicas=replicas, nodes=2)

    def note(self, at_s: float, event: str, **values: Any) -> None:
        self.lines.append((at_s, {"event": event, **values}))

    def put(self) -> None:
        """Write the start's events as one part."""
        run, lines = self.book.fingerprint[:12], []
        for at_s, values in sorted(self.lines, key=lambda l: l[0]):
            time = (self.zero + timedelta(seconds=at_s)).isoformat(timespec="milliseconds")
            lines.append(json.dumps({"t": time, "run": run, "start": self.start, **values}))
        self.store.put(part_name(self.start, 0), ("\n".join(lines) + "\n").encode())

    def engines(self, replicas: int, load_s: float) -> None:
        for replica in range(replicas):
            self.note(0.1, "engine", replica=replica, state="loading", pool="teacher")
            self.note(load_s + 3 * replica, "engine", replica=replica, state="open", pool="teacher")

    def carry(self, lots: Sequence[int], begin_s: float, lot_s: float, in_flight: int) -> float:
        """Make and commit lots, `in_flight` at once, each for about `lot_s`; returns when the last is committed."""
        slots = [begin_s + self.random.uniform(0, lot_s / 3) for _ in range(in_flight)]
        claimed = committed_s = begin_s
        made = 0
        beats: list[tuple[float, int]] = []
        for lot in lots:
            told = self.lots[lot]
            born = min(slots)
            made_s = born + lot_s * self.random.lognormvariate(0, 0.18)
            tries = 0
            if self.random.random() < 0.03:
                tries = 1
                lost_s = born + (made_s - born) * self.random.random()
                self.note(lost_s, "retry", lot=lot, stage="making", why="the actor died unexpectedly")
                made_s = lost_s + lot_s
            slots[slots.index(born)] = made_s
            processed = made_s + 0.04 * lot_s * self.random.uniform(0.6, 2)
            claimed = max(processed, claimed) + 0.002 * lot_s
            finished = claimed + 0.03 * lot_s
            committed_s = max(finished, committed_s) + 0.02 * lot_s * self.random.uniform(0.5, 2)
            made += told.tokens_out
            beats.append((made_s, made))
            self.note(
                committed_s,
                "commit",
                lot=lot,
                replica=lot % in_flight,
                node="node-1",
                tries=tries,
                born_s=round(born, 3),
                made_s=round(made_s, 3),
                processed_s=round(processed, 3),
                claimed_s=round(claimed, 3),
                finished_s=round(finished, 3),
                committed_s=round(committed_s, 3),
                asks=told.asks,
                kept=told.kept,
                rejected=told.rejected,
                tokens_in=told.tokens_in,
                tokens_out=told.tokens_out,
                kept_tokens=told.kept_tokens,
                kept_bytes=told.kept_bytes,
            )
        self._beats(beats, begin_s, committed_s, in_flight)
        return committed_s

    def _beats(self, made: list[tuple[float, int]], begin_s: float, end_s: float, in_flight: int) -> None:
        made = [(begin_s, 0), *sorted((at_s, tokens) for at_s, tokens in made), (end_s + 10, made[-1][1])]
        at_s, place = begin_s, 0
        while at_s < end_s:
            while made[place + 1][0] <= at_s:
                place += 1
            (a_s, a), (b_s, b) = made[place], made[place + 1]
            tokens = round(max(a, a + (b - a) * (at_s - a_s) / max(b_s - a_s, 1e-9)))
            self.note(
                at_s,
                "progress",
                in_flight={"making": in_flight, "ready": 1},
                engines_open=in_flight // 2,
                engines_loading=0,
                made_tokens=tokens,
                made_asks=tokens // 160,
                commit_lag_s=1.5,
                index_bytes=190 * 1000,
                device_s=at_s * in_flight / 2,
                cost=at_s * in_flight / 2 * 2.5 / 3600,
            )
            at_s += 10


def tell(out: Path, lot_s: float = 40.0, replicas: int = 4) -> None:
    """A run with an engine lost, a driver killed and started again, a poisonous row and some storage trouble."""
    story = Story(out)
    num_lots = len(story.lots)
    cut = num_lots * 3 // 5
    story.begin(0, replicas)
    story.engines(replicas, 35.0)
    end_s = story.carry(range(cut), 36.0, lot_s, 2 * replicas)
    lost_s = 36.0 + (end_s - 36.0) * 0.4
    story.note(lost_s, "engine", replica=1, state="lost", pool="teacher", why="ActorDiedError: the node was preempted")
    story.note(lost_s + 0.2, "engine", replica=1, state="loading", pool="teacher")
    story.note(lost_s + 31.0, "engine", replica=1, state="open", pool="teacher")
    story.put()
    story.begin(end_s + 7200, replicas)
    story.note(1.0, "index", state="rebuilt", seconds=0.8, why="start")
    story.engines(replicas, 33.0)
    end_s = story.carry(range(cut, num_lots), 34.0, lot_s, 2 * replicas)
    story.note(50.0, "poison", lot=cut, row=3, reason="poison:engine_died", tries=3)
    story.note(60.0, "storage", kind="retried_put", num=2)
    story.note(end_s + 1, "end", state="complete")
    story.put()
    table = json.loads((out / "manifest.json").read_text())
    first = table["starts"][0]
    table["starts"] = [{**first, "wall_s": 300.0, "device_s": 1100.0}, {**first, "wall_s": end_s, "device_s": 2000.0}]
    (out / "manifest.json").write_text(json.dumps(table))
