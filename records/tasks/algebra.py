"""Arithmetic, equations, systems of equations and polynomials."""

from collections.abc import Sequence
from fractions import Fraction

from gristmill.records.functions.draws import Draws
from gristmill.records.tasks.contract import WHOLE_NUMBER, Task, TaskFamily, bracketed

LETTERS = "xyzuvwabcdpqrst"


class Arithmetic(TaskFamily):
    """Expressions of +, - and * with parentheses and the usual precedence."""

    name = "arithmetic"
    about = "the value of an expression with +, -, × and parentheses"
    dial = "number of operations: level + 1"
    form = "whole number"

    def task(self, level: int, draws: Draws) -> Task:
        num_operations = level + 1
        text, value, _ = self._expression(num_operations, draws)
        opening = draws.choice(
            (
                "Calculate {}.",
                "What is {}?",
                "Work out the value of {}.",
                "Evaluate the expression {}.",
                "Find the result of {}.",
            )
        )
        note = draws.choice(
            ("", " Multiplication comes before addition and subtraction.", " Mind the order of operations.")
        )
        return Task(f"{opening.format(text)}{note} {draws.choice(WHOLE_NUMBER)}", str(value), num_operations)

    def _expression(self, num_operations: int, draws: Draws) -> tuple[str, int, int]:
        """(text, value, precedence of the outermost operation: 1 for sums, 2 for products, 3 for numbers)."""
        if num_operations == 0:
            number = draws.between(2, 30)
            return str(number), number, 3
        left = self._expression((split := draws.below(num_operations)), draws)
        right = self._expression(num_operations - 1 - split, draws)
        sign = draws.choice("++--×")
        rank = 2 if sign == "×" else 1
        texts = [
            f"({text})" if inner < rank or (inner == rank and side == 1 and sign == "-") else text
            for side, (text, _, inner) in enumerate((left, right))
        ]
        value = {"+": left[1] + right[1], "-": left[1] - right[1], "×": left[1] * right[1]}[sign]
        return f"{texts[0]} {sign} {texts[1]}", value, rank


class Equations(TaskFamily):
    """Linear equations in one unknown, wrapped in operations."""

    name = "equations"
    about = "the solution of a linear equation in one unknown"
    dial = "number of operations around the unknown: level + 1"
    form = "whole number"

    def task(self, level: int, draws: Draws) -> Task:
        num_operations, letter = level + 1, draws.choice("xyzntkm")
        solution = draws.between(-20, 20)
        text, slope, offset, is_sum = letter, 1, 0, False  # the left side is slope * letter + offset
        for _ in range(num_operations):
            text, slope, offset, is_sum = self._wrapped(text, letter, slope, offset, is_sum, draws)
        equation = f"{text} = {slope * solution + offset}"
        opening = draws.choice(
            (
                "Solve for {letter}: {equation}.",
                "Find the value of {letter} if {equation}.",
                "For which value of {letter} does {equation} hold?",
                "The number {letter} satisfies {equation}. What is {letter}?",
            )
        )
        form = draws.choice(
            (
                f"Answer with the value of {letter} alone, a whole number.",
                "Give only the number, which is whole and may be negative.",
            )
        )
        return Task(f"{opening.format(letter=letter, equation=equation)} {form}", str(solution), num_operations)

    def _wrapped(
        self, text: str, letter: str, slope: int, offset: int, is_sum: bool, draws: Draws
    ) -> tuple[str, int, int, bool]:
        """The text with one more operation, its slope and offset, and whether it is a sum."""
        number, kind = draws.between(2, 12), draws.below(5)
        if kind < 2 and (is_sum or text == letter) and slope < 1000:
            number = draws.between(2, 5)
            return f"{number}({text})" if is_sum else f"{number}{text}", slope * number, offset * number, False
        if kind == 2:
            return f"{text} - {number}", slope, offset - number, True
        if kind == 3 and text != letter:
            return f"{text} + {number}{letter}", slope + number, offset, True
        return f"{text} + {number}", slope, offset + number, True


class Systems(TaskFamily):
    """Systems of linear equations with one solution in whole numbers."""

    name = "systems"
    about = "the solution of a system of linear equations"
    dial = "number of equations and unknowns: level + 1"
    form = "list of whole numbers in the order of the unknowns"

    def task(self, level: int, draws: Draws) -> Task:
        size = level + 1
        letters = LETTERS[:size]
        values = draws.sample(range(-9, 10), size)  # distinct: algebra reads [2, 2] as the set of 2
        rows = self._rows(size, draws)
        lines = [f"{linear(row, letters)} = {sum(a * x for a, x in zip(row, values))}" for row in rows]
        opening = draws.choice(
            (
                "Solve this system of equations:",
                "Find the numbers that satisfy all of these equations:",
                "The following equations have exactly one solution. Find it:",
            )
        )
        form = (
            f"Answer with the values of {', '.join(letters)} in this order, as a list in square brackets, "
            f"such as {bracketed(range(1, size + 1))}."
        )
        return Task("\n".join([opening, *lines, form]), bracketed(values), size)

    def _rows(self, size: int, draws: Draws) -> list[list[int]]:
        while True:
            rows = []
            for number in range(size):
                row = [0] * size
                for place in {number, *(draws.below(size) for _ in range(2))}:
                    row[place] = draws.between(1, 5) * draws.choice((1, -1))
                rows.append(row)
            if rank(rows) == size:
                return draws.shuffled(rows)


class Polynomials(TaskFamily):
    """Products of linear factors, and their values."""

    name = "polynomials"
    about = "the coefficients of a product of linear factors, or of its derivative"
    dial = "degree of the product: level + 1"
    form = "list of whole numbers, from the highest power down"

    def task(self, level: int, draws: Draws) -> Task:
        degree = level + 1
        factors = [(draws.choice((1, 1, 2, 3)), draws.between(1, 9) * draws.choice((1, -1))) for _ in range(degree)]
        coefficients = [1]  # from the highest power down
        for slope, offset in factors:
            times_x, times_1 = [slope * c for c in coefficients] + [0], [0] + [offset * c for c in coefficients]
            coefficients = [a + b for a, b in zip(times_x, times_1)]
        product = "".join(f"({'' if a == 1 else a}x {'+' if b > 0 else '-'} {abs(b)})" for a, b in factors)
        if draws.chance(1, 3):
            coefficients = [c * (degree - place) for place, c in enumerate(coefficients[:-1])]
            opening = draws.choice(
                (
                    f"Differentiate {product} with respect to x.",
                    f"What is the derivative of f(x) = {product}? Write it in expanded form.",
                )
            )
        else:
            opening = draws.choice(
                (
                    f"Expand {product}.",
                    f"Multiply out {product} and collect like terms.",
                    f"Write {product} as a polynomial in x.",
                )
            )
        if len(set(coefficients)) == 1:  # algebra reads [2, 2] as the set of 2
            return self.task(level, draws)
        form = (
            "Answer with the coefficients from the highest power of x down to the constant, zeros included, "
            "as a list in square brackets, such as [2, 0, -5]."
        )
        return Task(f"{opening} {form}", bracketed(coefficients), degree)


def linear(row: Sequence[int], letters: str) -> str:
    """A sum such as "2x - y + 3z"."""
    text = ""
    for number, letter in zip(row, letters):
        if number:
            sign = ("-" if number < 0 else "") if not text else (" - " if number < 0 else " + ")
            text += f"{sign}{'' if abs(number) == 1 else abs(number)}{letter}"
    return text


def rank(rows: Sequence[Sequence[int]]) -> int:
    """The rank of a matrix, by exact elimination."""
    rest = [[Fraction(value) for value in row] for row in rows]
    number = 0
    for column in range(len(rest[0])):
        pivot = next((at for at in range(number, len(rest)) if rest[at][column]), None)
        if pivot is None:
            continue
        rest[number], rest[pivot] = rest[pivot], rest[number]
        for at in range(number + 1, len(rest)):
            factor = rest[at][column] / rest[number][column]
            if factor:
                rest[at] = [a - factor * b for a, b in zip(rest[at], rest[number])]
        number += 1
    return number
