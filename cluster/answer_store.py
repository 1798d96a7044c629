"""The store of a run as its engines reach it, on any node: a local folder lies on the driver's node alone."""

from typing import Any

import ray

from gristmill.cluster.node_affinity import node_options
from gristmill.records.output.answers import AnswerStore
from gristmill.records.stores.contract import Entry, Store
from gristmill.records.stores.local import LocalStore

MAX_CALLS = 16  # at once, of one engine


@ray.remote(num_cpus=0, max_concurrency=MAX_CALLS)
class Folder:
    """A local folder for calls from other nodes."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store

    def list(self, prefix: str) -> list[Entry]:
        return list(self.store.list(prefix))

    def read_if_there(self, name: str) -> bytes | None:
        return self.store.read_if_there(name)

    def put(self, name: str, data: bytes, if_absent: bool) -> None:
        self.store.put(name, data, if_absent=if_absent)


class DriverFolder:
    """A local folder of the driver's node. On that node it is used at once, elsewhere through an actor there."""

    def __init__(self, store: LocalStore) -> None:
        self.uri, self.store = store.uri, store
        self.node: str = ray.get_runtime_context().get_node_id()
        self.options = node_options(store)
        self._actor: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_actor": None}

    def list(self, prefix: str = "") -> "list[Entry]":
        return self._call("list", prefix) if self._is_elsewhere else list(self.store.list(prefix))

    def read_if_there(self, name: str) -> bytes | None:
        if self._is_elsewhere:
            data: bytes | None = self._call("read_if_there", name)
            return data
        return self.store.read_if_there(name)

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> None:
        if self._is_elsewhere:
            self._call("put", name, data, if_absent)
        else:
            self.store.put(name, data, if_absent=if_absent)

    @property
    def _is_elsewhere(self) -> bool:
        return bool(ray.get_runtime_context().get_node_id() != self.node)

    def _call(self, method: str, *arguments: Any) -> Any:
        if self._actor is None:
            self._actor = Folder.options(**self.options).remote(self.store)  # type: ignore[attr-defined]
        try:
            return ray.get(getattr(self._actor, method).remote(*arguments))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayActorError as error:
            self._actor = None  # the next call starts another
            raise OSError(f"the driver's node does not answer ({type(error).__name__})") from error


def answer_store(store: Store) -> AnswerStore:
    """The store as the engines of a run use it."""
    return DriverFolder(store) if isinstance(store, LocalStore) else store
