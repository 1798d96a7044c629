"""What changes in the rows of a file: names of columns, the columns of its folders, and columns that are left out."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gristmill.records.errors import KeyFault
from gristmill.records.readers.json_rows import dumped, json_row
from gristmill.records.schema import IDENTITY, INNER_COLUMNS, PROVENANCE, REJECT

OWN_COLUMNS = frozenset(f.name for f in (*IDENTITY, *PROVENANCE, REJECT)) | INNER_COLUMNS


class RowChanges:
    """False where nothing changes.

    renames: old name by new name; None where no key renames columns. Where a file has no column of an old name, that of
    its folders is renamed. partitions: columns of the folders, with the text of each, or null. hides_own:
    whether the file is of a run or a release, whose identity, provenance and inner columns are read only by name.
    """

    def __init__(
        self,
        renames: Mapping[str, str] | None = None,
        partitions: Sequence[tuple[str, str | None]] = (),
        hides_own: bool = False,
    ) -> None:
        self.renames, self.partitions, self.hides_own = dict(renames or {}), tuple(partitions), hides_own
        self._has_key = renames is not None

    def __bool__(self) -> bool:
        return bool(self.renames or self.partitions)

    @property
    def literals(self) -> Any:
        """What changes rows, for a digest."""
        literals: dict[str, Any] = {"columns": self.renames, "partitions": [list(pair) for pair in self.partitions]}
        if any(name in self.renames.values() for name, _ in self.partitions):
            literals["renamed"] = "partitions"  # they kept their names before 0.3
        return literals

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
        return list(self._renamed(dict.fromkeys(names), dict.fromkeys(name for name, _ in self.partitions)))

    def _renamed(self, row: dict[str, Any], folders: dict[str, Any]) -> dict[str, Any]:
        """The columns of the row and of its folders with their new names, which replace columns of these names."""
        old = set(self.renames.values())
        whole = {**folders, **row}
        columns = {name: value for name, value in row.items() if name not in old and name not in self.renames}
        columns |= (renamed := {new: whole[former] for new, former in self.renames.items() if former in whole})
        # Where the file has the column as well, its one gets the new name.
        return columns | {n: v for n, v in folders.items() if n not in renamed and (n not in old or n in row)}

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
        changed, folders = {*self.renames, *self.renames.values()}, dict[str, Any]()
        for name, text in self.partitions:
            value = None if name in changed else row.get(name)
            if value is None:
                folders[name] = text
            elif not equals_text(value, text):
                fault = clash(name, value, text, where)
                raise fault if self._has_key else fault.without_key()
        return self._renamed(row, folders)


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


def clash(name: str, value: Any, text: str | None, where: str) -> KeyFault:
    """The error of a column that has two values."""
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return KeyFault(
        f"{where}: column '{name}' is {shown[:60]} in a row, but {text!r} in the name of its folder",
        f'give the column of the file another name with columns = {{ file_{name} = "{name}" }}',
        "correct one of them",
    )
