"""Families of tasks: another solver agrees, answers can be told apart, levels are levels, and rows are reproducible."""

import ast
import random
import re
from itertools import pairwise
from statistics import mean

import pyarrow as pa
import pytest

from gristmill.records.functions.draws import Draws
from gristmill.records.spec import build
from gristmill.records.tasks.contract import MAX_LEVEL, Task
from gristmill.records.tasks.registry import ANSWERS, FAMILIES, PROGRAMS
from gristmill.stages.verify.answer import Answer, AnswerSpec
from gristmill.stages.verify.execute import Execute, ExecuteSpec
from tests.records.tasks import solvers

# The brute force of these solvers takes the time of a few levels only.
LEVELS = {
    "grid_path": 5,
    "knights": 6,
    "islands": 5,
    "comparisons": 3,
    "task_order": 4,
    "map_colors": 4,
    "latin_square": 5,
    "calendar": 6,
    "probability": 3,
}


# Families with every form of answer: algebra, which is slow, sees these only.
FORMS = (
    "arithmetic",
    "bases",
    "probability",
    "systems",
    "polynomials",
    "knights",
    "task_order",
    "grid_turns",
    "ciphers",
)


def tasks(name: str, level: int, count: int, seed: int = 0) -> list[Task]:
    return [FAMILIES[name].task(level, Draws(seed, number)) for number in range(count)]


@pytest.mark.parametrize("name", ANSWERS)
def test_another_solver_agrees(name: str) -> None:
    """It reads the question alone, so the question says all that the answer depends on, and the answer is unique."""
    for level in range(1, LEVELS.get(name, 8) + 1):
        for task in tasks(name, level, 6 if name in ("probability", "latin_square", "task_order") else 12, seed=level):
            assert getattr(solvers, name)(task.question) == task.reference, task.question


@pytest.mark.parametrize("name", FAMILIES)
def test_levels_are_levels(name: str) -> None:
    """The stated measure grows with each level."""
    sizes = [mean(task.size for task in tasks(name, level, 6)) for level in range(1, MAX_LEVEL + 1)]
    assert all(low < high for low, high in pairwise(sizes))


@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_are_distinct_and_reproducible(name: str) -> None:
    for level in (1, 5):
        questions = [task.question for task in tasks(name, level, 120)]
        assert len(set(questions)) >= 0.93 * len(questions)
        assert questions[7:9] == [task.question for task in tasks(name, level, 9)[7:]]
        assert len(set(questions) & {task.question for task in tasks(name, level, 100, seed=1)}) < 20


@pytest.mark.parametrize("name", FAMILIES)
def test_questions_are_prose(name: str) -> None:
    for level in (1, 3, 10):
        for task in tasks(name, level, 5):
            assert task.question[0].isupper() or task.question[0].isdigit()
            assert task.question.isprintable() or "\n" in task.question
            assert not re.search(r"\{|\}\}|  |\bNone,|  $", task.question.replace("= {", "")), task.question
            assert re.search(r"(Answer|answer|Give|State|Return)", task.question)


def neighbors(reference: str, chance: random.Random) -> set[str]:
    """Wrong answers near a right one."""
    wrong = set()
    if re.fullmatch(r"-?\d+", reference):
        wrong |= {str(int(reference) + 1), str(int(reference) - 1), str(int(reference) * 10)}
        wrong |= {str(-int(reference))} if int(reference) else set()
        wrong |= {reference[::-1]} if int(reference[::-1].strip("-") or 0) != abs(int(reference)) else set()
    elif match := re.fullmatch(r"(\d+)/(\d+)", reference):
        wrong |= {f"{int(match[1]) + 1}/{match[2]}", f"{match[1]}/{int(match[2]) + 1}", f"{match[2]}/{match[1]}"}
    elif reference.startswith("["):
        items = reference[1:-1].split(", ")
        if len(set(items)) > 1:
            place = next(at for at in range(len(items) - 1) if items[at] != items[at + 1])
            swapped = [*items[:place], items[place + 1], items[place], *items[place + 2 :]]
            wrong |= {f"[{', '.join(swapped)}]", ", ".join(swapped)}
        wrong |= {f"[{', '.join(items[1:])}]" if len(items) > 1 else "[]", f"[{', '.join([*items, items[0]])}]"}
    else:
        letters = list(reference)
        places = [
            at for at in range(len(letters) - 1) if letters[at] != letters[at + 1] and letters[at : at + 2] != [" "]
        ]
        at = chance.choice(places)
        letters[at], letters[at + 1] = letters[at + 1], letters[at]
        wrong |= {"".join(letters), reference[:-1], f"{reference} {reference}"}
    return {text for text in wrong if text and text.strip("0") != reference.strip("0")} - {reference}


@pytest.mark.parametrize("is_math", [True, False])
def test_the_stage_answer_tells_right_from_wrong(is_math: bool) -> None:
    chance, rows = random.Random(0), []
    for name in FORMS if is_math else ANSWERS:
        right = tasks(name, 2, 1, seed=5)[0].reference
        forms = (right, f"\\boxed{{{right}}}", f"So we get it.\nAnswer: {right}", f"The answer is **{right}**.")
        rows += [(name, form, right, True) for form in forms]
        rows += [(name, f"Answer: {wrong}", right, False) for wrong in neighbors(right, chance)]
    batch = pa.record_batch(
        {
            "answer": [row[1] for row in rows],
            "reference": [row[2] for row in rows],
            "reject": pa.nulls(len(rows), pa.string()),
        }
    )
    stage = Answer(build(AnswerSpec, {"math": is_math}, "stages[0]"))
    stage.open()
    try:
        verdicts = stage.find(batch).columns["answer_verdict"].to_pylist()
    finally:
        stage.close()
    faults = [(row, verdict) for row, verdict in zip(rows, verdicts) if (verdict == "right") != row[3]]
    assert not faults
    assert sum(not row[3] for row in rows) > 25


@pytest.mark.parametrize("name", ANSWERS)
def test_references_have_forms_that_algebra_does_not_misread(name: str) -> None:
    """Lists in brackets of different entries; texts with four letters in a row, which are no products; short texts."""
    for level in (1, 4, 10):
        for task in tasks(name, level, 20 if name == "latin_square" else 60, seed=9):
            reference, items = task.reference, task.reference.strip("[]").split(", ")
            is_number = all(re.fullmatch(r"-?\d+(/\d+)?", item) for item in items)
            assert is_number or re.search("[a-zA-Z]{4}", reference) or " May " in reference
            assert len(items) == 1 or (reference[0] + reference[-1] == "[]" and len(set(items)) > 1)
            assert len(reference) <= 500


def executed(rows: list[tuple[str, str]]) -> list[str]:
    stage = Execute(build(ExecuteSpec, {"tests": "tests", "workers": 2}, "stages[0]"))
    schema = pa.schema([("text", pa.string()), ("tests", pa.string()), ("reject", pa.string())])
    batch = pa.RecordBatch.from_pylist([{"text": c, "tests": t, "reject": None} for c, t in rows], schema)
    stage.open()
    try:
        return [str(verdict) for verdict in stage.run(batch).column("execute_verdict").to_pylist()]
    finally:
        stage.close()


@pytest.mark.parametrize("name", PROGRAMS)
def test_tests_assign_no_name_of_a_program(name: str) -> None:
    """A test that assigns the name of the function, or a word of the question, breaks the calls after it."""
    functions = set()
    for task in tasks(name, 2, 150):
        functions |= {n.name for n in ast.walk(ast.parse(task.reference)) if isinstance(n, ast.FunctionDef)}
        lines = [line for line in ast.parse(task.tests).body if isinstance(line, ast.Assign)]
        variables = {target.id for line in lines for target in line.targets if isinstance(target, ast.Name)}
        assert not variables & set(re.findall(r"[A-Za-z_]+", f"{task.question} {task.reference}"))
        exec(f"{task.reference}\n{task.tests}", {})
    assert len(functions) >= 5


def test_programs_pass_their_tests_and_others_fail() -> None:
    """Of `order_programs` any valid order passes."""
    programs = [task for name in PROGRAMS for level in (1, 4, 10) for task in tasks(name, level, 2)]
    wrong = [re.sub(r"return (values|order)$", r"return \1[1:]", task.reference, flags=re.M) for task in programs]
    other = tasks("order_programs", 3, 1)[0]
    code = other.reference.replace("for task in rest if", "for task in sorted(rest, reverse=True) if").replace(
        "order += free\n        rest -= set(free)", "order.append(free[0])\n        rest.remove(free[0])"
    )
    assert code != other.reference
    right = [*((f"```python\n{task.reference}```", task.tests) for task in programs), (code, other.tests)]
    verdicts = executed([*right, *((text, task.tests) for text, task in zip(wrong, programs))])
    assert verdicts[: len(right)] == ["passed"] * len(right)
    assert "passed" not in verdicts[len(right) :]
