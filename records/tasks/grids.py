"""Grids: shortest paths, islands, turns and reflections, and Conway's game of life."""

from collections import deque
from collections.abc import Iterator, Sequence

from gristmill.records.functions.draws import Draws
from gristmill.records.tasks.contract import WHOLE_NUMBER, Task, TaskFamily

Cell = tuple[int, int]
MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))
CONSONANTS = "BCDFGHJKLMNPQRSTVWXZ"


class GridPath(TaskFamily):
    """Shortest paths between two cells of a grid with walls."""

    name = "grid_path"
    about = "the fewest steps between two cells of a grid with walls"
    dial = "side of the grid in cells: level + 3"
    form = "whole number; -1 if there is no path"

    def task(self, level: int, draws: Draws) -> Task:
        side = level + 3
        cells = [(row, column) for row in range(side) for column in range(side)]
        walls = set(draws.sample(cells, side * side * draws.between(20, 35) // 100))
        free = [cell for cell in cells if cell not in walls]
        for _ in range(5):  # a path of some length is likely, but none may exist
            start, goal = draws.sample(free, 2)
            distance = distances(start, set(free)).get(goal, -1)
            if distance >= side:
                break
        marks = {start: "S", goal: "G", **dict.fromkeys(walls, "#")}
        text = draws.choice(
            (
                "Find the length of the shortest path from S to G in this grid.",
                "A robot stands at S and wants to reach G. What is the smallest number of steps it needs?",
                "How many steps does the shortest route from S to G take in the maze below?",
            )
        )
        rules = draws.choice(
            (
                "A step goes up, down, left or right by one cell; cells marked # are walls.",
                "Each step moves one cell horizontally or vertically, and # marks a wall.",
            )
        )
        form = "Answer with the number of steps, or with -1 if G cannot be reached."
        rows = ["".join(marks.get((row, column), ".") for column in range(side)) for row in range(side)]
        return Task("\n".join([f"{text} {rules}", *rows, form]), str(distance), side)


class Islands(TaskFamily):
    """Connected groups of land cells."""

    name = "islands"
    about = "the number of islands in a grid of land and water, or the size of the largest"
    dial = "side of the grid in cells: level + 3"
    form = "whole number"

    def task(self, level: int, draws: Draws) -> Task:
        side = level + 3
        land = {
            (row, column) for row in range(side) for column in range(side) if draws.chance(45, 100)
        } or {(0, 0)}  # fmt: skip
        sizes = [len(island) for island in groups(land)]
        if draws.chance(1, 2):
            text, answer = "How many islands are there", len(sizes)
        else:
            text, answer = "How many cells does the largest island have", max(sizes)
        intro = draws.choice(
            (
                "The map below shows land (#) and water (.).",
                "In this grid, # is land and . is water.",
                "Look at this map, where # stands for land and . for water.",
            )
        )
        rule = draws.choice(
            (
                "Land cells belong to the same island if they touch along an edge, not only at a corner.",
                "Two land cells are connected when they share a side; corners do not count.",
            )
        )
        rows = ["".join("#" if (row, column) in land else "." for column in range(side)) for row in range(side)]
        return Task("\n".join([f"{intro} {rule}", *rows, f"{text}? {draws.choice(WHOLE_NUMBER)}"]), str(answer), side)


class GridTurns(TaskFamily):
    """A grid of letters after turns and reflections."""

    name = "grid_turns"
    about = "a row of a grid of letters after turns and reflections"
    dial = "number of turns and reflections: level"
    form = "letters of the row, without spaces"

    TURNS = (
        ("rotate it by 90 degrees clockwise", lambda g: [row[::-1] for row in zip(*g)]),
        ("rotate it by 90 degrees counterclockwise", lambda g: list(zip(*g))[::-1]),
        ("rotate it by 180 degrees", lambda g: [row[::-1] for row in g[::-1]]),
        ("mirror it left to right", lambda g: [row[::-1] for row in g]),
        ("flip it upside down", lambda g: g[::-1]),
        ("swap its rows and columns, so that the first row becomes the first column", lambda g: list(zip(*g))),
    )

    def task(self, level: int, draws: Draws) -> Task:
        side = draws.between(4, 5)
        grid: Sequence[Sequence[str]] = [[draws.choice(CONSONANTS) for _ in range(side)] for _ in range(side)]
        shown = [" ".join(row) for row in grid]
        steps = []
        for _ in range(level):
            words, turn = draws.choice(self.TURNS)
            steps.append(words)
            grid = turn(grid)
        row = draws.below(side)
        number = ("first", "second", "third", "fourth", "fifth")[row]
        intro = draws.choice(
            ("Here is a grid of letters:", "Start from this grid of letters:", "Take this letter grid:")
        )
        order = "Do the following:" if level == 1 else "Do the following, in this order:"
        lines = [f"{place}. {words[0].upper()}{words[1:]}." for place, words in enumerate(steps, 1)]
        form = draws.choice(
            (
                f"What is the {number} row of the result, from the top? Answer with its letters, without spaces.",
                f"Give the {number} row from the top of the grid that you end up with, as letters without spaces.",
            )
        )
        return Task("\n".join([intro, *shown, order, *lines, form]), "".join(grid[row]), level)


class Life(TaskFamily):
    """Conway's game of life on a bounded board (Gardner 1970)."""

    name = "life"
    about = "the number of live cells after steps of Conway's game of life"
    dial = "number of steps: level"
    form = "whole number"

    def task(self, level: int, draws: Draws) -> Task:
        side = 5 if level < 4 else 6
        cells = [(row, column) for row in range(side) for column in range(side)]
        while True:  # a start that is alive until the last step
            live = first = {cell for cell in cells if draws.chance(40, 100)}
            for _ in range(level - 1):
                live = life_step(live, side)
            if live:
                break
        live = life_step(live, side)
        rows = ["".join("#" if (row, column) in first else "." for column in range(side)) for row in range(side)]
        steps = "1 step" if level == 1 else f"{level} steps"
        text = draws.choice(
            (
                f"Run Conway's game of life for {steps} on this board. How many cells are alive then?",
                f"This board follows the rules of Conway's game of life. How many live cells are there after {steps}?",
            )
        )
        rules = draws.choice(
            (
                "A live cell (#) stays alive with two or three live neighbors; a dead cell (.) comes alive with "
                "exactly three. Neighbors are the up to eight cells around a cell, and everything outside the board is "
                "dead.",
                "# is alive and . is dead. A cell is alive in the next step if it has three live neighbors, or if it "
                "is alive and has two. Diagonal neighbors count; cells beyond the edge are always dead.",
            )
        )
        return Task("\n".join([f"{text} {rules}", *rows, draws.choice(WHOLE_NUMBER)]), str(len(live)), level)


def beside(cell: Cell) -> Iterator[Cell]:
    """The four cells that share an edge with a cell."""
    return ((cell[0] + down, cell[1] + right) for down, right in MOVES)


def distances(start: Cell, free: set[Cell]) -> dict[Cell, int]:
    """The fewest steps from `start` to every cell that can be reached over free cells."""
    steps, queue = {start: 0}, deque([start])
    while queue:
        cell = queue.popleft()
        for other in beside(cell):
            if other in free and other not in steps:
                steps[other] = steps[cell] + 1
                queue.append(other)
    return steps


def groups(cells: set[Cell]) -> list[set[Cell]]:
    """The connected groups of cells."""
    rest, parts = set(cells), []
    while rest:
        parts.append(set(distances(min(rest), rest)))
        rest -= parts[-1]
    return parts


def life_step(live: set[Cell], side: int) -> set[Cell]:
    """The live cells of the next step."""
    counts: dict[Cell, int] = {}
    for row, column in live:
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                if down or right:
                    cell = row + down, column + right
                    counts[cell] = counts.get(cell, 0) + 1
    inside = range(side)
    return {
        cell
        for cell, count in counts.items()
        if cell[0] in inside and cell[1] in inside and (count == 3 or (count == 2 and cell in live))
    }
