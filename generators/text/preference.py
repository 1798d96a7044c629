"""Preferences of a model after Constitutional AI (Bai et al. 2022, arXiv 2212.08073, section 4) and RLAIF.

Several answers to a prompt are judged in pairs by a principle drawn from a constitution. Judges favour positions, so
each pair is judged in both orders (Lee et al. 2023, arXiv 2309.00267, section 2.1.1). Lee et al. average the two; here
only verdicts that agree count.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.contract import Reply
from gristmill.engines.errors import AskRefused
from gristmill.generators.text.contract import Ask, Session, Template
from gristmill.generators.text.principles import PrincipledSteps, draw
from gristmill.generators.text.prompts import render
from gristmill.generators.text.steps import StepsSpec, object_of, read_object
from gristmill.records.templates import template_texts
from gristmill.records.words import text_key


@dataclass(frozen=True)
class PreferenceSpec(StepsSpec):
    """Settings of `preference`.

    Calls: `answer` ({prompt}) and `judge` ({prompt}, {first}, {second}, {principle}), answered in JSON,
    {"better": 1 or 2}. Templates may also hold columns of the source.
    """

    TEMPLATES = template_texts(__file__, "preference", "answer", "judge")
    HOLES = {"answer": ("prompt",), "judge": ("first", "second")}

    # path of the constitution (TOML), local or s3://; its content is part of the identity
    file: str = "package:principles/constitution"
    prompt: str = "{text}"  # template of source columns that is the user's message
    only: tuple[str, ...] = ()  # ids of the principles to use; default: all
    responses: int = 2  # answers to each prompt
    temperatures: tuple[float, ...] = ()  # temperatures of the answers, in turn; default: the generator's
    votes: int = 1  # verdicts on each pair in either order; more than 1 needs a judge that samples

    def __post_init__(self) -> None:
        Template(self.prompt)
        if self.responses < 2:
            raise ValueError("responses must be at least 2: a preference is between two")
        if self.votes < 1:
            raise ValueError("votes must be at least 1")
        if any(t < 0 for t in self.temperatures):
            raise ValueError("temperatures must not be negative")
        super().__post_init__()


class Preference(PrincipledSteps):
    """`responses` calls for the answers, then 2 * votes for each pair of different ones.

    Answers are made at once, then all verdicts are; with `temperatures`, the answers of one temperature after another.
    """

    kind = "preference"
    revision = 2  # 2: copies by the normal form of every script
    Spec = PreferenceSpec
    method_holes: ClassVar[frozenset[str]] = frozenset({"prompt", "first", "second", "principle"})
    spec: PreferenceSpec

    @property
    def payload(self) -> list[pa.Field]:
        """`margin`: how much more of its comparisons the chosen answer won than the rejected one, in (0, 1]."""
        return [
            pa.field("prompt", pa.string()),
            pa.field("chosen", pa.string()),
            pa.field("rejected", pa.string()),
            pa.field("margin", pa.float64()),
            pa.field("principle", pa.string()),
            pa.field("text", pa.string()),
        ]

    def ways(self) -> list[dict[str, int]]:
        num = self.spec.responses
        return [{"answer": num, "judge": num * (num - 1) * self.spec.votes}]

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        prompt = render(self._prompt, ask.fields)
        principle = draw(self._principles, 1, ask.seed)[0]
        fields = {**ask.fields, "prompt": prompt, "principle": principle.judge}
        answers = different(await self._answers(session, fields))
        wins = await self._wins(session, fields, answers)
        best, worst = max(wins), min(wins)
        if best == worst:
            raise AskRefused("tie")
        chosen, rejected = answers[wins.index(best)], answers[wins.index(worst)]
        margin = (best - worst) / ((len(answers) - 1) * self.spec.votes)
        return {
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "margin": margin,
            "principle": principle.id,
            "text": chosen,
        }

    async def _answers(self, session: Session, fields: dict[str, Any]) -> list[Reply]:
        num, warmths = self.spec.responses, self.spec.temperatures
        if not warmths:
            return await self.say_all(session, "answer", [fields] * num)
        replies: list[Reply] = []
        for at, warmth in enumerate(warmths[:num]):
            share = len(range(at, num, len(warmths)))
            replies += await self.say_all(session, "answer", [fields] * share, temperature=warmth)
        return replies

    async def _wins(self, session: Session, fields: dict[str, Any], answers: list[str]) -> list[int]:
        """For each answer, how many verdicts it won: those in which both orders of a pair agree."""
        pairs = [pair for pair in combinations(range(len(answers)), 2) for _ in range(self.spec.votes)]
        orders = [order for one, other in pairs for order in ((one, other), (other, one))]
        asks = [{**fields, "first": answers[one], "second": answers[other]} for one, other in orders]
        replies = await self.say_all(session, "judge", asks, object_of(better={"type": "integer", "enum": [1, 2]}))
        better = [verdict(reply) for reply in replies]
        if not any(better):
            raise AskRefused("cut_judge" if replies[0].finish == "length" else "unreadable_judge")
        winners = [order[place - 1] if place else None for order, place in zip(orders, better)]
        agreements = [one for one, other in zip(winners[::2], winners[1::2]) if one == other]
        return [agreements.count(number) for number in range(len(answers))]


def different(replies: list[Reply]) -> list[str]:
    """The answers that came to their end, each once. Raises AskRefused("cut_answer", "empty_answer" or "equal")."""
    ended = [reply.text.strip() for reply in replies if reply.finish != "length"]
    if len(ended) < 2:
        raise AskRefused("cut_answer")
    texts = [text for text in ended if text]
    if len(texts) < 2:
        raise AskRefused("empty_answer")
    answers: dict[bytes, str] = {}
    for text in texts:
        answers.setdefault(text_key(text), text)
    if len(answers) < 2:
        raise AskRefused("equal")
    return list(answers.values())


def verdict(reply: Reply) -> int | None:
    """Which place a judge prefers, 1 or 2; None where its answer cannot be read."""
    try:
        better = read_object(reply, "judge", better=int)["better"]
    except AskRefused:
        return None
    return better if better in (1, 2) else None
