"""Pins: the inputs of a run as it first read them, so that a change under the run is noticed.

A run reads its inputs more than once: the driver compiles the recipe, workers open the stages hours later, engines are
started again. Every reading after the first compares the version of the object with the pinned one. A version may
differ although the content is the same, as after `touch` or on another node; then the content decides, by its digest.

    pins = Pins()
    with pins.active():          # in the driver: each first reading pins its object
        read(store, "items.jsonl")
    with pins.active():          # in a worker that has unpickled `pins`
        read(store, "items.jsonl")  # raises UserError when the content is not the same
"""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pyarrow as pa

from gristmill.records.errors import Changed, InputChanged
from gristmill.records.stores.contract import Entry, Store
from gristmill.records.stores.digest import NUM_THREADS, cached_digest, digest_bytes, digest_content

logger = logging.getLogger(__name__)

REMEDY = "restore it or use a new --out"


class Pin:
    """One object as a run first read it. Without a digest, each change of its version counts as a change."""

    def __init__(self, store: Store, name: str, version: str, digest: str | None = None, what: str = "input") -> None:
        """`what` the object is, for messages: "source", "model", ..."""
        self.store, self.name, self.version, self.digest, self.what = store, name, version, digest, what

    @contextmanager
    def open(self) -> Iterator[pa.NativeFile]:
        """The object as a seekable file. Raises UserError when it has changed, also during the block."""
        try:
            file = self.store.open(self.name, self.version)
        except (Changed, OSError):
            self._verify()
            file = self.store.open(self.name, self.version)
        try:
            with file:
                yield file
        except Exception:
            self.check()  # a change is the cause of any other error
            raise
        if not self.store.guards_reads:
            self.check()

    def read(self) -> bytes:
        """The whole object. Raises UserError when it has changed. The first reading takes its digest."""
        try:
            data = self.store.read(self.name, self.version)
        except (Changed, OSError):
            self._verify()
            data = self.store.read(self.name, self.version)
        if self.digest is None:
            self.digest = digest_bytes(data)
        return data

    def check(self) -> None:
        """Raise UserError when the object has changed; reads it only where its version differs."""
        try:
            if self.store.version(self.name) == self.version:
                return
        except OSError:
            pass
        self._verify()

    def _verify(self) -> None:
        """Raise UserError unless the present content is the pinned one; then take the present version."""
        try:
            present = self.store.version(self.name)
            if present == self.version:
                return
            digest = self.digest or cached_digest(self.store, self.name, self.version)
            if digest is not None and digest_content(self.store, self.name, present) == digest:
                self.version = present
                return
        except (FileNotFoundError, NotADirectoryError):
            raise self.changed("it is no longer there") from None
        except IsADirectoryError:
            raise self.changed("it is a folder now") from None
        except OSError as error:
            raise self.changed(f"it cannot be read: {error.strerror or error}") from None
        except Changed:
            raise self.changed("it is being written") from None
        old, new = (version.partition("-")[0] for version in (self.version, present))
        sizes = f"{int(old):,} bytes became {int(new):,}"
        raise self.changed(sizes if old != new else "its size is the same")

    def changed(self, how: str) -> InputChanged:
        """The error of a change."""
        return InputChanged(f"{self.what} {self.store.path(self.name)} changed since this run began ({how}); {REMEDY}")


Accept = Callable[[str], bool]


class Pins:
    """The pinned objects and folders of a run, by address. It can be pickled."""

    def __init__(self) -> None:
        self._pins: dict[str, Pin] = {}
        self._folders: dict[str, tuple[str, ...]] = {}  # the names of the objects that count, by address of the store
        self.memo: dict[str, Any] = {}  # what this process has computed from inputs, for callers of this module
        self._in_use: dict[str, Pin] = {}  # those that this process has read
        self.facts: dict[str, str] = {}  # other values that must not change: commits of hub models, digests of packages

    @contextmanager
    def active(self) -> Iterator["Pins"]:
        """Within the block, `read` and `entries` of this module pin what they read and compare it."""
        token = _ACTIVE.set(self)
        try:
            yield self
        finally:
            _ACTIVE.reset(token)

    def pin(self, store: Store, name: str, what: str = "input") -> Pin:
        """The pin of an object; the first call makes it. Raises FileNotFoundError and IsADirectoryError then."""
        address = store.path(name)
        if address not in self._pins:
            self._pins[address] = Pin(store, name, store.version(name), None, what)
        self._in_use[address] = self._pins[address]
        return self._pins[address]

    def entries(self, store: Store, accept: Accept, what: str = "input") -> list[Entry]:
        """The objects of a store whose names `accept` accepts, pinned. Raises UserError when there are others than at
        the first call, and when one has changed."""
        if store.uri in self._pins:
            self._pins[store.uri].check()  # it was an object
        entries = [entry for entry in store.list() if accept(entry.name)]
        names = tuple(entry.name for entry in entries)
        before = self._folders.setdefault(store.uri, names)
        for name in sorted({*before} ^ {*names}):
            how = "it was not there before" if name in names else "it is no longer there"
            raise Pin(store, name, "", None, what).changed(how)
        others = []
        for entry in entries:
            pin = self._pins.setdefault(store.path(entry.name), Pin(store, entry.name, entry.version, None, what))
            self._in_use[store.path(entry.name)] = pin
            if pin.version != entry.version:
                others.append(pin)
        if others:  # on a node with a copy of its own these are all files
            logger.info(f"comparing {what} {store.uri} with the one that the run began with ({len(others)} files)")
            with ThreadPoolExecutor(NUM_THREADS) as pool:
                list(pool.map(Pin.check, others))
        return entries

    def check_below(self, uri: str) -> None:
        """Raise UserError when an object at the address, or in the folder at it, has changed."""
        for address, pin in self._pins.items():
            if address == uri or address.startswith(f"{uri.rstrip('/')}/"):
                pin.check()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_in_use": {}, "memo": {}}

    def check_in_use(self) -> None:
        """Raise UserError when a file has changed that this process has read. S3 compares at each read."""
        for pin in list(self._in_use.values()):
            if not pin.store.guards_reads:
                pin.check()


_ACTIVE: ContextVar[Pins | None] = ContextVar("pins", default=None)


@contextmanager
def active(pins: Pins | None) -> Iterator[None]:
    """Within the block, readings are pinned in `pins`; None: they are not pinned.

    Raises UserError at the end of the block when a file has changed in the meantime, also where the block fails.
    """
    if pins is None:
        yield
        return
    with pins.active():
        try:
            yield
        finally:
            pins.check_in_use()


def current() -> Pins | None:
    """The pins of the block that the caller is in."""
    return _ACTIVE.get()


def read(store: Store, name: str, what: str = "input") -> bytes:
    """The whole object: an input of a run. Raises FileNotFoundError at a first reading, UserError after a change."""
    pins = current()
    return store.read(name) if pins is None else pins.pin(store, name, what).read()


def version(store: Store, name: str, what: str = "input") -> str:
    """The version of an input. Raises FileNotFoundError at a first reading, UserError after a change."""
    pins = current()
    if pins is None:
        return store.version(name)
    pin = pins.pin(store, name, what)
    pin.check()
    return pin.version


def entries(store: Store, accept: Accept, what: str = "input") -> list[Entry]:
    """The objects of a store that are inputs of a run. Raises UserError after a change."""
    pins = current()
    if pins is not None:
        return pins.entries(store, accept, what)
    return [entry for entry in store.list() if accept(entry.name)]
