"""Which methods there are. Modules are imported when a recipe names them."""

from generators.text.contract import Method
from records.kinds import Kinds, kind_class

KINDS: Kinds = {
    "annotate": ("generators.text.annotate", "Annotate"),
    "backtranslate": ("generators.text.backtranslate", "Backtranslate"),
    "code": ("generators.text.code", "Code"),
    "constitutional": ("generators.text.constitutional", "Constitutional"),
    "dialogue": ("generators.text.dialogue", "Dialogue"),
    "distill": ("generators.text.distill", "Distill"),
    "evol_instruct": ("generators.text.evol_instruct", "EvolInstruct"),
    "exercise": ("generators.text.exercise", "Exercise"),
    "magpie": ("generators.text.magpie", "Magpie"),
    "math": ("generators.text.math", "Math"),
    "paraphrase": ("generators.text.paraphrase", "Paraphrase"),
    "preference": ("generators.text.preference", "Preference"),
    "prompt": ("generators.text.prompt", "Prompt"),
    "rephrase": ("generators.text.rephrase", "Rephrase"),
    "self_instruct": ("generators.text.self_instruct", "SelfInstruct"),
    "textbook": ("generators.text.textbook", "Textbook"),
    "translate": ("generators.text.translate", "Translate"),
}


def method_class(kind: str) -> type[Method]:
    """The class of method `kind`. Raises UserError naming the nearest one."""
    found: type[Method] = kind_class(KINDS, kind, "method")
    return found
