"""The table of stage kinds. Classes are imported only when a recipe names their kind."""

from gristmill.records.kinds import Kinds, kind_class
from gristmill.stages.contract import Stage

KINDS: Kinds = {
    "balance": ("gristmill.stages.admission.balance", "Balance"),
    "answer": ("gristmill.stages.verify.answer", "Answer"),
    "best_of": ("gristmill.stages.judging.best_of", "BestOf"),
    "confidence": ("gristmill.stages.filters.confidence", "Confidence"),
    "consistency": ("gristmill.stages.verify.consistency", "Consistency"),
    "constraints": ("gristmill.stages.verify.constraints", "Constraints"),
    "copies": ("gristmill.stages.verify.copies", "Copies"),
    "canned_judge": ("gristmill.stages.judging.canned", "CannedJudge"),
    "classifier": ("gristmill.stages.verify.classifier", "Classifier"),
    "decontaminate": ("gristmill.stages.decontaminate.ngrams", "Decontaminate"),
    "decontaminate_embedding": ("gristmill.stages.decontaminate.embedding", "DecontaminateEmbedding"),
    "dedup": ("gristmill.stages.dedup.texts", "Dedup"),
    "dedup_image": ("gristmill.stages.dedup.image", "DedupImage"),
    "dedup_rows": ("gristmill.stages.dedup.rows", "DedupRows"),
    "dedup_semantic": ("gristmill.stages.dedup.semantic", "DedupSemantic"),
    "execute": ("gristmill.stages.verify.execute", "Execute"),
    "execute_calls": ("gristmill.stages.trajectory.execute_calls", "ExecuteCalls"),
    "fidelity": ("gristmill.stages.verify.fidelity", "Fidelity"),
    "finish": ("gristmill.stages.filters.finish", "Finish"),
    "judge": ("gristmill.stages.judging.judge", "Judge"),
    "json_schema": ("gristmill.stages.verify.json_schema", "JsonSchema"),
    "language": ("gristmill.stages.filters.language", "Language"),
    "novelty": ("gristmill.stages.admission.novelty", "Novelty"),
    "pii": ("gristmill.stages.filters.pii", "Pii"),
    "quality": ("gristmill.stages.filters.quality", "Quality"),
    "rules": ("gristmill.stages.filters.rules", "Rules"),
    "trajectory": ("gristmill.stages.trajectory.checks", "Trajectory"),
}
# Stages whose verdicts come at commit, in lot order: first duplicates, then admission.
DEDUP = frozenset({"dedup", "dedup_image", "dedup_rows", "dedup_semantic"})
ADMISSION = frozenset({"balance", "novelty"})
AT_COMMIT = DEDUP | ADMISSION


def stage_class(kind: str) -> type[Stage]:
    """The class of stage kind `kind`. Raises UserError that names the nearest known kind."""
    cls: type[Stage] = kind_class(KINDS, kind, "stage", Stage, "gristmill.stages")
    return cls
