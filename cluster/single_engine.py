"""One engine on the cluster for a while, in a process of its own: started, called, ended."""

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Self

import pyarrow as pa
import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import remove_placement_group

from gristmill.cluster.errors import one_line
from gristmill.cluster.inputs import open_unchanged, secrets_of
from gristmill.cluster.pools.replica import Worker, placement_options
from gristmill.records.errors import UserError

POLL_S, CLOSE_TIMEOUT_S = 0.3, 20.0
# A line of a traceback that names an error, perhaps behind the name of a process.
ERROR_LINE = re.compile(r"\b(\w*(?:Error|Exception)): (\S.*)$")
WRAPPER = "Engine core initialization failed"  # what vLLM raises beside the real reason


class TrialFailed(Exception):
    """An engine has no result; the message is one line."""


class Stopped(Exception):
    """The user has stopped it."""


class EngineProcess:
    """What the actor of an engine does; a subclass adds calls, and `ray.remote` makes it an actor."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    async def open(self, secrets: Mapping[str, str]) -> Any:
        """Start the engine. Raises TrialFailed. `secrets`: see `open_unchanged`."""
        with captured() as text:
            try:
                open_unchanged(self.worker, secrets)
            except UserError as error:
                raise TrialFailed(str(error)) from None
            except Exception as error:  # noqa: BLE001 - whatever an engine raises at its start is the result
                raise TrialFailed(reason(text(), error)) from None

    async def make(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return await self.worker.make(batch)

    async def num_done(self) -> int:
        """Finished asks."""
        return self.worker.progress[0]

    async def close(self) -> None:
        self.worker.close()


class SingleEngine:
    """A context with one engine. `is_stopped` is asked a few times a second; a stop raises Stopped."""

    process: Any = ray.remote(EngineProcess)  # the actor

    def __init__(self, worker: Worker, is_stopped: Callable[[], bool], show: Callable[[str, int], None]) -> None:
        """`show` gets what it does ("starting", "measuring") and the number of answered asks."""
        self.worker, self.is_stopped, self.show = worker, is_stopped, show
        self._is_starting = False

    def __enter__(self) -> Self:
        options, self._group = placement_options(self.worker.needs)
        self._actor: Any = self.process.options(**options).remote(self.worker)
        return self

    def __exit__(self, *error: Any) -> None:
        """End the engine, so that the device is free when this returns."""
        if not self._is_starting:  # its process hears nothing while it starts; the engine's guard ends the others
            with suppress(RayError):
                ray.wait([self._actor.close.remote()], timeout=CLOSE_TIMEOUT_S)
        ray.kill(self._actor)
        if self._group is not None:
            remove_placement_group(self._group)

    def open(self, limit_s: float) -> Any:
        """Start the engine. Raises TrialFailed when it does not start within `limit_s` seconds."""
        self._is_starting = True
        return self.wait(self._actor.open.remote(secrets_of(self.worker.needs)), limit_s, "starting")

    def make(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """`batch` as the worker fills it. Raises TrialFailed when the engine dies."""
        filled: pa.RecordBatch = self.wait(self._actor.make.remote(batch), float("inf"), "answering")
        return filled

    def wait(self, ref: Any, limit_s: float, phase: str) -> Any:
        """The value of a call of the actor. Raises TrialFailed for its errors, and after `limit_s` seconds."""
        end = time.monotonic() + limit_s
        while not ray.wait([ref], timeout=POLL_S)[0]:
            if self.is_stopped():
                raise Stopped
            if time.monotonic() > end:
                raise TrialFailed(f"{phase} took more than {limit_s:.0f} s")
            self.show(phase, 0 if phase == "starting" else self._num_done())
        self._is_starting = False
        try:
            return ray.get(ref)
        except RayTaskError as error:
            cause = error.cause
            raise TrialFailed(str(cause) if isinstance(cause, TrialFailed) else one_line(cause)) from None
        except RayError as error:
            raise TrialFailed(f"its process died: {one_line(error)}") from None

    def _num_done(self) -> int:
        try:
            number: int = ray.get(self._actor.num_done.remote(), timeout=POLL_S)
        except RayError:  # it is busy, or gone: the call that is waited for says which
            return 0
        return number


def reason(text: str, error: BaseException) -> str:
    """Why an engine did not start, in one line: the last error in what its processes wrote, else `error`.

    vLLM raises "see root cause above" for an error in another process.
    """
    causes = [match for line in text.splitlines() if (match := ERROR_LINE.search(line)) and WRAPPER not in line]
    if WRAPPER in str(error) and causes:
        return one_line(Exception(f"{causes[-1][1]}: {causes[-1][2]}"))
    return one_line(Exception(f"{type(error).__name__}: {error}"))


@contextmanager
def captured() -> Iterator[Callable[[], str]]:
    """What this process and its children write during the block goes to a file; yields a reader of it."""
    with tempfile.TemporaryFile("w+b") as file:
        before = [os.dup(number) for number in (1, 2)]
        for number in (1, 2):
            os.dup2(file.fileno(), number)

        def read() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield read
        finally:
            for number, old in zip((1, 2), before):
                os.dup2(old, number)
                os.close(old)
