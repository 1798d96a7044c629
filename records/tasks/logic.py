"""Logic: truth tables, knights and knaves, orders of people, and sets."""

from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import numpy as np

from gristmill.records.functions.draws import Draws
from gristmill.records.tasks.contract import NAMES, WHOLE_NUMBER, Task, TaskFamily, bracketed, listed

Truths = np.ndarray  # bool, one entry for each assignment of all variables


class TruthTables(TaskFamily):
    """Formulas of propositional logic, and the assignments that make them true."""

    name = "truth_tables"
    about = "the number of assignments that make a formula true"
    dial = "number of connectives: level + 2; variables: 3 to 5"
    form = "whole number"

    def task(self, level: int, draws: Draws) -> Task:
        num_connectives, size = level + 2, min(5, 3 + level // 4)
        letters = "pqrst"[:size]
        while True:
            text, truths = self._formula(num_connectives, assignments(size), draws)
            if set(letters) <= set(text.replace("(", " ").replace(")", " ").split()):
                break
        question = draws.choice(
            (
                f"For how many assignments of truth values to {listed(list(letters))} is this formula true?",
                f"How many of the {2**size} rows of the truth table of this formula end in true? "
                f"Its variables are {listed(list(letters))}.",
                f"Count the ways to set {listed(list(letters))} to true or false that satisfy this formula.",
            )
        )
        legend = draws.choice(
            (
                '"->" means "implies", "xor" that exactly one side is true, and "not" applies to the next letter only.',
                'Here "A -> B" is false only if A is true and B is false, and "A xor B" is true if A and B differ; '
                '"not" negates the next letter only.',
            )
        )
        answer = str(int(truths.sum()))
        return Task(f"{question}\n{text[1:-1]}\n{legend} {draws.choice(WHOLE_NUMBER)}", answer, num_connectives)

    def _formula(self, num_connectives: int, variables: list[Truths], draws: Draws) -> tuple[str, Truths]:
        if num_connectives == 0:
            place = draws.below(len(variables))
            is_negated = draws.chance(1, 4)
            return ("not " if is_negated else "") + "pqrst"[place], variables[place] ^ is_negated
        split = draws.below(num_connectives)
        left, one = self._formula(split, variables, draws)
        right, other = self._formula(num_connectives - 1 - split, variables, draws)
        sign = draws.choice(("and", "or", "->", "xor"))
        truths = {"and": one & other, "or": one | other, "->": ~one | other, "xor": one ^ other}[sign]
        return f"({left} {sign} {right})", truths


class Knights(TaskFamily):
    """Knights and knaves (Smullyan 1978), with exactly one solution."""

    name = "knights"
    about = "who is a knight on an island of knights and knaves"
    dial = "number of people: level + 2"
    form = "list of names in alphabetical order"

    def task(self, level: int, draws: Draws) -> Task:
        size = level + 2
        people = sorted(draws.sample(NAMES, size))
        knights = assignments(size)
        while True:
            actual = draws.between(1, 2**size - 1)  # at least one knight
            consistent = np.ones(2**size, bool)
            lines = []
            for _ in range(2):  # a second round only if the first leaves several solutions
                for speaker in draws.shuffled(range(size)):
                    text, truths = self._statement(speaker, people, knights, knights[speaker][actual], actual, draws)
                    line = f'{people[speaker]} says: "{text}"'
                    lines += [line] if line not in lines else []
                    consistent &= truths == knights[speaker]
                if consistent.sum() == 1:
                    break
            if consistent.sum() == 1:
                break
        reference = bracketed([name for place, name in enumerate(people) if knights[place][actual]])
        intro = draws.choice(
            (
                "On an island, knights always tell the truth and knaves always lie. Everyone is one or the other.",
                "Every inhabitant of an island is either a knight, who only makes true statements, or a knave, who "
                "only makes false ones.",
                "You meet people who are knights, and never lie, or knaves, and never tell the truth.",
            )
        )
        who = draws.choice((f"You meet {listed(people)}.", f"There are {size} people: {listed(people)}."))
        question = draws.choice(("Who are the knights?", "Which of them are knights?", "Find out who is a knight."))
        example = bracketed(sorted(draws.sample([name for name in NAMES if name not in people], 2)))
        form = f"Answer with their names in alphabetical order, as a list in square brackets, such as {example}."
        return Task("\n".join([f"{intro} {who}", *lines, f"{question} {form}"]), reference, size)

    def _statement(
        self, speaker: int, people: list[str], knights: list[Truths], is_true: bool, actual: int, draws: Draws
    ) -> tuple[str, Truths]:
        """A statement about others with the wanted truth in the actual case."""
        while True:
            one, other = draws.sample([p for p in range(len(people)) if p != speaker], 2)
            a, b, x, y = people[one], people[other], knights[one], knights[other]
            text, truths = draws.choice(
                (
                    (f"{a} is a knave.", ~x),
                    (f"{a} is a knight.", x),
                    (f"{a} and {b} are both knights.", x & y),
                    (f"At least one of {a} and {b} is a knave.", ~x | ~y),
                    (f"{a} and {b} are of the same kind.", x == y),
                    (f"Exactly one of {a} and {b} is a knight.", x != y),
                    (f"If {a} is a knight, then {b} is a knave.", ~x | ~y),
                    (f"Neither {a} nor {b} is a knight.", ~x & ~y),
                )
            )
            if bool(truths[actual]) == bool(is_true):
                return text, truths


class Comparisons(TaskFamily):
    """Orders of people from comparisons of neighbors in the order."""

    name = "comparisons"
    about = "who stands at a place in an order that comparisons determine"
    dial = "number of people: level + 3"
    form = "name"

    SORTS = (
        ("taller than", "shorter than", "tallest", "from tallest to shortest"),
        ("older than", "younger than", "oldest", "from oldest to youngest"),
        ("faster than", "slower than", "fastest", "from fastest to slowest"),
        ("heavier than", "lighter than", "heaviest", "from heaviest to lightest"),
    )

    def task(self, level: int, draws: Draws) -> Task:
        size = level + 3
        people = draws.sample(NAMES, size)
        more, less, most, direction = draws.choice(self.SORTS)
        pairs = list(pairwise(people))
        for _ in range(level // 2):  # some that say nothing new
            one, other = sorted(draws.sample(range(size), 2))
            pairs.append((people[one], people[other]))
        lines = [
            f"{a} is {more} {b}." if draws.chance(1, 2) else f"{b} is {less} {a}." for a, b in draws.shuffled(pairs)
        ]
        place = draws.below(size)
        question = draws.choice(
            (
                f"Put all {size} people in order {direction}. Who is number {place + 1}?",
                f"If they stand in a line {direction}, who is at place {place + 1}?",
                f"Counting from the {most}, who comes at place {place + 1} of {size}?",
            )
        )
        form = draws.choice(("Answer with the name alone.", "Give only the name."))
        return Task(f"{' '.join(dict.fromkeys(lines))} {question} {form}", people[place], size)


class Sets(TaskFamily):
    """Unions, intersections and differences of sets of numbers."""

    name = "sets"
    about = "the size or the sum of a set that operations on other sets give"
    dial = "number of operations: level"
    form = "whole number"

    OPERATIONS: ClassVar[tuple[tuple[str, Callable[[set[int], set[int]], set[int]]], ...]] = (
        ("the union of {} and {}", set.__or__),
        ("the intersection of {} and {}", set.__and__),
        ("{} without the elements of {}", set.__sub__),
        ("the symmetric difference of {} and {}", set.__xor__),
    )

    def task(self, level: int, draws: Draws) -> Task:
        letters = [f"S{place}" for place in range(1, level + 2)] if level > 6 else list("ABCDEFG"[: level + 1])
        sets = [set(draws.sample(range(1, 21), draws.between(5, 10))) for _ in letters]
        lines = [f"{letter} = {{{', '.join(map(str, sorted(each)))}}}" for letter, each in zip(letters, sets)]
        current, name, steps = sets[0], letters[0], list[str]()
        for place in range(1, level + 1):
            words, operation = draws.choice(self.OPERATIONS)
            current = operation(current, sets[place])
            result = f"R{place}"
            steps.append(f"{result} is {words.format(name, letters[place])}.")
            name = result
        intro = draws.choice(
            ("You are given these sets of numbers:", "Consider the following sets:", "Take these sets:")
        )
        if draws.chance(1, 2):
            question, answer = f"How many elements does {name} have?", len(current)
        else:
            question, answer = f"What is the sum of the elements of {name} (0 if it is empty)?", sum(current)
        return Task("\n".join([intro, *lines, *steps, f"{question} {draws.choice(WHOLE_NUMBER)}"]), str(answer), level)


def assignments(size: int) -> list[Truths]:
    """For each of `size` variables its truth in all 2^size assignments: bool arrays of shape (2^size,)."""
    numbers = np.arange(2**size)
    return [(numbers >> place & 1).astype(bool) for place in range(size)]
