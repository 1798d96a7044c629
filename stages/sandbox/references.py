"""Encodes what is not a plain value: references to objects, classes and exceptions, and names of the standard library.

Each side numbers the objects that it passes (`exports`) and keeps them until the other side has no proxy left.
"""

import importlib
import sys
import types
import weakref
from typing import Any

from gristmill.stages.sandbox import descriptions, mirrors, wire
from gristmill.stages.sandbox.containers import Containers
from gristmill.stages.sandbox.names import NAMES, OBJECTS
from gristmill.stages.sandbox.report import mark_place, place_mark
from gristmill.stages.sandbox.wire import CHANGEABLE, LARGE, TEXTS, BadMessage

MAX_TEXT = 2000  # characters of a message of an exception


class Unsupported(BaseException):
    """What the tests do cannot be done from another process. No `except Exception` of the tests hides it."""


class References:
    """The values of one end of a connection, encoded and decoded."""

    def __init__(self, is_tests: bool) -> None:
        self.is_tests = is_tests
        self.containers = Containers(0 if is_tests else 1, self.encode, self.decode)
        self.mirrors = descriptions.Mirrors(self)
        self.exports: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._next = 1
        self._proxies: dict[int, weakref.ref[Any]] = {}
        self._strong: dict[int, Any] = {}
        self.released: dict[int, None] = {}  # numbers of the other side's objects without a proxy
        self.classes: list[Any] = []  # descriptions that the message in work must carry
        self._described: set[int] = set()

    def note(self, text: str) -> None:
        """Remember why a comparison may surprise."""

    def exportable(self, value: Any) -> bool:
        """Whether the other side may get a reference to an object of this side."""
        return True

    def request(self, operation: str, *parts: Any) -> Any:
        """The answer of the other side. Raises its exception."""
        raise NotImplementedError

    def adopt(self, kind: type) -> int:
        """The number of a class that the other side knows already."""
        number = self.export(kind)
        self._described.add(number)
        return number

    def drop(self, number: int) -> None:
        """Forget an object that has no proxy left."""
        self._numbers.pop(id(self.exports.pop(number)), None)

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
            self.classes.append(description)  # after those of its bases
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
        return {"E": [form, arguments, text, place_mark(error), self.export(error)]}

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
            self.released.pop(number, None)
            proxy = self.mirrors.new(number, class_number, *value)
            try:
                self._proxies[number] = weakref.ref(proxy, lambda ref: self._release(number, ref))
            except TypeError:  # subclasses of int and tuple
                self._strong[number] = proxy
        return proxy

    def _release(self, number: int, ref: Any) -> None:
        if self._proxies.get(number) is ref:
            del self._proxies[number]
            self.released[number] = None

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
        mark_place(error, at if isinstance(at, str) else None)
        return error


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
