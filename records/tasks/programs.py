"""Programs to write, with tests: for the stage `execute`."""

from collections.abc import Callable
from typing import Any

from gristmill.records.functions.draws import Draws
from gristmill.records.tasks.contract import Task, TaskFamily

NUM_TESTS = 6
RESULT = (
    "order_in_test"  # variable of the tests; they share a namespace with the program, whose function has another name
)
Step = tuple[str, str, Callable[[list[int]], list[int]]]  # words, Python of a list `values`, the same as a function


class ListPrograms(TaskFamily):
    """Functions on lists of whole numbers: a chain of steps."""

    name = "list_programs"
    about = "a Python function that takes a list through a chain of steps"
    dial = "number of steps: level + 1"
    form = "Python program, checked by tests"
    is_program = True

    def task(self, level: int, draws: Draws) -> Task:
        num_steps, steps = level + 1, list[Step]()
        inputs = [[draws.between(-20, 60) for _ in range(draws.between(5, 12) if at else 0)] for at in range(NUM_TESTS)]
        outputs = inputs
        while len(steps) < num_steps:  # each step has an effect, and most lists keep elements
            step = self._step(draws)
            after = [step[2](values) for values in outputs]
            if after != outputs and sum(map(bool, after)) > NUM_TESTS // 2:
                steps.append(step)
                outputs = after
        name = draws.choice(("transform", "process", "convert", "apply_steps", "change"))
        lines = [f"{place}. {words}" for place, (words, _, _) in enumerate(steps, 1)]
        text = draws.choice(
            (
                f"Write a Python function {name}(values) that takes a list of whole numbers, carries out these steps "
                "in order, and returns the resulting list:",
                f"Implement {name}(values) in Python. It receives a list of integers and returns a new list, made by "
                "these steps, one after another:",
            )
        )
        form = "The list may be empty. Answer with one Python code block that defines the function."
        body = "".join(f"    values = {code}\n" for _, code, _ in steps)
        tests = [f"assert {name}({values}) == {result}" for values, result in zip(inputs, outputs)]
        reference = f"def {name}(values):\n{body}    return values\n"
        return Task("\n".join([text, *lines, form]), reference, num_steps, "\n".join(tests))

    def _step(self, draws: Draws) -> Step:
        n = draws.between(2, 12)
        steps: tuple[Step, ...] = (
            (f"Add {n} to every number.", f"[v + {n} for v in values]", lambda vs: [v + n for v in vs]),
            (f"Multiply every number by {n}.", f"[v * {n} for v in values]", lambda vs: [v * n for v in vs]),
            (f"Keep only the numbers that {n} divides.", f"[v for v in values if v % {n} == 0]",
             lambda vs: [v for v in vs if v % n == 0]),
            (f"Remove the numbers above {10 * n}.", f"[v for v in values if v <= {10 * n}]",
             lambda vs: [v for v in vs if v <= 10 * n]),
            ("Reverse the list.", "values[::-1]", lambda vs: vs[::-1]),
            ("Sort the list in ascending order.", "sorted(values)", sorted),
            ("Remove repeated numbers and keep the first of each.", "list(dict.fromkeys(values))",
             lambda vs: list(dict.fromkeys(vs))),
            (f"Move the first {n} numbers to the end (the list stays as it is if it has no more than {n}).",
             f"values[{n}:] + values[:{n}]", lambda vs: vs[n:] + vs[:n]),
            ("Replace each number by the sum of all numbers up to and including it.",
             "[sum(values[: at + 1]) for at in range(len(values))]",
             lambda vs: [sum(vs[: at + 1]) for at in range(len(vs))]),
            ("Keep every other number, beginning with the first.", "values[::2]", lambda vs: vs[::2]),
            ("Replace each number by its absolute value.", "[abs(v) for v in values]",
             lambda vs: [abs(v) for v in vs]),
            (f"Subtract {n} from every number.", f"[v - {n} for v in values]", lambda vs: [v - n for v in vs]),
            (f"Keep only the numbers above {n}.", f"[v for v in values if v > {n}]",
             lambda vs: [v for v in vs if v > n]),
            (f"Replace each number by the larger of it and {n}.", f"[max(v, {n}) for v in values]",
             lambda vs: [max(v, n) for v in vs]),
            (f"Put the number {n} at the end of the list.", f"[*values, {n}]", lambda vs: [*vs, n]),
        )  # fmt: skip
        return draws.choice(steps)


class OrderPrograms(TaskFamily):
    """Functions with many right answers: a valid order of tasks, checked as such."""

    name = "order_programs"
    about = "a Python function that returns any valid order of tasks, checked by its validity"
    dial = "number of tasks in the largest test: 4 × level"
    form = "Python program, checked by tests"
    is_program = True

    def task(self, level: int, draws: Draws) -> Task:
        name = draws.choice(("order", "schedule", "plan", "valid_order", "arrange", "sequence"))
        many, one = draws.choice((("tasks", "task"), ("jobs", "job"), ("courses", "course"), ("steps", "step")))
        is_list = draws.chance(1, 2)
        nothing = draws.choice(("None", "an empty list"))
        pair = draws.choice(("(x, y)", "(first, second)", "(a, b)"))
        first, second = pair.strip("()").split(", ")
        text = draws.choice(
            (
                f"Write a Python function {name}(count, pairs). There are {many} with the numbers 0 to count - 1. "
                f"A pair {pair} says that {one} {first} must come before {one} {second}.",
                f"Implement {name}(count, pairs) in Python, where count is the number of {many}, numbered from 0, and "
                f"each pair {pair} in the list pairs demands that {first} comes before {second}.",
            )
        )
        rule = (
            f"Return a list of all {many} in an order that respects every pair; any such order is right. "
            f"Return {nothing} if there is none. Answer with one Python code block that defines the function."
        )
        tests = [
            self._check(name, self._case(4 * level if place else 4, is_list, draws, place), nothing)
            for place in range(4)
        ]
        circle = self._shown([(0, 1), (1, 2), (2, 0)], is_list)
        none = f"assert {name}(3, {circle}) == {'None' if nothing == 'None' else '[]'}"
        some = [tuple(draws.sample(range(6), 2)) for _ in range(draws.between(2, 3))]
        example = f"For example, pairs may be {self._shown(some, is_list)}."
        return Task(f"{text} {example} {rule}", self._program(name, nothing), 4 * level, "\n".join([*tests, none]))

    def _case(self, size: int, is_list: bool, draws: Draws, place: int) -> tuple[int, Any]:
        order = draws.shuffled(range(size))
        pairs = [tuple(order[at] for at in sorted(draws.sample(range(size), 2))) for _ in range(place * size // 2)]
        return size, self._shown(pairs, is_list)

    def _shown(self, pairs: list[Any], is_list: bool) -> Any:
        return [list(pair) for pair in pairs] if is_list else [tuple(pair) for pair in pairs]

    def _check(self, name: str, case: tuple[int, Any], nothing: str) -> str:
        size, pairs = case
        return (
            f"{RESULT} = list({name}({size}, {pairs}))\n"
            f"assert sorted({RESULT}) == list(range({size}))\n"
            f"assert all({RESULT}.index(a) < {RESULT}.index(b) for a, b in {pairs})"
        )

    def _program(self, name: str, nothing: str) -> str:
        return (
            f"def {name}(count, pairs):\n"
            "    rest, order = set(range(count)), []\n"
            "    while rest:\n"
            "        free = [task for task in rest if not any(b == task and a in rest for a, b in pairs)]\n"
            "        if not free:\n"
            f"            return {'None' if nothing == 'None' else '[]'}\n"
            "        order += free\n"
            "        rest -= set(free)\n"
            "    return order\n"
        )
