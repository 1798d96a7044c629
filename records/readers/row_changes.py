"""What changes in the rows of a file: names of columns, the columns of its folders, and columns that are left out."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gristmill.records.errors import UserError
from gristmill.records.readers.json_rows import dumped, json_row
from gristmill.records.schema import IDENTITY, INNER_COLUMNS, PROVENANCE, REJECT

OWN_COLUMNS = frozenset(f.name for f in (*IDENTITY, *PROVENANCE, REJECT)) | INNER_COLUMNS


class RowChanges:
    """False where nothing changes.

    renames: old name by new name. partitions: columns of the folders, with the text of each, or null. hides_own:
    whether the file is of a run or a release, whose identity, provenance and inner columns are read only by name.
    """

    def __init__(
        self,
        renames: Mapping[str, str] | None = None,
        partitions: Sequence[tuple[str, str | None]] = (),
        hides_own: bool = False,
    ) -> None:
        self.renames, self.partitions, self.hides_own = dict(renames or {}), tuple(partitions), hides_own

    def __bool__(self) -> bool:
        return bool(self.renames or self.partitions)

    @property
    def literals(self) -> Any:
        """What changes rows, for a digest."""
        return {"columns": self.renames, "partitions": [list(pair) for pair in self.partitions]}

    def shown(self, names: Sequence[str]) -> list[str]:
        """The columns of a file that are read by default."""
        named = set(self.renames.values())
        return [n for n in names if n in named or not (self.hides_own and n in OWN_COLUMNS)]

    def wanted(self, names: Sequence[str], columns: Collection[str]) -> list[str]:
        """The columns of a file that give the requested ones."""
        needed = {self.renames.get(name, name) for name in columns} | {name for name, _ in self.partitions}
        return [name for name in names if name in needed]

    def names(self, names: Sequence[str]) -> list[str]:
        """The names of the columns of a row after the changes."""
        old = set(self.renames.values())
        kept = [n for n in names if n not in old and n not in self.renames]
        renamed = [new for new, former in self.renames.items() if former in names]
        return list(dict.fromkeys([*kept, *renamed, *(name for name, _ in self.partitions)]))

    def text(self, text: str, where: str) -> str:
        """The row as JSON text; a text that is no object stays as it is. Raises as `row`."""
        if not self:
            return text
        try:
            row = json_row(text)
        except ValueError:
            return text  # the generator rejects this row
        return dumped(self.row(row, where))

    def row(self, row: dict[str, Any], where: str) -> dict[str, Any]:
        """The changed row. Raises UserError where a folder states another value of a column than the row."""
        old = set(self.renames.values())
        changed = {name: value for name, value in row.items() if name not in old and name not in self.renames}
        changed |= {new: row[former] for new, former in self.renames.items() if former in row}
        for name, stated in self.partitions:
            value = changed.get(name)
            if value is None:
                changed[name] = stated
            elif not equals_text(value, stated):
                raise clash(name, value, stated, where)
        return changed


def equals_text(value: Any, text: str | None) -> bool:
    """Whether a value of a row is what the name of its folder states."""
    if text is None:
        return False
    if isinstance(value, str):
        return value == text
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(text) == value
        except ValueError:
            return False
    return str(value).lower() == text.lower()


def clash(name: str, value: Any, text: str | None, where: str) -> UserError:
    """The error of a column that has two values."""
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return UserError(
        f"{where}: column '{name}' is {shown[:60]} in a row, but {text!r} in the name of its folder; correct one, or "
        f'give the column of the file another name with columns = {{ file_{name} = "{name}" }}'
    )
