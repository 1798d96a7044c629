"""An engine that says what a test has written for it, and methods run on it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from generators.text.contract import Ask, Method, Session
from generators.text.registry import method_class
from records.spec import build
from stages.engine import AskRefused, Reply


class Scripted:
    """Answers call n with answer n (the last one again, when there are no more) and remembers what it was asked.

    An answer is a text, a Reply, or an exception to raise.
    """

    synchronous = True

    def __init__(self, answers: Sequence[Any]) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []
        self.sampling: list[dict[str, Any]] = []
        self.schemas: list[Any] = []
        self.seeds: list[int] = []

    async def chat(
        self, prompt: Any, sampling: Mapping[str, Any], seed: int, json_schema: Mapping[str, Any] | None = None
    ) -> Reply:
        answer = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append(prompt)
        self.sampling.append(dict(sampling))
        self.schemas.append(json_schema)
        self.seeds.append(seed)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Reply) else Reply(answer, "stop", 10, 5)


def cut_off(text: str = "a text that has no end because") -> Reply:
    return Reply(text, "length", 10, 5)


def method_of(kind: str, table: Mapping[str, Any]) -> Method:
    made = method_class(kind)
    return made(build(made.Spec, table, "method"))


def told(
    kind: str, table: Mapping[str, Any], fields: Mapping[str, Any], answers: Sequence[Any], seed: int = 7
) -> tuple[dict[str, Any] | str, Scripted, Session]:
    """What the method made of the answers: its payload, or the reason of its refusal."""
    method, engine = method_of(kind, table), Scripted(answers)
    session = Session(engine, seed, {"temperature": 0.5})
    try:
        payload = asyncio.run(method.run(Ask("a" * 32, seed, fields), session))
    except AskRefused as refused:
        return refused.reason, engine, session
    assert set(payload) == {f.name for f in method.payload}
    return payload, engine, session
