"""Latin squares with blanks: small relatives of sudoku, with exactly one solution."""

from gristmill.records.functions.draws import Draws
from gristmill.records.tasks.contract import Task, TaskFamily, bracketed

Square = list[list[int]]  # 0 is a blank


class LatinSquare(TaskFamily):
    """A square in which every row and every column holds each number once."""

    name = "latin_square"
    about = "a row of a Latin square with blanks that has one completion"
    dial = "number of blanks: 2 × level + 3; side: 4 to 6"
    form = "list of whole numbers"

    def task(self, level: int, draws: Draws) -> Task:
        side = 4 if level < 3 else 5 if level < 6 else 6
        num_blanks = 2 * level + 3
        while (square := self._with_blanks(whole := self._whole(side, draws), num_blanks, draws)) is None:
            pass
        row = draws.choice([at for at in range(side) if 0 in square[at]])
        lines = [" ".join(str(value or "_") for value in values) for values in square]
        intro = draws.choice(
            (
                f"Fill the blanks (_) so that every row and every column holds each number from 1 to {side} once.",
                f"This is a Latin square with blanks: each row and each column contains the numbers 1 to {side} "
                "exactly once.",
                f"In the completed grid, no number from 1 to {side} appears twice in a row or in a column.",
            )
        )
        number = ("first", "second", "third", "fourth", "fifth", "sixth")[row]
        question = draws.choice((f"What is the completed {number} row?", f"Give the {number} row of the solution."))
        form = "Answer with a list in square brackets, with a comma and a space between numbers."
        return Task("\n".join([intro, *lines, f"{question} {form}"]), bracketed(whole[row]), num_blanks)

    def _whole(self, side: int, draws: Draws) -> Square:
        """A cyclic square with rows, columns and numbers in random order."""
        rows, columns, numbers = (draws.shuffled(range(side)) for _ in range(3))
        return [[numbers[(row + column) % side] + 1 for column in columns] for row in rows]

    def _with_blanks(self, whole: Square, num_blanks: int, draws: Draws) -> Square | None:
        """The square with so many blanks and one solution; None if blanks in this order leave several."""
        square = [list(row) for row in whole]
        count = 0
        for cell in draws.shuffled(range(len(whole) ** 2)):
            row, column = divmod(cell, len(whole))
            square[row][column] = 0
            if num_solutions(square) > 1:
                square[row][column] = whole[row][column]
                continue
            count += 1
            if count == num_blanks:
                return square
        return None


def num_solutions(square: Square, most: int = 2) -> int:
    """The number of completions, counted up to `most`. Leaves the square as it is."""
    side = len(square)
    best: tuple[int, int, set[int]] | None = None
    for row in range(side):
        for column in range(side):
            if square[row][column]:
                continue
            used = {*square[row], *(square[other][column] for other in range(side))}
            free = {number for number in range(1, side + 1) if number not in used}
            if best is None or len(free) < len(best[2]):
                best = row, column, free
    if best is None:
        return 1
    row, column, free = best
    count = 0
    for number in sorted(free):
        square[row][column] = number
        count += num_solutions(square, most - count)
        if count >= most:
            break
    square[row][column] = 0
    return count
