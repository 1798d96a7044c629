"""From the `kind` in a recipe to its class, which is imported on demand."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from gristmill.records.errors import UserError
from gristmill.records.spec import nearest

Kinds = Mapping[str, tuple[str, str]]  # kind -> (module, class)


def kind_class(kinds: Kinds, kind: str, what: str) -> Any:
    """The class of `kind`; `what` is "stage", "method", ... Raises UserError with the nearest kind."""
    if kind not in kinds:
        raise UserError(f"{what}: unknown kind '{kind}'{nearest(kind, kinds)}")
    module, name = kinds[kind]
    return getattr(import_module(module), name)
