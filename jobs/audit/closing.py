"""Proves `limits.exact`: the last lot closes the output at its number of rows, and the rows after these are surplus."""

from dataclasses import dataclass, field

import pyarrow as pa

from gristmill.records.output.manifest import NAME, Manifest
from gristmill.records.output.shard_names import KEPT, shard_name
from gristmill.records.schema import REJECT, SURPLUS


@dataclass(frozen=True)
class Closing:
    """What a lot says of an exact limit. Rows are numbers in the lot; -1: there is none."""

    closed_at: int | None = None  # of its footer
    last_kept: int = -1
    first_surplus: int = -1
    last_claim: int = -1  # the last row that was judged at commit: kept, a duplicate, or refused by admission

    @classmethod
    def of(cls, whole: pa.Table, closed_at: int | None, at_commit: frozenset[str]) -> "Closing":
        """From the rows of a lot, kept and rejected. `at_commit`: the reasons and stages that decide at commit."""
        kept, claimed, surplus = [-1], [-1], []
        for row, reject in zip(whole.column("row").to_pylist(), whole.column(REJECT.name).to_pylist()):
            if reject is None:
                kept.append(row)
            elif reject == SURPLUS:
                surplus.append(row)
            elif reject in at_commit or reject.partition(":")[0] in at_commit:
                claimed.append(row)
        return cls(closed_at, max(kept), min(surplus, default=-1), max(kept + claimed))


@dataclass
class ClosingAudit:
    """Goes through the lots of a run in order."""

    run: Manifest
    num_kept: int = 0
    closing_lot: int | None = None
    closed_at: int | None = None
    errors: list[str] = field(default_factory=list)

    def lot(self, lot: int, closing: Closing, num_kept: int) -> None:
        """A lot with so many kept rows."""
        name, number = shard_name(KEPT, lot), closing.closed_at
        if self.closing_lot is not None:
            self.errors.append(f"{name} follows {shard_name(KEPT, self.closing_lot)}, which closes the output")
        before, self.num_kept = self.num_kept, self.num_kept + num_kept
        if number is None:
            if closing.first_surplus >= 0:
                row = closing.first_surplus
                self.errors.append(f"lot {lot}: row {row} is {SURPLUS}, but its footer closes no output")
            return
        self.closing_lot, self.closed_at = lot, number
        if not before < number == self.num_kept:
            self.errors.append(
                f"{name}: its footer closes the output at {number} rows, the shards hold {self.num_kept}"
            )
        if 0 <= closing.first_surplus < closing.last_kept:
            self.errors.append(
                f"lot {lot}: row {closing.first_surplus} is {SURPLUS}, and row {closing.last_kept} is kept"
            )
        if closing.last_claim > closing.last_kept:
            self.errors.append(
                f"lot {lot}: row {closing.last_claim} was compared with kept rows, though the output was full after "
                f"row {closing.last_kept}"
            )

    def close(self, is_over: bool) -> list[str]:
        """The errors. `is_over`: whether the run has ended with its limits."""
        limits = self.run.recipe.get("limits") or {}
        # Without a footer that closes it, an output is closed by its manifest: it held the number when that was set.
        number = self.num_kept if self.closed_at is None and self.run.closed_at is not None else self.closed_at
        if is_over and self.run.closed_at != number:
            by = "the shards hold" if self.closed_at is None else "the footer of the last lot says"
            self.errors.append(f"{NAME} says closed_at = {self.run.closed_at}, {by} {number}")
        if self.run.state == "complete" and limits.get("exact") and self.num_kept != limits.get("kept_rows"):
            self.errors.append(
                f"{NAME} says limits.exact with kept_rows = {limits.get('kept_rows')}, the shards hold {self.num_kept}"
            )
        return self.errors
