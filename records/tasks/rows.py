"""`[source] kind = "tasks"`: tasks with exact answers, without end (docs/tasks.md)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from gristmill.records.functions.contract import RowFunction
from gristmill.records.functions.draws import Draws
from gristmill.records.spec import nearest
from gristmill.records.tasks.contract import MAX_LEVEL
from gristmill.records.tasks.registry import ANSWERS, FAMILIES


@dataclass(frozen=True)
class TaskRowsSpec:
    """Keys of `[source] kind = "tasks"`."""

    # Families to draw from, each as often (docs/tasks.md); default: all whose answer is text, which the stage `answer`
    # verifies.
    families: tuple[str, ...] = ANSWERS
    levels: tuple[int, ...] = (1, 2, 3, 4, 5)  # Levels of difficulty to draw from, each as often: 1 to 10.

    def __post_init__(self) -> None:
        if not self.families or not self.levels:
            raise ValueError("families and levels must name at least one each")
        for name in self.families:
            if name not in FAMILIES:
                raise ValueError(f"families: no family '{name}'{nearest(name, FAMILIES)}")
        for level in self.levels:
            if not 1 <= level <= MAX_LEVEL:
                raise ValueError(f"levels: {level} is not in 1 to {MAX_LEVEL}")
        for key, values in (("families", self.families), ("levels", self.levels)):
            for value in values:
                if values.count(value) > 1:
                    raise ValueError(f"{key}: {value} is named twice")
        if len({FAMILIES[name].is_program for name in self.families}) > 1:
            raise ValueError(
                "families: programs (list_programs, order_programs) are verified by the stage execute and other "
                "answers by the stage answer; make a run of each"
            )


class TaskRows(RowFunction):
    """Columns `question`, `reference`, `task` (the family), `difficulty` (the level) and `tests` ("" for answers)."""

    kind: ClassVar[str] = "tasks"
    revision: ClassVar[int] = 2  # 2: no variable of a test has the name of its function
    Spec: ClassVar[type] = TaskRowsSpec
    spec: TaskRowsSpec

    @property
    def columns(self) -> tuple[str, ...]:
        return ("question", "reference", "task", "difficulty", "tests")

    def row(self, number: int, draws: Draws) -> dict[str, Any]:
        name, level = draws.choice(self.spec.families), draws.choice(self.spec.levels)
        task = FAMILIES[name].task(level, draws)
        return {
            "question": task.question,
            "reference": task.reference,
            "task": name,
            "difficulty": level,
            "tests": task.tests,
        }

    @property
    def words(self) -> str:
        families, levels = self.spec.families, self.spec.levels
        what = families[0] if len(families) == 1 else f"{len(families)} families"
        shown = str(levels[0]) if len(levels) == 1 else ", ".join(map(str, levels))
        return f"tasks of {what} at level{'s' if len(levels) > 1 else ''} {shown}"
