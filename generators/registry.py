"""Which generators there are. Modules are imported when a recipe names them."""

from gristmill.generators.contract import Generator
from gristmill.records.kinds import Kinds, kind_class

KINDS: Kinds = {
    "canned": ("gristmill.generators.canned.generator", "Canned"),
    "diffusers": ("gristmill.generators.diffusers", "Diffusers"),
    "passthrough": ("gristmill.generators.passthrough", "Passthrough"),
    "model": ("gristmill.generators.families.generator", "Fitted"),
    "simulator": ("gristmill.generators.simulators.generator", "Simulated"),
    "teacher": ("gristmill.generators.teacher", "Teacher"),
}


def generator_class(kind: str) -> type[Generator]:
    """The class of generator `kind`. Raises UserError naming the nearest one."""
    found: type[Generator] = kind_class(KINDS, kind, "generator", Generator, "gristmill.generators")
    return found
