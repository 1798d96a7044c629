"""Packages that only some recipes need, with the command that installs them."""

from importlib import import_module
from typing import Any

from gristmill.records.errors import UserError


def require(module: str, extra: str) -> Any:
    """The module. Raises UserError, naming the extra of pyproject.toml that brings it, where it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        raise UserError(f"{module} is not installed; run: pip install 'gristmill[{extra}]'") from None
