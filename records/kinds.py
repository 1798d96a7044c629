"""From the `kind` of a recipe's table to the class that it names, imported only when it is named."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from gristmill.records.errors import UserError
from gristmill.records.spec import nearest

Kinds = Mapping[str, tuple[str, str]]  # kind -> (module, class)


def kind_class(kinds: Kinds, kind: str, what: str) -> Any:
    """The class of `kind`, or of "module:Class". Raises UserError that names the nearest kind.

    `what` is "stage", "method", ...
    """
    if kind not in kinds and ":" not in kind:
        raise UserError(f"{what}: unknown kind '{kind}'{nearest(kind, kinds)}")
    module, name = kinds.get(kind) or tuple(kind.split(":", 1))
    try:
        return getattr(import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        if kind in kinds:
            raise
        raise UserError(f"{what}: kind '{kind}' cannot be imported: {error}") from None
