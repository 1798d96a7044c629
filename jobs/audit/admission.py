"""Replays what was admitted at commit: every kept row fitted the rows kept before it, every other did not."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from gristmill.records.schema import REJECT
from gristmill.stages.admission.contract import Admission


class AdmissionAudit:
    """The books of a run, opened anew and led through its shards in lot order."""

    def __init__(self, stages: Sequence[Admission], lot_size: int) -> None:
        self.stages, self.lot_size = stages, lot_size
        self.books = [stage.new_book() for stage in stages]

    def lot(self, whole: pa.Table, lot: int) -> list[str]:
        """What is wrong with the rows of a lot, kept and rejected together; one line a stage at most."""
        if not self.stages or not whole.num_rows:
            return []
        rows, rejects = whole.column("row").to_pylist(), whole.column(REJECT.name).to_pylist()
        offers = [stage.offers(whole) for stage in self.stages]
        wrong: dict[str, str] = {}
        for at in np.argsort(rows, kind="stable").tolist():
            refused_by = (rejects[at] or "").partition(":")[0]
            ask = lot * self.lot_size + rows[at]
            for stage, book, offer in zip(self.stages, self.books, offers):
                if rejects[at] is not None and refused_by != stage.name:
                    continue
                reason = book.judge(offer[at], ask).reason
                said = f"{stage.name}:{reason}" if reason else None
                # Seeds of the source are not read here, and a row may be refused for one of them.
                if said != rejects[at] and not (stage.has_seeds and said is None):
                    told = f"rejected as {rejects[at]}" if rejects[at] else "kept"
                    wrong.setdefault(stage.name, f"row {rows[at]} is {told}, but by the rows before it is {said}")
            if rejects[at] is None:
                for book, offer in zip(self.books, offers):
                    book.admit(offer[at], ask)
        return [f"lot {lot}: {line}" for line in wrong.values()]
