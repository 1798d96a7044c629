"""Functions, classes and modules of the standard library that travel by name.

The process of the tests takes its own copy, so it must be harmless whatever a program passes for what: nothing here
runs text as code, opens files or touches the process.
"""

import sys
import types
from typing import Any

MODULES = (
    "bisect calendar cmath collections copy datetime decimal fractions functools heapq itertools json math numbers "
    "operator random re statistics string textwrap time"
).split()
BUILTINS = (
    "ArithmeticError AssertionError AttributeError BaseException BlockingIOError BufferError EOFError Exception "
    "FileExistsError FileNotFoundError FloatingPointError GeneratorExit ImportError IndexError InterruptedError "
    "IsADirectoryError KeyError KeyboardInterrupt LookupError MemoryError ModuleNotFoundError NameError "
    "NotADirectoryError NotImplementedError OSError OverflowError PermissionError RecursionError ReferenceError "
    "RuntimeError StopAsyncIteration StopIteration SyntaxError SystemError SystemExit TabError TimeoutError TypeError "
    "UnboundLocalError UnicodeDecodeError UnicodeEncodeError UnicodeError ValueError Warning DeprecationWarning "
    "RuntimeWarning UserWarning ZeroDivisionError abs all any ascii bin bool bytearray bytes callable chr complex dict "
    "divmod enumerate filter float format frozenset hash hex id int isinstance issubclass iter len list map max min "
    "next object oct ord pow range repr reversed round set slice sorted str sum tuple type zip"
).split()
SINGLE = {"copy": ("copy", "deepcopy"), "json": ("dumps", "loads"), "time": ("time", "perf_counter", "monotonic")}
# The class that an object of the program has for isinstance(), by the name of its own class.
CLASSES: dict[str, type] = {
    f"{kind.__module__}.{kind.__qualname__}": kind
    for kind in (
        types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.GeneratorType, types.CoroutineType,
        types.MappingProxyType, types.ModuleType, map, filter, zip, enumerate, reversed, property, memoryview,
        type(iter([])), type(iter(())), type(iter({})), type(iter(set())), type(iter("")), type(iter(range(0))),
    )
}  # fmt: skip


def _objects() -> dict[str, Any]:
    objects: dict[str, Any] = {"NoneType": type(None), "builtin_function": len.__class__}
    builtins = sys.modules["builtins"]
    objects |= {name: getattr(builtins, name) for name in BUILTINS}
    for module_name in MODULES:
        module = sys.modules.get(module_name) or __import__(module_name)
        objects[f"module:{module_name}"] = module
        for name in SINGLE.get(module_name, [name for name in dir(module) if not name.startswith("_")]):
            value = getattr(module, name)
            if callable(value):
                objects[f"{module_name}.{name}"] = value
    return objects


OBJECTS: dict[str, Any] = _objects()
NAMES: dict[int, str] = {id(value): name for name, value in reversed(OBJECTS.items())}
