"""An engine that says what a script tells it to, and methods run on it."""

import asyncio
import json
import re
from functools import lru_cache
from typing import Any

import pyarrow as pa

from gristmill.engines.contract import FREE_TEXT, AnswerForm, ChatEngine, Reply
from gristmill.engines.errors import AskRefused
from gristmill.generators.text.contract import Ask, Session, Template, mix
from gristmill.generators.text.generator import TextGenerator
from gristmill.generators.text.registry import method_class
from gristmill.records.ids import lot_seeds, row_id
from gristmill.records.schema import ask_schema
from gristmill.records.spec import build

Says = dict[str, Any] | list[Any]


class Script:
    """Answers a call of the name "critique", a call of "deepen|breadth", or a prompt that matches a pattern, with its
    answers, one after another and again from the first, or one by the seed; the first key that fits wins. Where the
    script is a list, call n is answered with answer n, and the last one again when there are no more.

    An answer is a text, a value (said as JSON), or a Reply; AskRefused is raised. What was asked is remembered.
    """

    def __init__(self, script: Says, by_seed: bool = False, method: Any = None) -> None:
        self.calls = calls_of(method)
        self.answers = script if isinstance(script, list) else None
        by_pattern = {} if isinstance(script, list) else script
        self.script = {pattern: said if isinstance(said, list) else [said] for pattern, said in by_pattern.items()}
        self.said = dict.fromkeys(self.script, 0)
        self.by_seed = by_seed
        self.synchronous = not by_seed
        self.asked: list[Any] = []
        self.sampling: list[dict[str, Any]] = []
        self.schemas: list[Any] = []
        self.seeds: list[int] = []
        self.tools: list[Any] = []

    async def chat(self, prompt: Any, sampling: Any, seed: int, form: AnswerForm = FREE_TEXT) -> Reply:
        self.asked.append(prompt)
        self.sampling.append(dict(sampling))
        self.schemas.append(form.json_schema)
        self.tools.append(form.tools)
        self.seeds.append(seed)
        if self.by_seed:
            await asyncio.sleep(mix(seed, 3) % 5 * 0.001)  # answers come in any order
        answer = self._answer(prompt, seed)
        if isinstance(answer, AskRefused):
            raise answer
        if isinstance(answer, Reply):
            return answer
        return Reply(answer if isinstance(answer, str) else json.dumps(answer), "stop", 10, 5)

    def _answer(self, prompt: Any, seed: int) -> Any:
        if self.answers is not None:
            return self.answers[min(len(self.asked), len(self.answers)) - 1]
        asked = prompt if isinstance(prompt, str) else "\n".join(m["content"] for m in prompt)
        call = next((name for name, prompt in self.calls.items() if prompt.search(asked)), "")
        for pattern, answers in self.script.items():
            names = pattern.split("|")
            if call in names if self.calls.keys() & names else re.search(pattern, asked, re.DOTALL):
                at = mix(seed, 1) if self.by_seed else self.said[pattern]
                self.said[pattern] += 1
                return answers[at % len(answers)]
        raise AssertionError(f"the script has no answer to: {asked}")


def calls_of(method: Any) -> dict[str, re.Pattern[str]]:
    """What the prompt of each call of a method looks like, by the words of its template; the wordiest first."""
    prompts = {}
    for name, text in getattr(getattr(method, "spec", None), "wording", {}).items():
        if text:  # some calls have messages in place of a template
            words = Template(text).render(dict.fromkeys(Template(text).names, "\0"))
            prompts[name] = words
    wordiest = sorted(prompts, key=lambda name: -len(prompts[name].replace("\0", "")))
    return {name: re.compile(re.escape(prompts[name]).replace("\0", ".*") + r"\Z", re.DOTALL) for name in wordiest}


def mark(template: str) -> str:
    """Words by which a prompt of this template can be told: its longest piece without a hole."""
    return max(re.split(r"\{[^{}]*\}", template), key=len).strip()


def cut_off(text: str = "a text that has no end because") -> Reply:
    return Reply(text, "length", 10, 5)


def method_of(kind: str, table: dict[str, Any]) -> Any:
    made = method_class(kind)
    return made(build(made.Spec, table, "method"))


@lru_cache(4)
def open_method(kind: str, table: str) -> Any:
    """A method, open for several tests: a sandbox takes a while to start."""
    method = method_of(kind, json.loads(table))
    method.open()
    return method


def told(kind: str, table: dict[str, Any], fields: dict[str, Any], script: Says, seed: int = 7) -> Any:
    """(payload, engine, session) of one ask; in place of the payload the reason, where the ask is refused."""
    method = open_method(kind, json.dumps(table))
    engine = Script(script, method=method)
    session = Session(engine, seed, {"temperature": 0.5})
    try:
        payload = asyncio.run(method.run(Ask("a" * 32, seed, fields), session))
    except AskRefused as refused:
        return refused.reason, engine, session
    assert set(payload) == {f.name for f in method.payload}
    return payload, engine, session


def refusal(kind: str, table: dict[str, Any], fields: dict[str, Any], script: Says, seed: int = 7) -> str:
    """The reason for which one ask is refused; "" when it is not."""
    found = told(kind, table, fields, script, seed)[0]
    return found if isinstance(found, str) else ""


class OnScript(TextGenerator):
    """A generator of rows from a script whose answers are drawn by the seed of the call."""

    kind = "scripted"

    def __init__(self, kind: str, table: dict[str, Any], script: dict[str, Any], max_in_flight: int = 256) -> None:
        super().__init__(None, method_of(kind, table), max_in_flight)
        self.script = script

    def open_engine(self) -> ChatEngine:
        return Script(self.script, by_seed=True, method=self.program)


def asks(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    mark = "0" * 32
    seeds = lot_seeds(mark, 0, 0, len(rows))
    table = [
        {
            **{"id": row_id(mark, 0, 0, i), "lot": 0, "row": i, "seed": int(seeds[i]), "origin": "synthetic"},
            **{"generation": 0, "generator": "scripted", "recipe": "r", "ask": json.dumps(row)},
        }
        for i, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(table, schema=ask_schema()).combine_chunks().to_batches()[0]


def made(kind: str, table: dict[str, Any], rows: list[dict[str, Any]], script: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that a method makes, checked to come out the same again in other batches and at other widths."""
    generator = OnScript(kind, table, script)
    generator.open()
    batch = asks(rows)
    whole = asyncio.run(generator.make(batch))
    whole.validate(full=True)
    narrow = OnScript(kind, table, script, max_in_flight=2)
    narrow.open()
    assert asyncio.run(narrow.make(batch)).equals(whole)
    parts = [asyncio.run(generator.make(batch.slice(at, 3))) for at in range(0, len(rows), 3)]
    assert pa.Table.from_batches(parts).equals(pa.Table.from_batches([whole]))
    done: list[dict[str, Any]] = whole.to_pylist()
    for row in done:
        assert row["reject"] is not None or row["text"], "a row that is alive has a text"
        assert row["turns"] and row["tokens_out"] == sum(turn["tokens_out"] for turn in row["turns"])
    return done
