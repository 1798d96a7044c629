"""The contract of a family of tasks, and the words that families share.

References keep forms that the stage `answer` can tell apart, with algebra and without: whole numbers and fractions;
lists in square brackets, because algebra reads others as sets; texts with a run of four letters, because algebra reads
shorter ones as products.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from gristmill.records.functions.draws import Draws

MAX_LEVEL = 10


class Task(NamedTuple):
    """A task: what is asked, the exact answer, and the measure of its difficulty that the level sets.

    tests: statements for the stage `execute`, of tasks whose answer is a program.
    """

    question: str
    reference: str
    size: int
    tests: str = ""


class TaskFamily(ABC):
    """Tasks of one sort at the levels 1 to MAX_LEVEL.

    `task` is a function of level and draws alone. A higher level has a larger `size`.
    """

    name: ClassVar[str]
    about: ClassVar[str]  # what is asked, for the documentation
    dial: ClassVar[str]  # what `size` is and how it grows with the level
    form: ClassVar[str]  # of the answer
    is_program: ClassVar[bool] = False  # whether the answer is a program with tests

    @abstractmethod
    def task(self, level: int, draws: Draws) -> Task:
        """A task of a level."""


WHOLE_NUMBER = (
    "Answer with a whole number.",
    "Give the answer as a whole number.",
    "Your answer should be a single whole number.",
    "State the result as one whole number.",
)
NAMES = tuple(
    "Alice Amir Anna Bruno Carla Chen Clara Daniel Diana Elena Emma Felix Fatima Grace Hana Henry Hugo Ingrid Isaac "
    "Jack Jonas Julia Karim Laura Leila Leon Lucas Maria Marco Maya Mina Nadia Nina Noah Olga Omar Oscar Paula Peter "
    "Priya Rosa Ruth Samir Sara Simon Sofia Tara Thomas Vera Victor Wanda Yara Yusuf Zara".split()
)
TOWNS = tuple(
    "Ashford Barton Brookfield Carling Clearwater Dalton Eastwick Elmstead Fairview Glenmore Greenhill Hartley "
    "Highgate Holbrook Kingsbridge Lakewood Langton Marlow Milford Northgate Oakdale Penrith Redhill Riverton Rosedale "
    "Sandford Stonebridge Thornton Upton Wakefield Westbury Winslow Woodside Yarmouth".split()
)
WORDS = tuple(
    "anchor apple autumn bakery banner basket blanket bottle branch bridge butter button camera candle carpet castle "
    "cherry circle coffee copper corner cotton cousin dinner doctor dragon engine farmer feather finger flower forest "
    "garden guitar hammer harbor helmet hollow honey island jacket journey kitchen ladder lantern lemon letter market "
    "meadow mirror monkey morning mountain needle number orange orchard palace parrot pebble pencil pepper pillow "
    "planet pocket potato puzzle rabbit railway ribbon river rocket saddle sailor season shadow silver singer spider "
    "spring station stone summer sunset table temple thunder ticket tiger timber travel tunnel turtle valley velvet "
    "violin wagon walnut water weather whistle window winter wisdom yellow".split()
)


def bracketed(values: Sequence[object]) -> str:
    """A list in the form of answers: "[3, 1, 2]"."""
    return f"[{', '.join(map(str, values))}]"


def listed(values: Sequence[object], last: str = "and") -> str:
    """A list in prose: "a, b and c"."""
    texts = [str(value) for value in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} {last} {texts[-1]}"
