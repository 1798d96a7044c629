"""Losses that are retried, and the error that ends a run."""

from concurrent.futures import Future
from typing import Any

from ray import exceptions as lost

from gristmill.engines.vllm import EngineDead
from gristmill.records.errors import UserError

LOSSES = (
    lost.RayActorError,
    lost.WorkerCrashedError,
    lost.NodeDiedError,
    lost.ObjectLostError,
    lost.OutOfMemoryError,
    lost.LocalRayletDiedError,
    lost.TaskCancelledError,
    EngineDead,
)


MAX_LINES, MAX_CHARS = 3, 400


class RunFailed(UserError):
    """A run that stops before its end; names lot and stage. What is committed stays and can be resumed."""


class Loss(Exception):
    """A worker, node or object was lost under a task; the same work may be given to another."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(one_line(cause))
        self.is_object = isinstance(cause, lost.ObjectLostError)  # the rows are gone, not only who worked on them


def fetch(future: Future, lot: int, phase: str) -> Any:
    """The value of a finished task.

    Raises Loss for a loss worth a retry and RunFailed for an error of the work itself.
    """
    try:
        return future.result()
    except lost.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, LOSSES):
            raise Loss(cause) from error
        if isinstance(cause, UserError):
            raise RunFailed(f"lot {lot}, {phase}: {cause}") from error
        raise RunFailed(f"lot {lot}, {phase}: {type(cause).__name__}: {one_line(cause)}") from error
    except LOSSES as error:
        raise Loss(error) from error
    except lost.RayError as error:
        raise RunFailed(f"lot {lot}, {phase}: {type(error).__name__}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """The telling lines of an error as one, cut to a readable length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = "; ".join(lines[:MAX_LINES]) if lines else type(error).__name__
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 3]}..."
