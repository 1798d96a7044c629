"""Messages between the process of a program and the process of its tests: a length, then JSON.

JSON cannot run anything when it is read. Values that JSON lacks are objects with one key, the tag of their kind; what
is not a plain value is a reference (peer.py). Plain values are the builtin types by their exact type, and a few of the
standard library. The reader of a message expects anything: it raises `BadMessage` and nothing else.
"""

import datetime
import json
import os
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

MAX_BYTES = 32 << 20  # of a message
MAX_DEPTH = 60  # of containers in containers; the reader of JSON goes deeper than that
LARGE = 1 << 62  # larger integers travel as hexadecimal text, because decimal text takes quadratic time
TEXTS = (str, float, bool, type(None))  # as they are in JSON; NaN and the infinities too
CONSTANTS = {"Ellipsis": ..., "NotImplemented": NotImplemented}
VIEWS: dict[str, type] = {"keys": type({}.keys()), "values": type({}.values()), "items": type({}.items())}
Encode = Callable[[Any], Any]
Decode = Callable[[Any], Any]


class BadMessage(Exception):
    """A message that no honest peer sends."""


class TooLarge(BaseException):
    """A message beyond MAX_BYTES."""


class PeerEnded(BaseException):
    """The other process has closed its end of the pipe."""


def send(fd: int, message: Any) -> None:
    """Write a message. Raises PeerEnded if nobody reads it, TooLarge before anything is written."""
    data = json.dumps(message, separators=(",", ":"), check_circular=False).encode()
    if len(data) > MAX_BYTES:
        raise TooLarge(f"values of {len(data) >> 20} MiB are too large to pass between program and tests")
    view = memoryview(len(data).to_bytes(4, "little") + data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except (BrokenPipeError, ConnectionError):
        raise PeerEnded from None


def receive(fd: int) -> Any:
    """Read a message. Raises PeerEnded at the end of the pipe."""
    size = int.from_bytes(_read(fd, 4), "little")
    if size > MAX_BYTES:
        raise BadMessage("a message is too large")
    data = _read(fd, size)
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise BadMessage("a message is not JSON") from None


def _read(fd: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            raise PeerEnded
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


# Containers that can change. Their contents are lists, so that they can be replaced in place (`fill`).
CHANGEABLE: dict[type, str] = {
    list: "l", dict: "d", set: "s", bytearray: "B", deque: "q", Counter: "C", OrderedDict: "O", defaultdict: "G",
    array: "a",
}  # fmt: skip
KINDS = {tag: kind for kind, tag in CHANGEABLE.items()}


def content(value: Any, encode: Encode) -> Any:
    """The elements of a changeable container, encoded."""
    kind = type(value)
    if kind is bytearray:
        return value.decode("latin-1")
    if kind in (dict, Counter, OrderedDict, defaultdict):
        return [[encode(key), encode(item)] for key, item in value.items()]
    return [encode(item) for item in value]


def options(value: Any, encode: Encode) -> Any:
    """What a container is made with beside its elements."""
    kind = type(value)
    if kind is deque:
        return value.maxlen
    if kind is defaultdict:
        return encode(value.default_factory)
    return value.typecode if kind is array else None


def new_container(tag: str, option: Any, decode: Decode) -> Any:
    """An empty container."""
    kind = KINDS[tag]
    if kind is deque:
        return deque(maxlen=option)
    if kind is defaultdict:
        return defaultdict(decode(option))
    return array(option) if kind is array else kind()


def fill(value: Any, elements: Any, decode: Decode) -> None:
    """Replace the elements of a container, in place."""
    kind = type(value)
    if kind is bytearray:
        value[:] = elements.encode("latin-1")
        return
    if kind in (dict, Counter, OrderedDict, defaultdict):
        pairs = [(decode(key), decode(item)) for key, item in elements]
        value.clear()
        for key, item in pairs:
            value[key] = item
        return
    items = [decode(item) for item in elements]
    if kind is list or kind is array:
        del value[:]
    else:
        value.clear()
    (value.update if kind is set else value.extend)(items)


def plain(value: Any, encode: Encode) -> Any:
    """The encoded form of a plain value that cannot change; None for any other value."""
    kind = type(value)
    if kind is tuple:
        return {"t": [encode(item) for item in value]}
    if kind is frozenset:
        return {"f": [encode(item) for item in value]}
    if kind is bytes:
        return {"b": value.decode("latin-1")}
    if kind is complex:
        return {"c": [value.real, value.imag]}
    if kind is range:
        return {"r": [encode(number) for number in (value.start, value.stop, value.step)]}
    if kind is slice:
        return {"S": [encode(part) for part in (value.start, value.stop, value.step)]}
    if value is ... or value is NotImplemented:
        return {"x": "Ellipsis" if value is ... else "NotImplemented"}
    if kind is Decimal:
        return {"D": str(value)}
    if kind is Fraction:
        return {"F": [encode(value.numerator), encode(value.denominator)]}
    if kind is datetime.timedelta:
        return {"td": [value.days, value.seconds, value.microseconds]}
    if kind is datetime.date or (kind in (datetime.datetime, datetime.time) and _has_plain_zone(value)):
        return {"dt": [kind.__name__, value.isoformat(), getattr(value, "fold", 0)]}
    for name, view in VIEWS.items():
        if kind is view:
            return {"V": [name, [encode(item) for item in value]]}
    return None


def _has_plain_zone(value: Any) -> bool:
    return value.tzinfo is None or type(value.tzinfo) is datetime.timezone


def unplain(tag: str, body: Any, decode: Decode) -> Any:
    """The value of an encoded form that `plain` makes, or of a large integer. Raises KeyError for another tag."""
    if tag in ("t", "f"):
        return (tuple if tag == "t" else frozenset)([decode(item) for item in body])
    if tag == "i":
        return int(body, 16)
    if tag == "b":
        return body.encode("latin-1")
    if tag == "c":
        return complex(float(body[0]), float(body[1]))
    if tag in ("r", "S"):
        return (range if tag == "r" else slice)(*[decode(number) for number in body])
    if tag == "x":
        return CONSTANTS[body]
    if tag == "D":
        return Decimal(body)
    if tag == "F":
        return Fraction(decode(body[0]), decode(body[1]))
    if tag == "td":
        return datetime.timedelta(*body)
    if tag == "dt":
        kinds: dict[str, Any] = {"date": datetime.date, "datetime": datetime.datetime, "time": datetime.time}
        moment = kinds[body[0]].fromisoformat(body[1])
        return moment.replace(fold=1) if body[2] else moment
    if tag == "V":
        items = [decode(item) for item in body[1]]
        if body[0] == "items":
            return dict(items).items()
        return dict.fromkeys(items).keys() if body[0] == "keys" else dict(enumerate(items)).values()
    raise KeyError(tag)
