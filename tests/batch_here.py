"""Batch work in this process, without Ray: the same functions, one after another."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gristmill.cluster.batch_work import Workers


class Box:
    """A reference to a value."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Here(Workers):
    """Runs each task when it is started, and ends them in another order than it started them."""

    def __init__(self, num_at_once: int = 3) -> None:
        super().__init__({}, num_at_once)
        self.num_tasks = 0

    def shared(self, value: Any) -> Any:
        return Box(value)

    def start(self, function: Any, *arguments: Any, num_returns: int = 1) -> list[Any]:
        self.num_tasks += 1
        function, *arguments = (value.value if isinstance(value, Box) else value for value in (function, *arguments))
        answer = function(*arguments)
        values = list(answer) if num_returns > 1 else [answer]
        assert len(values) == num_returns
        return [Box(value) for value in values]

    def finished(self, refs: Sequence[Any]) -> Any:
        return refs[-1]

    @staticmethod
    def fetch(ref: Any) -> Any:
        return ref.value


@contextmanager
def batch_work_here(*stores: Any) -> Iterator[Workers]:
    """In place of `batch_work`."""
    yield Here()
