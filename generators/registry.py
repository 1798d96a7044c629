"""Which generators there are. Modules are imported when a recipe names them."""

from importlib import import_module

from generators.contract import Generator
from records.errors import UserError
from records.spec import nearest

KINDS = {
    "canned": ("generators.canned", "Canned"),
    "teacher": ("generators.teacher", "Teacher"),
}


def generator_class(kind: str) -> type[Generator]:
    """The class of generator `kind`. Raises UserError naming the nearest one."""
    if kind not in KINDS:
        raise UserError(f"generator: unknown kind '{kind}'{nearest(kind, KINDS)}")
    module, name = KINDS[kind]
    found: type[Generator] = getattr(import_module(module), name)
    return found
