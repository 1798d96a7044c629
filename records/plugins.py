"""Plug-ins: classes that users bring for any `kind`, without a change to the package.

A kind is "module:Class", or a name that an installed package registers in an entry point group
(`gristmill.stages`, `gristmill.methods`, `gristmill.generators`, `gristmill.families`, `gristmill.chains`).

Modules are looked for beside the recipe first (`look_in`), then on PYTHONPATH and among installed packages. A module
that is not installed travels to the workers by value, together with the modules that it imports from the same folder:
nodes need no copy of them. A digest of their sources is part of a run's identity.
"""

import dataclasses
import hashlib
import inspect
import site
import sys
import sysconfig
from collections.abc import Iterable
from importlib import import_module, invalidate_caches
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from gristmill.records.errors import UserError

PACKAGE = __name__.split(".")[0]
_folders: list[str] = []  # where recipes lie
_modules: dict[str, dict[str, str]] = {}  # plug-in module -> digests of the sources that belong to it, itself first
_references: dict[type, str] = {}  # plug-in class -> the kind that names it in a recipe


def look_in(folder: str | Path) -> None:
    """Look for plug-in modules in `folder` too, before all other places."""
    path = str(Path(folder).resolve())
    if path in _folders:
        _folders.remove(path)
    _folders.insert(0, path)


def registered(group: str) -> dict[str, EntryPoint]:
    """The kinds that installed packages register in an entry point group, by name."""
    return {point.name: point for point in entry_points(group=group)}


def plugin_class(kind: str, base: type, where: str) -> Any:
    """The class of kind "module:Class", a subclass of `base`. `where` names the table in messages.

    Raises UserError for a module that cannot be imported, and for a class that is missing or of another base.
    """
    name, _, attribute = kind.partition(":")
    module = _import(name, kind, where)
    cls = getattr(module, attribute, None)
    if not isinstance(cls, type):
        classes = [n for n, c in vars(module).items() if isinstance(c, type) and issubclass(c, base) and c is not base]
        names = f" (it has: {', '.join(sorted(classes))})" if classes else ""
        raise UserError(f"{where}: module '{name}' ({module.__file__}) has no class '{attribute}'{names}")
    return _checked(cls, base, kind, where)


def registered_class(point: EntryPoint, base: type, where: str) -> Any:
    """The class that an entry point names, a subclass of `base`. Raises UserError when it cannot be loaded."""
    _import(point.module, point.name, where)
    try:
        cls = point.load()
    except AttributeError as error:
        raise UserError(f"{where}: entry point '{point.name}' = '{point.value}' cannot be loaded: {error}") from None
    return _checked(cls, base, point.name, where)


def kind_of(part: Any) -> str:
    """The kind that names the class of `part` (an object or a class) in a recipe: "module:Class" for a plug-in."""
    cls: Any = part if isinstance(part, type) else type(part)
    return _references.get(cls) or str(cls.kind)


def source_identity(part: Any) -> dict[str, str]:
    """{"source": digest} of the modules behind a plug-in (an object or a class); {} for a class of the package."""
    cls = part if isinstance(part, type) else type(part)
    if cls not in _references:
        return {}
    digest = hashlib.blake2b(digest_size=16)
    for name, source in _modules[cls.__module__].items():
        digest.update(f"{name} {source}\n".encode())
    return {"source": digest.hexdigest()}


def travelling_modules() -> list[ModuleType]:
    """The modules that workers cannot be expected to have: those of plug-ins that are not installed."""
    names = {name for names in _modules.values() for name in names}
    return [sys.modules[name] for name in sorted(names) if not _is_installed(sys.modules[name])]


def _import(name: str, kind: str, where: str) -> ModuleType:
    at = [folder for folder in _folders if folder not in sys.path]
    sys.path[:0] = at
    _forget_if_changed(name)
    before = set(sys.modules)
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UserError(f"{where}: kind '{kind}': module '{name}' needs {error.name}, which is missing") from None
        raise UserError(
            f"{where}: kind '{kind}': there is no module '{name}'; put {name.split('.')[0]}.py beside the recipe, "
            "on PYTHONPATH, or install it"
        ) from None
    except (ImportError, SyntaxError) as error:
        raise UserError(f"{where}: kind '{kind}': module '{name}' cannot be imported: {error}") from None
    finally:
        for folder in at:
            sys.path.remove(folder)
            sys.path.append(folder)  # behind everything else, for imports inside functions
    if name not in _modules:
        root = _root(module)
        mates = [other for other in set(sys.modules) - before - {name} if root and _root(sys.modules[other]) == root]
        _modules[name] = {other: _digest(sys.modules[other]) for other in (name, *sorted(mates))}
    return module


def _forget_if_changed(name: str) -> None:
    """Drop a plug-in whose sources have changed, or that another folder now provides, so that it is imported again."""
    digests = _modules.get(name)
    if digests is None or name not in sys.modules:
        return
    spec = PathFinder.find_spec(name) if "." not in name else None
    has_moved = spec is not None and spec.origin != sys.modules[name].__file__
    if has_moved or any(_digest(sys.modules[other]) != digest for other, digest in digests.items()):
        for other in (name, *digests):
            sys.modules.pop(other, None)
        del _modules[name]
        invalidate_caches()


def _digest(module: ModuleType) -> str:
    """Of the module's source file; "" where there is none (an extension, a file that was removed)."""
    try:
        return hashlib.blake2b(Path(str(module.__file__)).read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return ""


def _root(module: ModuleType | None) -> Path | None:
    """The folder on the import path that a module with a source file comes from."""
    file = getattr(module, "__file__", None)
    if module is None or file is None or not file.endswith(".py"):
        return None
    depth = module.__name__.count(".") + (Path(file).name == "__init__.py")
    return Path(file).resolve().parents[depth]


def _is_installed(module: ModuleType) -> bool:
    return _is_below(_root(module), _installed_roots())


def _installed_roots() -> Iterable[Path]:
    paths = sysconfig.get_paths()
    names = [paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"], site.getusersitepackages()]
    return [Path(name).resolve() for name in names]


def _is_below(path: Path | None, roots: Iterable[Path]) -> bool:
    return path is None or any(path.is_relative_to(root) for root in roots)


def _checked(cls: Any, base: Any, kind: str, where: str) -> Any:
    """`cls`, when it can serve as `kind`. Raises UserError that says what it lacks."""
    if base not in getattr(cls, "__mro__", ()):
        raise UserError(f"{where}: kind '{kind}' is not a subclass of {base.__module__}.{base.__name__}")
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise UserError(f"{where}: kind '{kind}' does not implement {missing}")
    if not dataclasses.is_dataclass(getattr(cls, "Spec", None)):
        raise UserError(f"{where}: kind '{kind}' has no class attribute Spec, a frozen dataclass with its keys")
    if "kind" not in vars(cls):
        cls.kind = cls.__name__.lower()
    if ":" in str(cls.kind):
        raise UserError(f"{where}: kind '{kind}': the class attribute kind must not contain a colon")
    if not cls.__module__.startswith(f"{PACKAGE}."):
        _references[cls] = kind
    return cls
