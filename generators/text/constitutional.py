"""Critique and revision after Constitutional AI (Bai et al. 2022, arXiv 2212.08073, section 3), the supervised phase.

A model answers a prompt that invites harm. In each round it criticises its answer by a principle drawn from a
constitution and rewrites it. Train on the last revision; with the first answer it forms a preference pair.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.errors import AskRefused
from gristmill.generators.text.answers import full_text
from gristmill.generators.text.contract import Ask, Session, Template
from gristmill.generators.text.principles import PrincipledSteps, draw
from gristmill.generators.text.prompts import render
from gristmill.generators.text.steps import StepsSpec
from gristmill.records.errors import UserError
from gristmill.records.templates import template_texts
from gristmill.records.words import text_key


@dataclass(frozen=True)
class ConstitutionalSpec(StepsSpec):
    """Settings of `constitutional`.

    Calls: `initial` ({prompt}); `critique` ({prompt}, {response}, {critique_request}); `revision` ({prompt},
    {response}, {critique}, {revision_request}). Templates may also hold columns of the source.
    """

    TEMPLATES = template_texts(__file__, "constitutional", "initial", "critique", "revision")
    HOLES = {
        "initial": ("prompt",),
        "critique": ("response", "critique_request"),
        "revision": ("response", "revision_request"),
    }

    # path of the constitution (TOML), local or s3://; its content is part of the identity
    file: str = "package:principles/constitution"
    prompt: str = "{text}"  # template of source columns that is the user's message
    only: tuple[str, ...] = ()  # ids of the principles to use; default: all
    rounds: int = 1  # critiques and revisions in a row, each by another principle

    def __post_init__(self) -> None:
        Template(self.prompt)
        if self.rounds < 1:
            raise ValueError("rounds must be at least 1")
        super().__post_init__()


class Constitutional(PrincipledSteps):
    """1 + 2 * rounds calls. `initial` and `rejected` are the first answer, `chosen` and `text` the last revision."""

    kind = "constitutional"
    revision = 2  # 2: copies by the normal form of every script
    Spec = ConstitutionalSpec
    method_holes: ClassVar[frozenset[str]] = frozenset(
        {"prompt", "response", "critique", "critique_request", "revision_request"}
    )
    spec: ConstitutionalSpec

    def __init__(self, spec: ConstitutionalSpec) -> None:
        super().__init__(spec)
        if len(self._principles) < spec.rounds:
            raise UserError(
                f"method: {spec.rounds} rounds need as many principles, and there are {len(self._principles)}"
            )

    @property
    def payload(self) -> list[pa.Field]:
        """`principles`: the ids by which the rounds criticised and revised, in their order."""
        return [
            pa.field("prompt", pa.string()),
            pa.field("initial", pa.string()),
            pa.field("principles", pa.list_(pa.string())),
            pa.field("chosen", pa.string()),
            pa.field("rejected", pa.string()),
            pa.field("text", pa.string()),
        ]

    def ways(self) -> list[dict[str, int]]:
        return [{"initial": 1, "critique": self.spec.rounds, "revision": self.spec.rounds}]

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        prompt = render(self._prompt, ask.fields)
        fields = {**ask.fields, "prompt": prompt}
        initial = full_text(await self.say(session, "initial", fields), "initial")
        principles = draw(self._principles, self.spec.rounds, ask.seed)
        response = initial
        for principle in principles:
            fields |= {
                "response": response,
                "critique_request": principle.critique,
                "revision_request": principle.revision,
            }
            fields["critique"] = full_text(await self.say(session, "critique", fields), "critique")
            response = full_text(await self.say(session, "revision", fields), "revision")
        if text_key(response) == text_key(initial):
            raise AskRefused("unchanged")
        return {
            "prompt": prompt,
            "initial": initial,
            "principles": [principle.id for principle in principles],
            "chosen": response,
            "rejected": initial,
            "text": response,
        }
