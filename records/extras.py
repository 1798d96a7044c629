"""Optional packages: a missing one ends in a UserError that names the extra to install."""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from gristmill.records.errors import UserError


def require(module: str, extra: str) -> ModuleType:
    """The imported `module`. Raises UserError with a `pip install` hint where its package is missing.

    Call it where a feature is entered, before the plain imports of that feature.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise _missing(str(error.name or module), extra) from None


def check_installed(extra: str, *modules: str) -> None:
    """Raise the same UserError where one of `modules` is missing; imports none, so preflights stay quick."""
    for module in modules:
        try:
            is_missing = find_spec(module) is None
        except ModuleNotFoundError:
            is_missing = True
        if is_missing:
            raise _missing(module, extra)


def _missing(module: str, extra: str) -> UserError:
    package = module.split(".")[0]
    return UserError(f"package '{package}' is missing; install it with pip install 'gristmill[{extra}]'")
