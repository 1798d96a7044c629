"""Which class makes a stage of which kind. An explicit table, resolved lazily: a recipe check imports what it names."""

from records.kinds import Kinds, kind_class
from stages.contract import Stage

KINDS: Kinds = {
    "balance": ("stages.balance", "Balance"),
    "answer": ("stages.verify.answer", "Answer"),
    "consistency": ("stages.verify.consistency", "Consistency"),
    "constraints": ("stages.verify.constraints", "Constraints"),
    "copies": ("stages.verify.copies", "Copies"),
    "classifier": ("stages.verify.classifier", "Classifier"),
    "decontaminate": ("stages.decontaminate", "Decontaminate"),
    "decontaminate_embedding": ("stages.decontaminate_embedding", "DecontaminateEmbedding"),
    "dedup": ("stages.dedup", "Dedup"),
    "dedup_image": ("stages.dedup_image", "DedupImage"),
    "dedup_rows": ("stages.dedup_rows", "DedupRows"),
    "dedup_semantic": ("stages.dedup_semantic", "DedupSemantic"),
    "execute": ("stages.verify.execute", "Execute"),
    "finish": ("stages.verify.finish", "Finish"),
    "judge": ("stages.judge", "Judge"),
    "json_schema": ("stages.verify.json_schema", "JsonSchema"),
    "language": ("stages.verify.language", "Language"),
    "novelty": ("stages.novelty", "Novelty"),
    "pii": ("stages.verify.pii", "Pii"),
    "quality": ("stages.verify.quality", "Quality"),
    "rules": ("stages.verify.rules", "Rules"),
}
# The verdicts of these come when lots commit: duplicates first, then what is admitted by the rows kept before.
DEDUP = frozenset({"dedup", "dedup_image", "dedup_rows", "dedup_semantic"})
ADMISSION = frozenset({"balance", "novelty"})
AT_COMMIT = DEDUP | ADMISSION


def stage_class(kind: str) -> type[Stage]:
    """The class of stage `kind`. Raises UserError naming the nearest one."""
    found: type[Stage] = kind_class(KINDS, kind, "stage")
    return found
