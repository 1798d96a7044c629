"""Requests between the process of a program and the process of its tests.

Both sides run the same code. Each keeps its own objects; what is not a plain value travels as the number of an object,
and the other side has a proxy for it (mirrors.py). A request names an operation, an answer carries its value or its
exception, and while a request is in work the other side may make requests of its own (a callback). The side of the
tests trusts nothing that it reads: it takes requests only for objects that it passed, and only those of guard.py.
"""

import threading
from collections.abc import Callable
from typing import Any

from gristmill.stages.sandbox import wire
from gristmill.stages.sandbox.references import MAX_TEXT, References, Unsupported
from gristmill.stages.sandbox.report import forget_frames, place
from gristmill.stages.sandbox.wire import BadMessage


class Peer(References):
    """One end of the connection. `own` says which file names are code of this side, for the places of exceptions."""

    def __init__(self, read_fd: int, write_fd: int, is_tests: bool, own: str) -> None:
        super().__init__(is_tests)
        self.read_fd, self.write_fd, self.own = read_fd, write_fd, own
        self.operations: dict[str, Callable[..., Any]] = {}
        self._is_reading = False
        self._lock = threading.RLock()
        self._num_answers = 0  # that are in work

    # What a side adds to its messages, and takes from those of the other side.
    def outgoing(self) -> dict[str, Any]:
        return {}

    def incoming(self, message: dict[str, Any]) -> None:
        pass

    def request(self, operation: str, *parts: Any) -> Any:
        """The answer of the other side. Raises its exception."""
        with self._lock:  # one thread at a time
            if self._is_reading:
                raise BadMessage("a value cannot be read without another request")
            if not (self.is_tests or self._num_answers):
                raise RuntimeError("the tests can be asked only while they wait")
            self._write("q", [operation, *parts])
            del parts
            while True:
                key, body = self._read()
                if key == "a":
                    return body.pop()
                if key == "e":
                    raise body.pop()
                self.answer(body)

    def serve(self) -> None:
        """Answer requests until the other side ends."""
        while True:
            key, body = self._read()
            if key != "q":
                raise BadMessage("an answer to nothing")
            self.answer(body)

    def answer(self, body: list[Any]) -> None:
        """Do an operation, [its name, its parts], and send its value or exception."""
        parts, operation = body.pop(), body.pop()
        self._num_answers += 1
        try:
            box = [self.operations[operation](*parts)]
            del parts
            with self._lock:
                self._write("a", box)
        except (wire.PeerEnded, BadMessage):
            raise
        except BaseException as error:  # noqa: BLE001 - the other side gets it
            forget_frames(error, place(error, self.own))
            box = [error]
        if box:
            with self._lock:
                self._write("e", box)
        self._num_answers -= 1

    def _write(self, key: str, box: list[Any]) -> None:
        """Send what is in `box`, and empty it: a container counts as held only if something else holds it."""
        try:
            is_limited = key != "q" and not self.is_tests and self._num_answers == 1
            body = [self.encode(part) for part in box]
            box.clear()
            message = {key: body, **self.outgoing(), **self.containers.flush(is_limited)}
            if self.classes:
                message["c"] = self.classes
            if self.released:
                message["x"] = list(self.released)
            wire.send(self.write_fd, message)
        except wire.TooLarge as error:
            if self.is_tests:
                raise Unsupported(str(error)) from None
            wire.send(self.write_fd, {"fatal": str(error)})
            raise wire.PeerEnded from None
        except BaseException:
            self.containers.abandon()
            raise
        self.classes = []
        self.released.clear()

    def _read(self) -> tuple[str, list[Any]]:
        """The kind of a message and, in a list that its user empties, what it says."""
        message = wire.receive(self.read_fd)
        self._is_reading = True
        try:
            if "fatal" in message:
                raise Unsupported(str(message["fatal"])[:MAX_TEXT])
            for description in message.get("c", []):
                self.mirrors.add_class(*description)
            self.containers.apply(message)
            key = next(key for key in ("a", "e", "q") if key in message)
            body = [self.decode(part) for part in message[key]]
            if key == "q":
                body = [body[0], body[1:]]
                if body[0] not in self.operations:
                    raise Unsupported(f"the program asks for {str(body[0])[:40]}")
            elif len(body) != 1 or (key == "e" and not isinstance(body[0], BaseException)):
                raise BadMessage("no answer")
            self.incoming(message)
            self.containers.forget(message.get("z", []))
            for number in message.get("x", []):
                self.drop(number)
        except Exception as error:
            if isinstance(error, BadMessage):
                raise
            raise BadMessage(f"a message cannot be read ({type(error).__name__})") from None
        finally:
            self._is_reading = False
        return key, body
