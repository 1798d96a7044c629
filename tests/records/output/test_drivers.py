"""Drivers of one output that are stopped, woken and killed at any moment, in every order, over the real protocol.

Each driver runs the code of a run: it lists what is committed, settles `rejected/`, then puts the rejected and the kept
shard of each lot. A driver is executed again from its start with the answers that it has had so far, up to the request
that comes next; so its state is the sequence of its answers, and all states can be visited. A driver that is never
continued is dead; one that is continued after others have gone on was paused. No lease holds anybody back here.

Bytes that travel ahead are modelled as the stores carry them: in a hidden file that a newcomer may sweep, and in a held
put of S3, whose answer may be lost.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from gristmill.cluster.lots.commit import commit_lot
from gristmill.records.errors import Conflict, UserError
from gristmill.records.output import ledger
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shard_names import KEPT, REJECTED, kept_lot
from gristmill.records.output.shard_reading import read_meta
from gristmill.records.output.shards import Encoded, OutputSpec, begin_kept, encode, put_rejected
from gristmill.records.output.summary import Summary
from gristmill.records.stores.contract import Entry, PendingPut, Store
from gristmill.records.stores.held_put import Holding, mark_sending
from gristmill.records.stores.s3_puts import HeldPut, S3Puts
from tests.records.output.test_shards import SCHEMA, lot_of

Objects = frozenset[tuple[str, bytes]]
Answers = tuple[Any, ...]
Act = Callable[[dict[str, bytes]], Any]


LOST = "the answer was lost"
HIDDEN = "~"  # begins the names of files that no listing shows


class NextRequest(Exception):
    """The driver has used up its answers: this is what it asks next."""


class ReplayedStore(Store):
    """Gives recorded answers, then raises NextRequest; each of `acts` performs that request on objects in its way."""

    def __init__(self, answers: Answers, driver: int = 0) -> None:
        super().__init__("memory")
        self.driver = driver
        self.has_lost = LOST in answers  # one answer of each driver may be lost
        self.left = list(answers)
        self.acts: tuple[Act, ...] = ()

    def _ask(self, *acts: Act) -> Any:
        return self._given(self._answer(*acts))

    def _answer(self, *acts: Act) -> Any:
        if not self.left:
            self.acts = acts
            raise NextRequest
        return self.left.pop(0)

    @staticmethod
    def _given(answer: Any) -> Any:
        if isinstance(answer, type):
            raise answer("recorded")
        return answer

    def list(self, prefix: str = "", after: str = "", until: str | None = None) -> Iterator[Entry]:
        entries = self._ask(
            lambda o: tuple((n, len(d)) for n, d in sorted(o.items()) if n.startswith(prefix) and n[0] != HIDDEN)
        )
        return iter([Entry(name, size, "") for name, size in entries])

    def read(self, name: str, version: str | None = None) -> bytes:
        return self._ask(lambda o: o.get(name, FileNotFoundError))

    def open(self, name: str, version: str | None = None) -> pa.NativeFile:
        return pa.BufferReader(self.read(name))

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        assert if_absent, "shards are put if absent"
        self._ask(put_act(name, data))

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

    def sweep(self, folders: Sequence[str] = ()) -> int:
        """Takes every other driver for dead."""

        def act(objects: dict[str, bytes]) -> int:
            hidden = [name for name in objects if name[0] == HIDDEN]
            for name in hidden:
                del objects[name]
            return len(hidden)

        return self._ask(act)


def put_act(name: str, data: bytes) -> Act:
    def act(objects: dict[str, bytes]) -> Any:
        if name in objects:
            return Conflict
        objects[name] = data
        return None

    return act


class HiddenFile(PendingPut):
    """The bytes are in a hidden file, which gets its name in one step."""

    store: ReplayedStore

    @property
    def hidden(self) -> str:
        return f"{HIDDEN}{self.store.driver}/{self.name}"

    def send(self) -> None:
        self.store._ask(lambda objects: objects.update({self.hidden: self.data}))

    def complete(self) -> None:
        def link(objects: dict[str, bytes]) -> Any:
            if self.hidden not in objects:
                return FileNotFoundError
            return Conflict if self.name in objects else objects.update({self.name: objects.pop(self.hidden)})

        try:
            self.store._ask(link)
        except FileNotFoundError:
            super().complete()

    def drop(self) -> None:
        self.store._ask(lambda objects: objects.pop(self.hidden, None) and None)


class FolderStore(ReplayedStore):
    def begin_put(self, name: str, data: bytes) -> PendingPut:
        return HiddenFile(self, name, data)


class BucketStore(ReplayedStore, S3Puts):
    """The puts of an S3 store, over a client whose answers may be lost."""

    def __init__(self, answers: Answers, driver: int = 0) -> None:
        ReplayedStore.__init__(self, answers, driver)
        self.holding = Holding()
        self.num_tries = 0

    put = S3Puts.put

    def open(self, name: str, version: str | None = None) -> pa.NativeFile:
        return pa.BufferReader(self.read(name))

    def begin_put(self, name: str, data: bytes) -> PendingPut:
        return HeldAtOnce(self, name, data)

    def _key(self, name: str) -> dict[str, str]:
        return {"Bucket": "bucket", "Key": name}

    def _request(self, name: str | None, request: Callable[[Any], Any], taken: tuple[int, ...] = (412,)) -> Any:
        for num_failed in range(3):
            try:
                return request(self)
            except TimeoutError:
                if self.num_tries == 1:
                    raise UserError("the store does not answer") from None
            except Conflict as conflict:
                conflict.num_retries = num_failed
                raise
        raise AssertionError("one answer is lost at most")

    def put_object(self, Bucket: str, Key: str, Body: Any, IfNoneMatch: str) -> dict[str, Any]:
        mark_sending()
        data = Body if isinstance(Body, bytes) else Body.read() + Body.read()
        act = put_act(Key, data)

        def lost(objects: dict[str, bytes]) -> str:
            act(objects)
            return LOST

        if self._ask(act, *(() if self.has_lost else (lost, lambda objects: LOST))) == LOST:
            raise TimeoutError
        return {}


class HeldAtOnce(HeldPut):
    """Sends when its turn has come: what a store does not show cannot be told from what has not been sent."""

    def complete(self) -> None:
        self._turn.set()
        self._sent, self._puts.num_tries = Future(), 1  # type: ignore[attr-defined]
        try:
            self._sent.set_result(self._puts._request(self.name, self._request))
        except (Conflict, UserError) as error:
            self._sent.set_exception(error)
        self._puts.num_tries = 0  # type: ignore[attr-defined]
        super().complete()


class ObjectStore(ReplayedStore):
    """Answers at once."""

    def __init__(self, objects: Objects) -> None:
        super().__init__(())
        self.objects = dict(objects)

    def _answer(self, *acts: Act) -> Any:
        return acts[0](self.objects)


Settle = Callable[[Store, Summary], dict[int, list[str]]]


@dataclass(frozen=True)
class Driver:
    """`lots` are those that it makes. With `ahead` rejected shards are put before the kept shards of earlier lots, and
    kept shards are sent before those of earlier lots are completed."""

    lots: tuple[Encoded, ...]
    ahead: bool = False
    settle: Settle = ledger.settle
    kind: type[ReplayedStore] = ReplayedStore

    def run(self, store: Store) -> None:
        manifest = Manifest("", {}, {})
        totals = ledger.totals(store, manifest, ledger.committed(store, manifest))
        leftovers = self.settle(store, totals)
        if self.kind is not ReplayedStore:
            store.sweep((KEPT, REJECTED))
        left = self.lots[totals.num_lots :]
        pending = {encoded.lot: begin_kept(store, encoded) for encoded in left}
        for encoded in left if self.ahead else ():
            put_rejected(store, encoded)
            self._send(pending[encoded.lot])
        try:
            for encoded in left:
                if not self.ahead:
                    put_rejected(store, encoded)
                    self._send(pending[encoded.lot])
                commit_lot(store, encoded, leftovers.get(encoded.lot, ()), pending.pop(encoded.lot))
        except Conflict:
            for put in pending.values() if self.kind is FolderStore else ():
                put.drop()
            raise

    def _send(self, put: PendingPut) -> None:
        if self.kind is FolderStore:
            put.send()

    def advance(self, objects: Objects, answers: Answers, driver: int) -> list[tuple[Objects, Answers | None]]:
        """The objects and the answers after the next request, in each way it can go; None as answers when the driver
        has ended."""
        store = self.kind(answers, driver)
        try:
            self.run(store)
        except NextRequest:
            ways: list[tuple[Objects, Answers | None]] = []
            for act in store.acts:
                after = dict(objects)
                answer = act(after)
                ways.append((frozenset(after.items()), (*answers, answer)))
            return ways
        except Conflict:
            pass  # another driver was first: it stops
        return [(objects, None)]


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
    if whole and (hidden := [name for name in store.objects if name[0] == HIDDEN]):
        return f"these hidden files are left: {hidden}"
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
                Driver(drivers[0].lots, kind=drivers[0].kind).run(after)
                Driver(drivers[0].lots, kind=drivers[0].kind).run(
                    after
                )  # once more, as a driver may have died before it had cleaned up
                error = wrong(frozenset(after.objects.items()), num_lots, whole=True)
            if error:
                return len(seen), error
        for number, (driver, answers) in enumerate(zip(drivers, states)):
            if answers is None:
                continue
            committed = {name: data for name, data in objects if name.startswith(KEPT)}
            for changed, further in driver.advance(objects, answers, number):
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
    "hidden files": (Driver(ROWS, ahead=True, kind=FolderStore), Driver(OTHER, ahead=True, kind=FolderStore)),
    "hidden files, same rows": (Driver(ROWS, kind=FolderStore), Driver(SAME, ahead=True, kind=FolderStore)),
    "held puts": (Driver(ROWS, kind=BucketStore), Driver(OTHER, kind=BucketStore)),
    "held puts, same rows": (Driver(ROWS, kind=BucketStore), Driver(SAME, kind=BucketStore)),
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


class CheckedThenPut(HiddenFile):
    """What a store does whose conditional completion of uploads is two steps."""

    def complete(self) -> None:
        self.store._ask(lambda objects: Conflict if self.name in objects else None)
        self.store._ask(lambda objects: objects.update({self.name: objects.pop(self.hidden, self.data)}))


class TwoStepStore(FolderStore):
    def begin_put(self, name: str, data: bytes) -> PendingPut:
        return CheckedThenPut(self, name, data)


class LastFirst(Driver):
    """Completes what has come first, not what is next."""

    def run(self, store: Store) -> None:
        pending = [begin_kept(store, encoded) for encoded in self.lots]
        for put in pending:
            put.send()
        for put in reversed(pending):
            put.complete()


@pytest.mark.parametrize(
    ("drivers", "error"),
    [
        ([Driver(lots, kind=TwoStepStore) for lots in (ROWS, OTHER)], "a committed shard has changed"),
        ([LastFirst(ROWS, kind=FolderStore)], r"the committed lots are \[1\]"),
    ],
    ids=["a check and a put", "out of order"],
)
def test_the_exploration_finds_a_completion_that_is_wrong(drivers: list[Driver], error: str) -> None:
    _, problem = explore(drivers)
    assert problem and re.search(error, problem)
