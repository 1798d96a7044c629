"""Which class makes a stage of which kind. An explicit table, resolved lazily: a recipe check imports what it names."""

import importlib

from records.errors import UserError
from records.spec import nearest
from stages.contract import Stage

KINDS: dict[str, tuple[str, str]] = {
    "decontaminate": ("stages.decontaminate", "Decontaminate"),
    "dedup": ("stages.dedup", "Dedup"),
    "finish": ("stages.verify.finish", "Finish"),
    "json_schema": ("stages.verify.json_schema", "JsonSchema"),
    "language": ("stages.verify.language", "Language"),
    "rules": ("stages.verify.rules", "Rules"),
}


def stage_class(kind: str) -> type[Stage]:
    """The class of `kind`. Raises UserError, naming the nearest kind, when there is none."""
    if kind not in KINDS:
        raise UserError(f"no stage of kind '{kind}'{nearest(kind, KINDS)}")
    module, name = KINDS[kind]
    return getattr(importlib.import_module(module), name)
