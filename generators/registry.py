"""The kinds of generators. A module is imported when a recipe names its kind."""

from gristmill.generators.contract import Generator
from gristmill.records.kinds import Kinds, kind_class

KINDS: Kinds = {
    "canned": ("gristmill.generators.canned.generator", "Canned"),
    "diffusers": ("gristmill.generators.diffusers", "Diffusers"),
    "endpoint": ("gristmill.generators.endpoint", "Endpoint"),
    "passthrough": ("gristmill.generators.passthrough", "Passthrough"),
    "model": ("gristmill.generators.families.generator", "ModelGenerator"),
    "simulator": ("gristmill.generators.simulators.generator", "SimulatorGenerator"),
    "teacher": ("gristmill.generators.teacher", "Teacher"),
}


def generator_class(kind: str) -> type[Generator]:
    """The class of generator `kind`. Raises UserError naming the nearest one."""
    found: type[Generator] = kind_class(KINDS, kind, "generator", Generator, "gristmill.generators")
    return found
