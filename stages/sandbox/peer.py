"""Requests between the process of a program and the process of its tests.

Both sides run the same code. Each keeps its own objects; what is not a plain value travels as the number of an object,
and the other side has a proxy for it (mirrors.py). A request names an operation, an answer carries its value or its
exception, and while a request is in work the other side may make requests of its own (a callback). The side of the
tests trusts nothing that it reads: it takes requests only for objects that it passed, and only those of guard.py.
"""

import contextlib
import importlib
import sys
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

from gristmill.stages.sandbox import descriptions, mirrors, wire
from gristmill.stages.sandbox.containers import Containers
from gristmill.stages.sandbox.names import NAMES, OBJECTS
from gristmill.stages.sandbox.wire import CHANGEABLE, LARGE, TEXTS, BadMessage

MAX_TEXT = 2000  # characters of a message of an exception
PLACE = "_gristmill_place"  # attribute of an exception: where the other side raised it


class Unsupported(BaseException):
    """What the tests do cannot be done from another process. No `except Exception` of the tests hides it."""


class Peer:
    """One end of the connection. `own` says which file names are code of this side, for the places of exceptions."""

    def __init__(self, read_fd: int, write_fd: int, is_tests: bool, own: str) -> None:
        self.read_fd, self.write_fd, self.is_tests, self.own = read_fd, write_fd, is_tests, own
        self.containers = Containers(0 if is_tests else 1, self.encode, self.decode)
        self.mirrors = descriptions.Mirrors(self)
        self.operations: dict[str, Callable[..., Any]] = {}
        self.exports: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._next = 1
        self._proxies: dict[int, weakref.ref[Any]] = {}
        self._strong: dict[int, Any] = {}
        self._released: dict[int, None] = {}
        self._classes: list[Any] = []  # descriptions that the message in work must carry
        self._described: set[int] = set()
        self._is_reading = False
        self._lock = threading.RLock()
        self._num_answers = 0  # that are in work

    # What a side adds to its messages, and takes from those of the other side.
    def outgoing(self) -> dict[str, Any]:
        return {}

    def incoming(self, message: dict[str, Any]) -> None:
        pass

    def note(self, text: str) -> None:
        """Remember why a comparison may surprise."""

    def exportable(self, value: Any) -> bool:
        """Whether the other side may get a reference to an object of this side."""
        return True

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
            _forget_frames(error, place(error, self.own))
            box = [error]
        if box:
            with self._lock:
                self._write("e", box)
        self._num_answers -= 1

    def adopt(self, kind: type) -> int:
        """The number of a class that the other side knows already."""
        number = self.export(kind)
        self._described.add(number)
        return number

    def _write(self, key: str, box: list[Any]) -> None:
        """Send what is in `box`, and empty it: a container counts as held only if something else holds it."""
        try:
            is_limited = key != "q" and not self.is_tests and self._num_answers == 1
            body = [self.encode(part) for part in box]
            box.clear()
            message = {key: body, **self.outgoing(), **self.containers.flush(is_limited)}
            if self._classes:
                message["c"] = self._classes
            if self._released:
                message["x"] = list(self._released)
            wire.send(self.write_fd, message)
        except wire.TooLarge as error:
            if self.is_tests:
                raise Unsupported(str(error)) from None
            wire.send(self.write_fd, {"fatal": str(error)})
            raise wire.PeerEnded from None
        except BaseException:
            self.containers.abandon()
            raise
        self._classes = []
        self._released.clear()

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
                self._numbers.pop(id(self.exports.pop(number)), None)
        except Exception as error:
            if isinstance(error, BadMessage):
                raise
            raise BadMessage(f"a message cannot be read ({type(error).__name__})") from None
        finally:
            self._is_reading = False
        return key, body

    def encode(self, value: Any) -> Any:
        kind = type(value)
        if kind in TEXTS:
            return value
        if kind is int:
            return value if -LARGE < value < LARGE else {"i": hex(value)}
        if kind in CHANGEABLE:
            return self.containers.reference(value)
        form = wire.plain(value, self.encode)
        if form is not None:
            return form
        number = mirrors.number_of(value)
        if number is not None:
            return {"p": number}
        if id(value) in NAMES:
            return {"k": NAMES[id(value)]}
        if isinstance(value, BaseException):
            return self._encode_exception(value)
        if self.is_tests:
            name = _global_name(value)
            if name is not None:
                return {"m": name}
            if isinstance(value, types.TracebackType):
                return None
        if not self.exportable(value):
            raise Unsupported(f"{_kind_name(value)} of the tests cannot be passed to the program")
        return self.reference(value)

    def reference(self, value: Any) -> dict[str, Any]:
        """The number of an object, of its class, and what the mirror needs beside."""
        if isinstance(value, type):
            return {"K": self._class_number(value)}
        number = self.export(value)
        own_hash, plain = descriptions.value_of(value)
        return {"o": [number, self._class_number(type(value)), own_hash, self.encode(plain)]}

    def export(self, value: Any) -> int:
        number = self._numbers.get(id(value))
        if number is None:
            number, self._next = self._next, self._next + 1
            self.exports[number], self._numbers[id(value)] = value, number
        return number

    def _class_number(self, kind: type) -> int:
        number = self.export(kind)
        if number not in self._described:
            self._described.add(number)
            description = descriptions.description(number, kind, self._class_form)
            self._classes.append(description)  # after those of its bases
        return number

    def _class_form(self, base: type) -> Any:
        if id(base) in NAMES and (base is object or issubclass(base, (BaseException, *mirrors.VALUES))):
            return {"k": NAMES[id(base)]}
        remote = mirrors.number_of(base)
        return {"p": remote} if remote is not None else {"K": self._class_number(base)}

    def _encode_exception(self, error: BaseException) -> dict[str, Any]:
        kind = type(error)
        form = {"k": NAMES[id(kind)]} if id(kind) in NAMES else self._exception_class(kind)
        try:
            arguments = [self.encode(argument) for argument in error.args]
        except (Unsupported, ValueError, RecursionError):
            arguments = []
        try:
            text = str(error)[:MAX_TEXT]
        except Exception:  # noqa: BLE001 - it is the program's
            text = ""
        return {"E": [form, arguments, text, _place_mark(error), self.export(error)]}

    def _exception_class(self, kind: type) -> Any:
        remote = mirrors.number_of(kind)
        return {"p": remote} if remote is not None else {"K": self._class_number(kind)}

    def decode(self, form: Any) -> Any:
        if type(form) is not dict:
            if type(form) is list:
                raise BadMessage("a list without a number")
            return form
        ((tag, body),) = form.items()
        if tag == "h":
            return self.containers.resolve(body)
        if tag == "p":
            return self.exports[body]
        if tag == "o":
            return self._proxy(*body)
        if tag == "K":
            return self.mirrors.classes[body]
        if tag == "k":
            return OBJECTS[body]
        if tag == "E":
            return self._decode_exception(*body)
        if tag == "m" and not self.is_tests:
            return _global_object(body)
        return wire.unplain(tag, body, self.decode)

    def _proxy(self, number: int, class_number: int, *value: Any) -> Any:
        proxy = self._proxies[number]() if number in self._proxies else self._strong.get(number)
        if proxy is None:
            self._released.pop(number, None)
            proxy = self.mirrors.new(number, class_number, *value)
            try:
                self._proxies[number] = weakref.ref(proxy, lambda ref: self._release(number, ref))
            except TypeError:  # subclasses of int and tuple
                self._strong[number] = proxy
        return proxy

    def _release(self, number: int, ref: Any) -> None:
        if self._proxies.get(number) is ref:
            del self._proxies[number]
            self._released[number] = None

    def _decode_exception(self, form: Any, arguments: list[Any], text: Any, at: Any, number: int) -> BaseException:
        kind = self.decode(form)
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise BadMessage("no class of exceptions")
        values = tuple([self.decode(argument) for argument in arguments])
        if isinstance(kind, mirrors.RemoteMeta):
            error = self.mirrors.new_exception(kind, number, values)  # type: ignore[arg-type]
        else:
            try:
                error = kind(*values)
            except Exception:  # noqa: BLE001 - those with arguments of their own kind
                error = kind.__new__(kind)
                error.args = (str(text),)
        _mark_place(error, at if isinstance(at, str) else None)
        return error


def place(error: BaseException, own: str) -> str | None:
    """Where an exception was raised: as the other side says, else the last line of the file `own` on its way."""
    trace, last = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == own:
            last = f"{own}:{trace.tb_lineno}"
        trace = trace.tb_next
    return _place_mark(error) or last


def _place_mark(error: BaseException) -> str | None:
    try:
        mark = object.__getattribute__(error, PLACE)
    except AttributeError:
        return None
    return mark if isinstance(mark, str) else None


def _mark_place(error: BaseException, at: str | None) -> None:
    with contextlib.suppress(Exception):  # a class without attributes
        object.__setattr__(error, PLACE, at)


def _forget_frames(error: BaseException | None, at: str | None) -> None:
    """Remove what an exception holds of frames, which hold variables."""
    if error is not None and at is not None:
        _mark_place(error, at)
    for _ in range(100):
        if error is None:
            return
        error.__traceback__ = None
        context, error.__context__ = error.__context__, None
        error = context


def _kind_name(value: Any) -> str:
    return f"a value of type {type(value).__qualname__}"


def _global_name(value: Any) -> str | None:
    """The name of an object that the program can import: "module" or "module:name"."""
    if isinstance(value, types.ModuleType):
        return value.__name__ if sys.modules.get(value.__name__) is value else None
    if not isinstance(value, type | types.FunctionType | types.BuiltinFunctionType | types.MethodDescriptorType):
        return None
    owner = getattr(value, "__objclass__", None)
    module = owner.__module__ if owner is not None else getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return None
    try:
        return f"{module}:{name}" if _global_object(f"{module}:{name}") is value else None
    except (ImportError, AttributeError, ValueError):
        return None


def _global_object(name: str) -> Any:
    module, _, path = name.partition(":")
    value = importlib.import_module(module)
    for part in path.split(".") if path else ():
        value = getattr(value, part)
    return value
