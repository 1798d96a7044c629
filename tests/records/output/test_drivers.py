"""Drivers of one output that are stopped, woken and killed at any moment, in every order, over the real protocol.

Each driver runs the code of a run: it lists what is committed, settles `rejected/`, then puts the rejected and the kept
shard of each lot. A driver is executed again from its start with the answers that it has had so far, up to the request
that comes next; so its state is the sequence of its answers, and all states can be visited. A driver that is never
continued is dead; one that is continued after others have gone on was paused. No lease holds anybody back here.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from gristmill.cluster.lots.commit import commit_lot
from gristmill.records.errors import Conflict
from gristmill.records.output import ledger
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shard_names import KEPT, kept_lot
from gristmill.records.output.shard_reading import read_meta
from gristmill.records.output.shards import Encoded, OutputSpec, encode, put_rejected
from gristmill.records.output.summary import Summary
from gristmill.records.stores.contract import Entry, Store
from tests.records.output.test_shards import SCHEMA, lot_of

Objects = frozenset[tuple[str, bytes]]
Answers = tuple[Any, ...]
Act = Callable[[dict[str, bytes]], Any]


class NextRequest(Exception):
    """The driver has used up its answers: this is what it asks next."""


class ReplayedStore(Store):
    """Gives recorded answers, then raises NextRequest; `act` performs that request on objects."""

    def __init__(self, answers: Answers) -> None:
        super().__init__("memory")
        self.left = list(answers)
        self.act: Act | None = None

    def _ask(self, act: Act) -> Any:
        return self._given(self._answer(act))

    def _answer(self, act: Act) -> Any:
        if not self.left:
            self.act = act
            raise NextRequest
        return self.left.pop(0)

    @staticmethod
    def _given(answer: Any) -> Any:
        if isinstance(answer, type):
            raise answer("recorded")
        return answer

    def list(self, prefix: str = "", after: str = "", until: str | None = None) -> Iterator[Entry]:
        entries = self._ask(lambda o: tuple((n, len(d)) for n, d in sorted(o.items()) if n.startswith(prefix)))
        return iter([Entry(name, size, "") for name, size in entries])

    def read(self, name: str, version: str | None = None) -> bytes:
        return self._ask(lambda o: o.get(name, FileNotFoundError))

    def open(self, name: str, version: str | None = None) -> pa.NativeFile:
        return pa.BufferReader(self.read(name))

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        assert if_absent, "shards are put if absent"

        def act(objects: dict[str, bytes]) -> Any:
            if name in objects:
                return Conflict
            objects[name] = data
            return None

        self._ask(act)

    def delete(self, name: str) -> None:
        self._ask(lambda objects: objects.pop(name, None) and None)

    def exists(self, name: str) -> bool:
        return self._ask(lambda objects: name in objects)

    def filesystem(self) -> Any:
        raise NotImplementedError

    def check(self, write: bool) -> None:
        raise NotImplementedError

    def version(self, name: str) -> str:
        raise NotImplementedError

    def sweep(self) -> int:
        raise NotImplementedError


class ObjectStore(ReplayedStore):
    """Answers at once."""

    def __init__(self, objects: Objects) -> None:
        super().__init__(())
        self.objects = dict(objects)

    def _answer(self, act: Act) -> Any:
        return act(self.objects)


Settle = Callable[[Store, Summary], dict[int, list[str]]]


@dataclass(frozen=True)
class Driver:
    """`lots` are those that it makes. With `ahead` rejected shards are put before the kept shards of earlier lots."""

    lots: tuple[Encoded, ...]
    ahead: bool = False
    settle: Settle = ledger.settle

    def run(self, store: Store) -> None:
        manifest = Manifest("", {}, {})
        totals = ledger.totals(store, manifest, ledger.committed(store, manifest))
        leftovers = self.settle(store, totals)
        left = self.lots[totals.num_lots :]
        for encoded in left if self.ahead else ():
            put_rejected(store, encoded)
        for encoded in left:
            if not self.ahead:
                put_rejected(store, encoded)
            commit_lot(store, encoded, leftovers.get(encoded.lot, ()))

    def advance(self, objects: Objects, answers: Answers) -> tuple[Objects, Answers | None]:
        """The objects and the answers after the next request; None as answers when it has ended."""
        store = ReplayedStore(answers)
        try:
            self.run(store)
        except NextRequest:
            assert store.act is not None
            after = dict(objects)
            answer = store.act(after)
            return frozenset(after.items()), (*answers, answer)
        except Conflict:
            pass  # another driver was first: it stops
        return objects, None


def wrong(objects: Objects, num_lots: int, whole: bool) -> str | None:
    """What is wrong with an output; with `whole` of a run that has ended."""
    store = ObjectStore(objects)
    kept = sorted(lot for name in store.objects if (lot := kept_lot(name)) is not None)
    if kept != list(range(len(kept))):
        return f"the committed lots are {kept}"
    named = {name for lot in kept if (name := read_meta(store, lot)["rejected"])}
    for lot in kept:
        meta = read_meta(store, lot)
        data = store.objects.get(meta["rejected"] or "")
        if meta["rejected"] and (data is None or hashlib.sha256(data).hexdigest() != meta["rejected_sha256"]):
            return f"lot {lot} lacks its rejected shard {meta['rejected']}"
    if whole and (len(kept) != num_lots or (more := [n for n in store.objects if n[0] == "r" and n not in named])):
        return f"{len(kept)} lots are committed, and these rejected shards are left: {more}"
    return None


def explore(drivers: Sequence[Driver]) -> tuple[int, str | None]:
    """Visit all states. The number of states, and what was wrong in one of them."""
    num_lots = len(drivers[0].lots)
    started: tuple[Answers | None, ...] = tuple(() for _ in drivers)
    seen, todo = {(frozenset(), started)}, [(frozenset(), started)]
    proven: set[Objects] = set()
    while todo:
        objects, states = todo.pop()
        if objects not in proven:
            proven.add(objects)
            # Here all drivers die, and the same command is run to its end.
            after = ObjectStore(objects)
            error = wrong(objects, num_lots, whole=False)
            if error is None:
                Driver(drivers[0].lots).run(after)
                Driver(drivers[0].lots).run(after)  # once more, as a driver may have died before it had cleaned up
                error = wrong(frozenset(after.objects.items()), num_lots, whole=True)
            if error:
                return len(seen), error
        for number, (driver, answers) in enumerate(zip(drivers, states)):
            if answers is None:
                continue
            changed, further = driver.advance(objects, answers)
            committed = {name: data for name, data in objects if name.startswith(KEPT)}
            if any(dict(changed).get(name) != data for name, data in committed.items()):
                return len(seen), "a committed shard has changed"
            state = changed, (*states[:number], further, *states[number + 1 :])
            if state not in seen:
                seen.add(state)
                todo.append(state)
    return len(seen), None


def lots_of(*reasons: Sequence[str | None]) -> tuple[Encoded, ...]:
    return tuple(encode(lot_of(list(r), lot), SCHEMA, lot, OutputSpec()) for lot, r in enumerate(reasons))


ROWS = lots_of([None, "a:x"], [None, "a:x", "a:y"])
SAME = lots_of([None, "a:x"], [None, "a:x", "a:y"])
OTHER = lots_of([None, "b:z"], [None, None, None])  # of an engine that is not deterministic: lot 1 rejects nothing
DRIVERS = {
    "same rows": (Driver(ROWS), Driver(SAME)),
    "other rows": (Driver(ROWS), Driver(OTHER)),
    "other rows, put ahead": (Driver(ROWS, ahead=True), Driver(OTHER, ahead=True)),
    "one that puts ahead": (Driver(OTHER), Driver(ROWS, ahead=True)),
}


@pytest.mark.parametrize("drivers", DRIVERS.values(), ids=DRIVERS.keys())
def test_whatever_two_drivers_do_no_row_is_lost(drivers: tuple[Driver, ...]) -> None:
    num_states, error = explore(drivers)
    assert error is None
    assert num_states > 100


@pytest.mark.nightly
@pytest.mark.parametrize("ahead", [False, True])
def test_whatever_three_drivers_do_no_row_is_lost(ahead: bool) -> None:
    third = lots_of(["c:q"], [None, "c:r", None])
    num_states, error = explore([Driver(lots, ahead) for lots in (ROWS, OTHER, third)])
    assert error is None
    assert num_states > 10_000


def _delete_uncommitted(store: Store, whole: Summary) -> dict[int, list[str]]:
    """What a newcomer must not do: a driver that was stopped between its puts may still commit."""
    for names in ledger.settle(store, whole).values():
        for name in names:
            store.delete(name)
    return {}


def test_the_exploration_finds_a_newcomer_that_cleans_up_too_early() -> None:
    _, error = explore([Driver(ROWS), Driver(OTHER, settle=_delete_uncommitted)])
    assert error and "lacks its rejected shard" in error
