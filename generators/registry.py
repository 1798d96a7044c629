"""Which generators there are. Modules are imported when a recipe names them."""

from generators.contract import Generator
from records.kinds import Kinds, kind_class

KINDS: Kinds = {
    "canned": ("generators.canned", "Canned"),
    "diffusers": ("generators.diffusion", "Diffusers"),
    "given": ("generators.given", "Given"),
    "model": ("generators.fitted", "Fitted"),
    "simulator": ("generators.simulators.generator", "Simulated"),
    "teacher": ("generators.teacher", "Teacher"),
}


def generator_class(kind: str) -> type[Generator]:
    """The class of generator `kind`. Raises UserError naming the nearest one."""
    found: type[Generator] = kind_class(KINDS, kind, "generator")
    return found
