"""Programs with tests: a problem after a seed, its solution, and asserts that the stage `execute` runs.

After OSS-Instruct (Wei et al. 2023, arXiv 2312.02120), where a snippet of real code inspires each problem, and the
exercises of Phi (Gunasekar et al. 2023, arXiv 2306.11644). If the source has problems or tests, as HumanEval has, the
model writes only the rest.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.contract import Reply
from gristmill.engines.errors import AskRefused
from gristmill.generators.text.answers import full_text
from gristmill.generators.text.contract import Ask, Session, Template, mix
from gristmill.generators.text.programs import asserts_of, program_of
from gristmill.generators.text.prompts import column, render
from gristmill.generators.text.steps import Steps, StepsSpec, object_of, read_object
from gristmill.records.spec import later
from gristmill.records.templates import template_texts


@dataclass(frozen=True)
class CodeSpec(StepsSpec):
    """Settings of `code`.

    Calls: `problem` ({seed}), `solution` ({problem}), `tests` ({problem}, {code}); or `all` ({seed}). Templates may
    also hold columns of the source.
    """

    TEMPLATES = template_texts(__file__, "code", "problem", "solution", "tests", "all")
    HOLES = {"problem": ("seed",), "solution": ("problem",), "tests": ("code",), "all": ("seed",)}

    seed: str = "text"  # source column with the snippet or topic that inspires a problem
    # template of source columns that is the problem, e.g. "{prompt}"; default: the model writes it
    given_problem: str = ""
    given_tests: str = ""  # template of source columns that is the tests, e.g. "{test}"; default: the model writes them
    prelude: str = ""  # template that is put before the program, for imports and helpers
    structured: bool = False  # write problem, solution and tests in a single call, as JSON
    # solutions of each problem; from 2 on, the column `codes` has all of them, for the key `samples` of `execute`
    samples: int = later(1)

    def __post_init__(self) -> None:
        column(self.seed)
        for text in (self.given_problem, self.given_tests, self.prelude):
            Template(text)
        if self.structured and (self.given_problem or self.given_tests):
            raise ValueError(
                "structured writes problem, solution and tests in one call; remove given_..., or structured"
            )
        if self.samples < 1:
            raise ValueError("samples must be at least 1")
        if self.structured and self.samples > 1:
            raise ValueError(
                "structured writes one solution, in the call of its problem; remove structured, or samples"
            )
        super().__post_init__()

    @property
    def call_names(self) -> list[str]:
        if self.structured:
            return ["all"]
        problem, tests = [] if self.given_problem else ["problem"], [] if self.given_tests else ["tests"]
        return [*problem, "solution", *tests]


EXAMPLE = re.compile(r"\btimes_(\d+)")  # the name of an example's function


class Code(Steps):
    """Three calls (fewer when problem or tests are given), `samples` of them solutions, or a structured call."""

    kind = "code"
    revision = 1
    Spec = CodeSpec
    method_holes: ClassVar[frozenset[str]] = frozenset({"seed", "problem", "code"})
    spec: CodeSpec

    def __init__(self, spec: CodeSpec) -> None:
        super().__init__(spec)
        self._seed = column(spec.seed)
        self._problem, self._tests = Template(spec.given_problem), Template(spec.given_tests)
        self._prelude = Template(spec.prelude)

    @property
    def payload(self) -> list[pa.Field]:
        """`codes` has one entry for each sample, null for one that is empty or cut off; `code` is the first."""
        codes = [pa.field("codes", pa.list_(pa.string()))] if self.spec.samples > 1 else []
        return [*(pa.field(name, pa.string()) for name in ("instruction", "code", "tests", "text")), *codes]

    def fields_read(self) -> list[str]:
        seed = [] if self.spec.given_problem else [self._seed]
        return self.columns_of(*seed, self._problem, self._tests, self._prelude)

    def ways(self) -> list[dict[str, int]]:
        counts = dict.fromkeys(self.spec.call_names, 1)
        return [{**counts, **({"solution": self.spec.samples} if "solution" in counts else {})}]

    def example_reply(self, prompt: str, seed: int) -> str | None:
        """A problem, its solution and its tests at once, about the number in the prompt if it holds a problem."""
        number = match[1] if (match := EXAMPLE.search(prompt)) else str(mix(seed, 0) % 10**6)
        name = f"times_{number}"
        return (
            f"Write a function {name} that multiplies a number by {number}.\n\n```python\ndef {name}(value):\n"
            f"    return {number} * value\n\n\nassert {name}(0) == 0\nassert {name}(2) == {2 * int(number)}\n```"
        )

    def kept_texts(self, ask: Ask, payload: Mapping[str, Any]) -> list[str]:
        texts = [] if self.spec.given_problem else [payload["instruction"]]
        texts.append(payload["code"].removeprefix(self._prelude.render(ask.fields)))
        return texts if self.spec.given_tests else [*texts, payload["tests"]]

    def answer(self, ask: Ask, payload: Mapping[str, Any]) -> str:
        return str(payload["code"]).removeprefix(self._prelude.render(ask.fields))

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        prelude = self._prelude.render(ask.fields)
        prelude += "\n" if prelude and not prelude.endswith("\n") else ""
        if self.spec.structured:
            problem, codes, tests = await self._at_once(ask, session, prelude)
        else:
            problem, codes, tests = await self._in_steps(ask, session, prelude)
        code = _first(codes)
        text = f"{problem}\n\n```python\n{code}\n```"
        samples = {"codes": codes} if self.spec.samples > 1 else {}
        return {"instruction": problem, "code": code, "tests": tests, "text": text, **samples}

    async def _in_steps(self, ask: Ask, session: Session, prelude: str) -> tuple[str, list[str | None], str]:
        given_tests = render(self._tests, ask.fields) if self.spec.given_tests else ""
        if self.spec.given_problem:
            fields = {**ask.fields, "problem": render(self._problem, ask.fields)}
        else:
            fields = {**ask.fields, "seed": render(self._seed, ask.fields)}
            fields["problem"] = full_text(await self.say(session, "problem", fields), "problem")
        codes = _programs(await self.say_all(session, "solution", [fields] * self.spec.samples), prelude)
        if self.spec.given_tests:
            return fields["problem"], codes, given_tests
        code = _first(codes)
        reply = await self.say(session, "tests", {**fields, "code": code})
        return fields["problem"], codes, asserts_of(reply, code)

    async def _at_once(self, ask: Ask, session: Session, prelude: str) -> tuple[str, list[str | None], str]:
        reply_schema = object_of(
            **{name: {"type": "string", "minLength": 1} for name in ("problem", "solution", "tests")}
        )
        reply = await self.say(session, "all", {**ask.fields, "seed": render(self._seed, ask.fields)}, reply_schema)
        answer = read_object(reply, "all", problem=str, solution=str, tests=str)
        if not answer["problem"].strip():
            raise AskRefused("empty_problem")
        code = prelude + program_of(Reply(answer["solution"]))
        tests = answer["tests"] if "```" in answer["tests"] else f"```\n{answer['tests']}\n```"
        return answer["problem"].strip(), [code], asserts_of(Reply(tests), code)


def _programs(replies: list[Reply], prelude: str) -> list[str | None]:
    """The program in each answer, None where there is none. Raises AskRefused of the first if none has one."""
    codes: list[str | None] = []
    refusals = []
    for reply in replies:
        try:
            codes.append(prelude + program_of(reply))
        except AskRefused as refused:
            codes.append(None)
            refusals.append(refused)
    if len(refusals) == len(codes):
        raise refusals[0]
    return codes


def _first(codes: list[str | None]) -> str:
    return next(code for code in codes if code is not None)
