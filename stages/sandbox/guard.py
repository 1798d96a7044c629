"""What a program may get of its tests, and do with it.

It may call the functions that the tests pass to it, iterate over iterators, and use the public attributes and the
operators of instances of the tests' own classes. It never gets at what leads to the tests' globals: attributes with
underscores, frames, modules, test cases.
"""

import functools
import io
import itertools
import random
import types
from collections.abc import Callable
from typing import Any
from unittest import TestCase
from unittest.mock import NonCallableMock

from gristmill.stages.sandbox import operations
from gristmill.stages.sandbox.references import Unsupported

CALLABLE = (
    types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial, functools._lru_cache_wrapper,
    types.MethodWrapperType,
)  # fmt: skip
OPEN = (io.StringIO, io.BytesIO, NonCallableMock, types.SimpleNamespace, random.Random)
SPECIALS = frozenset(
    """__call__ __len__ __iter__ __next__ __reversed__ __getitem__ __setitem__ __delitem__ __contains__ __enter__
    __exit__ __bool__ __int__ __float__ __complex__ __index__ __neg__ __pos__ __abs__ __invert__ __round__ __trunc__
    __floor__ __ceil__ __add__ __sub__ __mul__ __matmul__ __truediv__ __floordiv__ __mod__ __divmod__ __pow__
    __lshift__ __rshift__ __and__ __or__ __xor__ __radd__ __rsub__ __rmul__ __rmatmul__ __rtruediv__ __rfloordiv__
    __rmod__ __rdivmod__ __rpow__ __rlshift__ __rrshift__ __rand__ __ror__ __rxor__ __iadd__ __isub__ __imul__
    __imatmul__ __itruediv__ __ifloordiv__ __imod__ __ipow__ __iand__ __ior__ __ixor__ __missing__ __length_hint__
    __await__ __aenter__ __aexit__ __aiter__ __anext__""".split()
)
FUNCTIONS = ("repr", "str", "format", "iter", "len", "getitem", "contains", "eq", "ne", "lt", "le", "gt", "ge")


def is_own_class(kind: Any) -> bool:
    """Whether the tests define a class."""
    return isinstance(kind, type) and kind.__module__ == "__main__" and not issubclass(kind, TestCase)


def exportable(value: Any) -> bool:
    """Whether the program may get a reference to a value of the tests."""
    kind = type(value)
    if isinstance(value, types.MethodType | types.BuiltinFunctionType) and isinstance(value.__self__, types.ModuleType):
        return False
    return is_own_class(value) or is_own_class(kind) or kind is object or _is_iterator(kind) or isinstance(
        value, (*CALLABLE, *OPEN)
    )  # fmt: skip


def _is_iterator(kind: type) -> bool:
    return hasattr(kind, "__next__") and kind.__module__ in ("builtins", itertools.__name__)


def _attribute(target: Any, name: Any) -> str:
    """The name of an attribute that the program may use. Raises AttributeError for another."""
    is_open = is_own_class(target) or is_own_class(type(target)) or isinstance(target, OPEN)
    is_name = isinstance(target, CALLABLE) and name in ("__name__", "__doc__")
    if isinstance(name, str) and ((is_open and not name.startswith("_")) or is_name):
        return name
    raise AttributeError(f"{type(target).__name__!r} object of the tests has no attribute {str(name)[:100]!r} to pass")


def call(target: Any, arguments: tuple[Any, ...], options: operations.Options) -> Any:
    if not (isinstance(target, (*CALLABLE, NonCallableMock)) or is_own_class(target) or is_own_class(type(target))):
        raise Unsupported("the program calls what it may not call")
    return operations.call(target, arguments, options)


def get(target: Any, name: Any) -> Any:
    return getattr(target, _attribute(target, name))


def set_attribute(target: Any, name: Any, value: Any) -> None:
    if isinstance(target, type) or callable(getattr(type(target), _attribute(target, name), None)):
        raise AttributeError(f"{name!r} of the tests cannot be set")
    setattr(target, name, value)


def delete(target: Any, name: Any) -> None:
    delattr(target, _attribute(target, name))


def member(owner: Any, name: Any, instance: Any, kind: Any) -> Any:
    return operations.member(owner, _attribute(kind if instance is None else instance, name), instance, kind)


def special(owner: Any, name: Any, instance: Any, arguments: tuple[Any, ...], options: operations.Options) -> Any:
    if name == "__call__":
        return call(instance, arguments, options)
    if name == "__init__" and is_own_class(type(instance)):
        return operations.special(owner, name, instance, arguments, options)
    if name not in SPECIALS or not exportable(instance):
        raise AttributeError(f"{str(name)[:40]} of the tests cannot be passed")
    return operations.special(owner, name, instance, arguments, options)


def function(name: Any, *arguments: Any) -> Any:
    if name not in FUNCTIONS:
        raise Unsupported(f"the program asks for {str(name)[:40]}")
    return operations.function(name, *arguments)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": call, "get": get, "set": set_attribute, "del": delete, "member": member, "special": special,
    "function": function,
}  # fmt: skip
