"""The kinds of text methods. A module is imported when a recipe names its kind."""

from gristmill.generators.text.contract import Method
from gristmill.records.kinds import Kinds, kind_class

KINDS: Kinds = {
    "agent": ("gristmill.generators.text.agent.method", "Agent"),
    "annotate": ("gristmill.generators.text.annotate", "Annotate"),
    "backtranslate": ("gristmill.generators.text.backtranslate", "Backtranslate"),
    "code": ("gristmill.generators.text.code", "Code"),
    "constitutional": ("gristmill.generators.text.constitutional", "Constitutional"),
    "cross_document": ("gristmill.generators.text.cross_document", "CrossDocument"),
    "dialogue": ("gristmill.generators.text.dialogue", "Dialogue"),
    "distill": ("gristmill.generators.text.distill", "Distill"),
    "evol_instruct": ("gristmill.generators.text.evol_instruct", "EvolInstruct"),
    "exercise": ("gristmill.generators.text.exercise", "Exercise"),
    "magpie": ("gristmill.generators.text.magpie", "Magpie"),
    "math": ("gristmill.generators.text.math", "Math"),
    "megadoc": ("gristmill.generators.text.megadoc", "Megadoc"),
    "paraphrase": ("gristmill.generators.text.paraphrase", "Paraphrase"),
    "preference": ("gristmill.generators.text.preference", "Preference"),
    "prompt": ("gristmill.generators.text.prompt", "Prompt"),
    "rephrase": ("gristmill.generators.text.rephrase", "Rephrase"),
    "self_instruct": ("gristmill.generators.text.self_instruct", "SelfInstruct"),
    "textbook": ("gristmill.generators.text.textbook", "Textbook"),
    "tool_calls": ("gristmill.generators.text.agent.tool_calls", "ToolCalls"),
    "translate": ("gristmill.generators.text.translate", "Translate"),
}


def method_class(kind: str) -> type[Method]:
    """The class of method `kind`. Raises UserError naming the nearest one."""
    found: type[Method] = kind_class(KINDS, kind, "method", Method, "gristmill.methods")
    return found
