"""Proxies: objects of this side that stand for objects of the other side.

Each class of the other side has a mirror, a class of this side with the same name, bases and special methods, so that
`isinstance`, `except`, operators and `with` work. What a proxy is asked for becomes a request.

In the process of the tests a proxy compares with plain values by its own plain value alone. If its class extends int,
str, tuple and the like, this value came with the reference, before the program could know what it is compared with.
Where there is none they are not equal, whatever the `__eq__` of the program says.
"""

from collections import Counter, OrderedDict, UserDict, UserList, UserString, defaultdict, deque
from collections.abc import Callable
from typing import Any

from gristmill.stages.sandbox.contact import Contact
from gristmill.stages.sandbox.names import CLASSES
from gristmill.stages.sandbox.wire import CHANGEABLE

# What the plain value of an instance of a subclass is.
VALUES: dict[type, Callable[[Any], Any]] = {
    bool: bool,
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    tuple: lambda value: tuple(tuple.__iter__(value)),
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    complex: lambda value: complex(value.real, value.imag),
}
CONTAINERS: dict[type, Callable[[Any], Any]] = {
    Counter: Counter, OrderedDict: OrderedDict, defaultdict: dict, dict: dict, list: list, set: set, deque: deque,
    bytearray: bytearray, UserDict: dict, UserList: list, UserString: str,
}  # fmt: skip
LIKE = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in CONTAINERS} | CLASSES
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
TEXTS = ("__repr__", "__str__", "__format__")
LOCAL = frozenset(
    """__new__ __init_subclass__ __class__ __dict__ __weakref__ __getattribute__ __getattr__ __setattr__ __delattr__
    __slots__ __doc__ __module__ __qualname__ __name__ __annotations__ __del__ __reduce__ __reduce_ex__ __getstate__
    __setstate__ __subclasshook__ __instancecheck__ __subclasscheck__ __prepare__ __match_args__ __get__ __set__
    __delete__ __set_name__ __class_getitem__ __abstractmethods__ __parameters__ __orig_bases__ __copy__ __deepcopy__
    __hash__ __dir__ __sizeof__ __mro_entries__ __classcell__ __eq__ __ne__ __lt__ __le__ __gt__ __ge__""".split()
).union(TEXTS)
NUMBER, CLASS_NUMBER, PEER, LIKENESS = "_gristmill_number", "_gristmill_class", "_gristmill_peer", "_gristmill_like"


def number_of(value: Any) -> int | None:
    """The number of the object that a proxy or a mirror stands for; None for anything else."""
    kind = type(value)
    number: int | None = None
    if kind is RemoteMeta:
        number = value.__dict__.get(CLASS_NUMBER)
    elif type(kind) is RemoteMeta:
        number = object.__getattribute__(value, NUMBER)
    return number


class RemoteMeta(type):
    """Class of the mirrors. A class statement with a mirror as a base makes a class on both sides."""

    def __new__(cls, name: str, bases: tuple[type, ...], space: dict[str, Any], **options: Any) -> Any:
        peer = next((getattr(base, PEER) for base in bases if hasattr(base, PEER)), None)
        if peer is None or CLASS_NUMBER in space:
            return super().__new__(cls, name, bases, space)
        parts = [(key, *_method(value)) for key, value in space.items() if key not in LOCAL]
        number = peer.request("subclass", name, bases, tuple(parts), tuple(options.items()))
        kind = super().__new__(cls, name, bases, {**space, CLASS_NUMBER: number, "__dict__": FIELDS})
        peer.mirrors.classes[number] = kind
        return kind

    def __init__(cls, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments)

    def __call__(cls, *arguments: Any, **options: Any) -> Any:
        return _peer(cls).request("call", cls, arguments, tuple(options.items()))

    def __getattr__(cls, name: str) -> Any:
        if name in (PEER, CLASS_NUMBER, "__abstractmethods__"):
            raise AttributeError(name)
        return _peer(cls).request("get", cls, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        _peer(cls).request("set", cls, name, value)

    def __delattr__(cls, name: str) -> None:
        _peer(cls).request("del", cls, name)

    @property
    def __doc__(cls) -> Any:  # type: ignore[override]
        return _peer(cls).request("get", cls, "__doc__") if hasattr(cls, PEER) else None

    def __instancecheck__(cls, value: Any) -> bool:
        if type.__instancecheck__(cls, value):
            return True
        return type(value) in CHANGEABLE and bool(_peer(cls).request("function", "isinstance", value, cls))

    def __bool__(cls) -> bool:
        return True

    def __iter__(cls) -> Any:
        return _peer(cls).request("function", "iter", cls)

    def __len__(cls) -> int:
        return int(_peer(cls).request("function", "len", cls))

    def __getitem__(cls, key: Any) -> Any:
        return _peer(cls).request("function", "getitem", cls, key)

    def __contains__(cls, item: Any) -> bool:
        return bool(_peer(cls).request("function", "contains", cls, item))


def _peer(cls: type) -> Contact:
    peer: Contact = type.__getattribute__(cls, PEER)
    return peer


def _ask(value: Any, *request: Any) -> Any:
    return _peer(type(value)).request(*request)


def _method(value: Any) -> tuple[str, Any]:
    """(kind, function or value) of an entry of a class statement."""
    for kind in (staticmethod, classmethod):
        if isinstance(value, kind):
            return kind.__name__, value.__func__
    if isinstance(value, property):
        return "property", (value.fget, value.fset, value.fdel)
    return ("method" if isinstance(value, type(_ask)) else "value"), value


def _comparison(name: str) -> Callable[[Any, Any], Any]:
    def compare(self: Any, other: Any) -> Any:
        peer = _peer(type(self))
        if not peer.is_tests or number_of(other) is not None:
            return peer.request("function", name, self, other)
        value = peer.request("plain", self) if _likeness(type(self)) in CONTAINERS else None
        if type(value) in CHANGEABLE or type(value) is str:
            return getattr(value, f"__{name}__")(other)
        peer.note(f"no {type(self).__name__} of the program equals a {type(other).__name__}")
        return NotImplemented

    return compare


def _fields(self: Any) -> Any:
    return _ask(self, "get", self, "__dict__")


FIELDS = property(_fields)
DOCUMENTATION = property(lambda self: _ask(self, "get", self, "__doc__"))


def _likeness(cls: type) -> type:
    """The class that instances of a mirror have for isinstance(): a builtin one if the mirrored class extends it."""
    like: type | None = type.__getattribute__(cls, LIKENESS)
    return like or cls


class RemoteObject(metaclass=RemoteMeta):
    """Base of all mirrors."""

    __slots__ = ()
    _gristmill_like = None  # without an annotation, which proxies would show as theirs

    def __getattr__(self, name: str) -> Any:
        return _ask(self, "get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "set", self, name, value)

    def __delattr__(self, name: str) -> None:
        _ask(self, "del", self, name)

    def __repr__(self) -> str:
        return str(_ask(self, "function", "repr", self))

    def __str__(self) -> str:
        return str(_ask(self, "function", "str", self))

    def __format__(self, form: str) -> str:
        return str(_ask(self, "function", "format", self, form))

    def __dir__(self) -> Any:
        return _ask(self, "function", "dir", self)

    def __hash__(self) -> int:
        number: int = object.__getattribute__(self, "_gristmill_hash")
        return number

    def __copy__(self) -> Any:
        return _ask(self, "function", "copy", self)

    def __deepcopy__(self, memory: Any) -> Any:
        return _ask(self, "function", "deepcopy", self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"cannot pickle a {type(self).__name__} of the program")

    @property
    def __class__(self) -> Any:
        return _likeness(type(self))

    @__class__.setter
    def __class__(self, value: Any) -> None:
        _ask(self, "set", self, "__class__", value)


for _name in COMPARISONS:
    type.__setattr__(RemoteObject, f"__{_name}__", _comparison(_name))


class Member:
    """A class attribute of a mirror: super() finds it, and the other side says what it is."""

    def __init__(self, name: str, is_special: bool) -> None:
        self.name, self.is_special = name, is_special

    def __set_name__(self, owner: type, name: str) -> None:
        self.owner = owner

    def __get__(self, instance: Any, kind: type | None = None) -> Any:
        if not self.is_special:
            return _peer(self.owner).request("member", self.owner, self.name, instance, kind)

        def method(*arguments: Any, **options: Any) -> Any:
            first, *rest = arguments if instance is None else (instance, *arguments)
            parts = self.owner, self.name, first, tuple(rest), tuple(options.items())
            return _peer(self.owner).request("special", *parts)

        return method
