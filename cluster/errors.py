"""Losses that the run retries, and the error that ends a run."""

from concurrent.futures import Future
from typing import Any

from ray import exceptions

from gristmill.engines.errors import EngineDead
from gristmill.records.errors import UserError

LOSSES = (
    exceptions.RayActorError,
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.ObjectLostError,
    exceptions.OutOfMemoryError,
    exceptions.LocalRayletDiedError,
    exceptions.TaskCancelledError,
    EngineDead,
)


MAX_LINES, MAX_CHARS = 3, 400


class RunFailed(UserError):
    """The run stops early; the message names lot and stage. Committed lots stay, and the run can be resumed."""


class Loss(Exception):
    """A worker, node or object was lost during a task; another worker can repeat the task."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(one_line(cause))
        self.is_object = isinstance(cause, exceptions.ObjectLostError)  # the rows are lost, not only the worker


def fetch(future: Future, lot: int, phase: str) -> Any:
    """The value of a finished task.

    Raises Loss for a loss worth a retry and RunFailed for an error of the work itself.
    """
    try:
        return future.result()
    except exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, LOSSES):
            raise Loss(cause) from error
        if isinstance(cause, UserError):
            raise RunFailed(f"lot {lot}, {phase}: {cause}") from error
        raise RunFailed(f"lot {lot}, {phase}: {type(cause).__name__}: {one_line(cause)}") from error
    except LOSSES as error:
        raise Loss(error) from error
    except exceptions.RayError as error:
        raise RunFailed(f"lot {lot}, {phase}: {type(error).__name__}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """The first lines of an error, joined and cut to a readable length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = "; ".join(lines[:MAX_LINES]) if lines else type(error).__name__
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 3]}..."
