"""The result of an audit: what is wrong, and how much was checked."""

from dataclasses import dataclass, field

MAX_SHOWN = 20


@dataclass
class Findings:
    """Errors, one line each, and the number of objects checked, by kind."""

    errors: list[str] = field(default_factory=list)
    num_checked: dict[str, int] = field(default_factory=dict)

    def add(self, line: str) -> None:
        self.errors.append(line)

    def count(self, kind: str, number: int) -> None:
        self.num_checked[kind] = self.num_checked.get(kind, 0) + number
