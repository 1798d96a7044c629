"""What a request can ask for, done with the objects of this side."""

import copy
import operator
import random
import types
from collections.abc import Callable
from typing import Any

from gristmill.stages.sandbox.mirrors import CONTAINERS
from gristmill.stages.sandbox.peer import Peer

Options = tuple[tuple[str, Any], ...]
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "repr": repr, "str": str, "format": format, "dir": dir, "iter": iter, "len": len, "isinstance": isinstance,
    "getitem": operator.getitem, "contains": operator.contains, "copy": copy.copy, "deepcopy": copy.deepcopy,
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip


def call(target: Any, arguments: tuple[Any, ...], options: Options) -> Any:
    return target(*arguments, **dict(options))


def get(target: Any, name: str) -> Any:
    return getattr(target, name)


def set_attribute(target: Any, name: str, value: Any) -> None:
    setattr(target, name, value)


def delete(target: Any, name: str) -> None:
    delattr(target, name)


def function(name: str, *arguments: Any) -> Any:
    return FUNCTIONS[name](*arguments)


def member(owner: type, name: str, instance: Any, kind: type) -> Any:
    """An attribute that `owner` defines: as usual, or that of super() if a subclass defines it too."""
    if _is_first(owner, name, kind if instance is None else type(instance)):
        return getattr(kind if instance is None else instance, name)
    value = vars(owner)[name]
    return value.__get__(instance, kind) if hasattr(value, "__get__") else value


def special(owner: type, name: str, instance: Any, arguments: tuple[Any, ...], options: Options) -> Any:
    """Call a special method that `owner` defines, or one that a subclass has in its place."""
    method = getattr(type(instance), name) if _is_first(owner, name, type(instance)) else vars(owner)[name]
    return method(instance, *arguments, **dict(options))


def _is_first(owner: type, name: str, kind: type) -> bool:
    first = next((parent for parent in kind.__mro__ if name in vars(parent)), None)
    return first is owner or owner not in kind.__mro__


def plain(target: Any) -> Any:
    """The plain value of an instance of a subclass of a container."""
    data = getattr(target, "data", target)
    return next((convert(data) for kind, convert in CONTAINERS.items() if isinstance(target, kind)), None)


COMMON: dict[str, Callable[..., Any]] = {
    "call": call, "get": get, "set": set_attribute, "del": delete, "function": function, "member": member,
    "special": special,
}  # fmt: skip


def of_program(peer: Peer, watch: Callable[[tuple[str, ...]], None]) -> dict[str, Callable[..., Any]]:
    """The operations of the program's side: all there are."""

    def subclass(name: str, bases: tuple[type, ...], parts: tuple[Any, ...], options: Options) -> int:
        space = {key: _entry(kind, value) for key, kind, value in parts}
        return peer.adopt(types.new_class(name, bases, dict(options), lambda own: own.update(space)))

    return {**COMMON, "plain": plain, "subclass": subclass, "watch": watch, "seed": random.seed}


def _entry(kind: str, value: Any) -> Any:
    """An entry of a class whose methods are functions of the tests."""
    if kind == "property":
        getter, setter, deleter = (each and _method(each) for each in value)
        return property(getter, setter, deleter)
    if kind == "staticmethod":
        return staticmethod(value)
    if kind == "classmethod":
        return classmethod(_method(value))
    return _method(value) if kind == "method" else value


def _method(target: Callable[..., Any]) -> Callable[..., Any]:
    def method(*arguments: Any, **options: Any) -> Any:
        return target(*arguments, **options)

    return method
