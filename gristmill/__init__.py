"""Gristmill turns a Ray cluster into a mill for synthetic data.

    import gristmill

    run = gristmill.produce("recipes/demo.toml", "out/demo")
    run.rows().to_table(columns=["text"])

The verbs of the command line are functions here (gristmill/api.py), and the base classes of plug-ins are names here.
Nothing is imported before it is used.

The code of each floor (records, engines, stages, evaluation, generators, cluster, jobs) is a subpackage. In a wheel the
floors lie inside this folder; in a checkout they lie beside it.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gristmill.api import audit, compare, evaluate, fit, flow, pack, preview, produce, report, status, study
    from gristmill.engines.needs import Needs
    from gristmill.generators.contract import GeneratedRow, Generator, fill
    from gristmill.generators.families.contract import Family
    from gristmill.generators.text.contract import Ask, Method, Session
    from gristmill.jobs.results import Result
    from gristmill.records.errors import UserError
    from gristmill.records.functions.contract import RowFunction
    from gristmill.records.functions.draws import Draws
    from gristmill.stages.contract import Findings, Stage

__version__ = "0.3.0"

_FOLDER = Path(__file__).resolve().parent
if not (_FOLDER / "records").is_dir():
    __path__.append(str(_FOLDER.parent))  # a checkout: the floors are the folders at its top

_HOMES = {
    "gristmill.api": (
        *("audit", "compare", "evaluate", "fit", "flow", "pack", "preview"),
        *("produce", "report", "status", "study"),
    ),
    "gristmill.engines.needs": ("Needs",),
    "gristmill.generators.contract": ("GeneratedRow", "Generator", "fill"),
    "gristmill.generators.families.contract": ("Family",),
    "gristmill.generators.text.contract": ("Ask", "Method", "Session"),
    "gristmill.jobs.results": ("Result",),
    "gristmill.records.errors": ("UserError",),
    "gristmill.records.functions.contract": ("RowFunction",),
    "gristmill.records.functions.draws": ("Draws",),
    "gristmill.stages.contract": ("Findings", "Stage"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Ask",
    "Draws",
    "Family",
    "Findings",
    "GeneratedRow",
    "Generator",
    "Method",
    "Needs",
    "Result",
    "RowFunction",
    "Session",
    "Stage",
    "UserError",
    "audit",
    "compare",
    "evaluate",
    "fill",
    "fit",
    "flow",
    "pack",
    "preview",
    "produce",
    "report",
    "status",
    "study",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'gristmill' has no attribute '{name}'")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
