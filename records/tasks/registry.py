"""The families of tasks by name."""

from gristmill.records.tasks.algebra import Arithmetic, Equations, Polynomials, Systems
from gristmill.records.tasks.contract import TaskFamily
from gristmill.records.tasks.daily import Calendar, Letters, Sorting, Units
from gristmill.records.tasks.graphs import FriendGroups, MapColors, Route, TaskOrder
from gristmill.records.tasks.grids import GridPath, GridTurns, Islands, Life
from gristmill.records.tasks.logic import Comparisons, Knights, Sets, TruthTables
from gristmill.records.tasks.numbers import Bases, NumberTheory, Probability
from gristmill.records.tasks.programs import ListPrograms, OrderPrograms
from gristmill.records.tasks.squares import LatinSquare
from gristmill.records.tasks.strings import Automaton, Ciphers, Rewriting, RunLength

FAMILIES: dict[str, TaskFamily] = {
    family.name: family()
    for family in (
        Arithmetic, Equations, Systems, Polynomials, NumberTheory, Bases, Probability, TruthTables, Knights,
        Comparisons, Sets, Route, TaskOrder, FriendGroups, MapColors, GridPath, Islands, GridTurns, Life, Rewriting,
        Automaton, Ciphers, RunLength, LatinSquare, Sorting, Letters, Units, Calendar, ListPrograms, OrderPrograms,
    )
}  # fmt: skip
ANSWERS = tuple(name for name, family in FAMILIES.items() if not family.is_program)  # for the stage `answer`
PROGRAMS = tuple(name for name, family in FAMILIES.items() if family.is_program)  # for the stage `execute`
