"""Optional packages: a missing one ends in a UserError that names the extra to install."""

from importlib import import_module
from types import ModuleType

from gristmill.records.errors import UserError


def require(module: str, extra: str) -> ModuleType:
    """The imported `module`. Raises UserError with a `pip install` hint where its package is missing.

    Call it where a feature is entered (constructor, check, begin), before the plain imports of that feature.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = str(error.name or module).split(".")[0]
        raise UserError(f"package '{package}' is missing; install it with pip install 'gristmill[{extra}]'") from None
