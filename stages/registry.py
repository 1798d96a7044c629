"""Which class makes a stage of which kind. An explicit table, resolved lazily: a recipe check imports what it names."""

from records.kinds import Kinds, kind_class
from stages.contract import Stage

KINDS: Kinds = {
    "constraints": ("stages.verify.constraints", "Constraints"),
    "copies": ("stages.verify.copies", "Copies"),
    "classifier": ("stages.verify.classifier", "Classifier"),
    "decontaminate": ("stages.decontaminate", "Decontaminate"),
    "dedup": ("stages.dedup", "Dedup"),
    "dedup_image": ("stages.dedup_image", "DedupImage"),
    "dedup_rows": ("stages.dedup_rows", "DedupRows"),
    "execute": ("stages.verify.execute", "Execute"),
    "finish": ("stages.verify.finish", "Finish"),
    "judge": ("stages.judge", "Judge"),
    "json_schema": ("stages.verify.json_schema", "JsonSchema"),
    "language": ("stages.verify.language", "Language"),
    "quality": ("stages.verify.quality", "Quality"),
    "rules": ("stages.verify.rules", "Rules"),
}
AT_COMMIT = frozenset({"dedup", "dedup_image", "dedup_rows"})  # their verdicts come when lots commit


def stage_class(kind: str) -> type[Stage]:
    """The class of stage `kind`. Raises UserError naming the nearest one."""
    found: type[Stage] = kind_class(KINDS, kind, "stage")
    return found
