"""From the `kind` of a recipe's table to the class that it names, imported only when it is named."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from gristmill.records.errors import UserError
from gristmill.records.plugins import plugin_class, registered, registered_class
from gristmill.records.spec import nearest

Kinds = Mapping[str, tuple[str, str]]  # kind -> (module, class)


def kind_class(kinds: Kinds, kind: str, what: str, base: type, group: str | None = None) -> Any:
    """The class of `kind`: one of the package's `kinds`, "module:Class", or a name registered in the entry point group.

    `what` is "stage", "method", ...; plug-ins are subclasses of `base`. Raises UserError that names the nearest kind.
    """
    if kind in kinds:
        module, name = kinds[kind]
        return getattr(import_module(module), name)
    if group is not None:
        if ":" in kind:
            return plugin_class(kind, base, what)
        points = registered(group)
        if kind in points:
            return registered_class(points[kind], base, what)
        raise UserError(f"{what}: unknown kind '{kind}'{nearest(kind, [*kinds, *points])}")
    raise UserError(f"{what}: unknown kind '{kind}'{nearest(kind, kinds)}")
