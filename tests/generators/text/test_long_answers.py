"""Every text method takes time linear in an answer and in its source row, and no answer ends a run."""

import asyncio
import json
from typing import Any

import pytest

from gristmill.generators.text.registry import KINDS
from tests.generators.text.script import OnScript, Script, asks, method_of, told
from tests.generators.text.test_every_method import FIELDS, TABLES
from tests.long_texts import GENERAL, LONG, SHORT, Attack, Sizes, slowness

FIELD = "why the tides come twice a day, and how it is known"
# What comes before an answer in calls that answer in JSON or code, so that the text reaches what reads it.
OPENINGS = ("", '{"', '{"label": "a", "rationale": "', "```python\n")
# Beginnings after which a method reads its later calls too: answers of its first calls.
FIRST_ANSWERS: dict[str, list[list[str]]] = {
    "code": [["Write a function f.", "```python\ndef f(n):\n    return n\n```"]],
    "self_instruct": [["Name the seas of the north.", '{"classification": false}']],
    "evol_instruct": [["Name the seas of the north and of the south.", '{"same": false}']],
    "exercise": [["Name all the seas of the north."]],
    "magpie": [["Which seas are there in the north?"]],
    "backtranslate": [["Which seas are there in the north?"]],
    "preference": [["one", "two"]],
}


def answer_with(kind: str, text: str) -> None:
    for first in ([], *FIRST_ANSWERS.get(kind, ())):
        for opening in OPENINGS:
            told_or_refused(kind, dict.fromkeys(FIELDS, FIELD), [*first, opening + text])


def read_from(kind: str, text: str) -> None:
    told_or_refused(kind, dict.fromkeys(FIELDS, text), ["A short answer about the tides."])


def told_or_refused(kind: str, fields: dict[str, Any], script: list[str]) -> None:
    told(kind, TABLES.get(kind, {}), fields, script)


def fault_of(kind: str, attacks: tuple[Attack, ...], sizes: Sizes) -> str | None:
    ways = (lambda text: answer_with(kind, text), lambda text: read_from(kind, text))
    limit = 10.0 * len(OPENINGS) * 2
    faults = (slowness(way, attack, sizes, limit) for way in ways for attack in attacks)
    return next((fault for fault in faults if fault), None)


@pytest.mark.parametrize("kind", KINDS)
def test_time_grows_with_the_text_alone(kind: str) -> None:
    answer_with(kind, "imports are made before")
    openings = [attack for attack in GENERAL if attack.head]
    runs = [attack for attack in GENERAL if not attack.head]
    assert fault_of(kind, (*openings, *runs[len(kind) % 4 :: 4]), SHORT) is None


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_a_megabyte_of_anything_takes_seconds(kind: str) -> None:
    answer_with(kind, "imports are made before")
    assert fault_of(kind, GENERAL, LONG) is None


NESTED = [
    *(opening * depth for opening in ("[", '{"a":', "(", "-", "not ", "\\frac{") for depth in (900, 5_000)),
    *('{"label": ' + "[" * depth + "]" * depth + "}" for depth in (300, 480, 900, 980)),
    *(
        "```python\nassert f" + end * depth + "\n```"
        for end in (".a", "+1", "(1)", "[0]")
        for depth in (250, 900, 5_000)
    ),
    "```python\nassert " + "(" * 150 + "f" + ")" * 150 + "\n```",
]


@pytest.mark.parametrize("kind", KINDS)
def test_deep_nesting_refuses_the_row(kind: str) -> None:
    generator = OnScript(kind, TABLES.get(kind, {}), {})
    fields = dict.fromkeys(FIELDS, FIELD)
    deep = {name: json.loads("[" * 900 + "]" * 900) for name in FIELDS}
    firsts = [[], *FIRST_ANSWERS.get(kind, ())]
    for row, text in [*((fields, text) for text in NESTED), (deep, "An answer.")]:
        for first in firsts:
            generator._engine = Script([*first, text])
            [made] = asyncio.run(generator.make(asks([row]))).to_pylist()
            assert made["reject"] is None or made["reject"].startswith("generator:")


def test_values_nested_too_deeply_are_a_reason() -> None:
    class Deep(type(method_of("prompt", {}))):  # type: ignore[misc]
        async def run(self, ask: Any, session: Any) -> Any:
            await session.chat("x")
            raise RecursionError

    generator = OnScript("prompt", {}, {})
    generator.program, generator._engine = Deep(generator.program.spec), Script(["an answer"])
    [row] = asyncio.run(generator.make(asks([{"text": "a"}]))).to_pylist()
    assert row["reject"] == "generator:nested_too_deeply" and row["tokens_out"] == 5
