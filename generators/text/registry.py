"""Which methods there are. Modules are imported when a recipe names them."""

from importlib import import_module

from generators.text.contract import Method
from records.errors import UserError
from records.spec import nearest

KINDS = {
    "prompt": ("generators.text.prompt", "Prompt"),
    "rephrase": ("generators.text.rephrase", "Rephrase"),
    "textbook": ("generators.text.textbook", "Textbook"),
}


def method_class(kind: str) -> type[Method]:
    """The class of method `kind`. Raises UserError naming the nearest one."""
    if kind not in KINDS:
        raise UserError(f"method: unknown kind '{kind}'{nearest(kind, KINDS)}")
    module, name = KINDS[kind]
    found: type[Method] = getattr(import_module(module), name)
    return found
