"""Magpie (Xu et al. 2024, arXiv 2406.08464): the model writes instructions without a prompt, as the user's turn.

An aligned model that gets its chat template up to the start of the user's message writes such a message, like those in
its training. A second call answers it. Without a prompt, all variety comes from the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.errors import AskRefused
from gristmill.engines.user_turn import USER_TURN
from gristmill.generators.text.answers import full_text
from gristmill.generators.text.contract import Ask, Session
from gristmill.generators.text.steps import Steps, StepsSpec
from gristmill.records.templates import template_texts


def _warm() -> dict[str, dict[str, Any]]:
    return {"instruction": {"temperature": 1.0, "top_p": 1.0}}


@dataclass(frozen=True)
class MagpieSpec(StepsSpec):
    """Settings of `magpie`, which needs a model with a chat template.

    Calls: `instruction`, which has no template, and `output` ({instruction}, and columns of the source). Columns in
    `system` steer the instructions; without them, asks differ by their seeds alone.
    """

    TEMPLATES = {"instruction": "", **template_texts(__file__, "magpie", "output")}
    HOLES = {"output": ("instruction",)}

    # sampling settings of a call, by its name; `instruction` defaults to temperature 1 and top_p 1
    sampling: dict[str, dict[str, Any]] = field(default_factory=_warm)
    min_words: int = 3  # words of an instruction below which it is refused as "short"

    def __post_init__(self) -> None:
        if "instruction" in self.templates:
            raise ValueError("templates.instruction: this call has no prompt but the model's own; there is `system`")
        if self.min_words < 1:
            raise ValueError("min_words must be at least 1")
        object.__setattr__(self, "sampling", {**_warm(), **self.sampling})
        super().__post_init__()


class Magpie(Steps):
    """Keeps the `instruction` and the `output`; `text` is both."""

    kind = "magpie"
    revision = 1
    Spec = MagpieSpec
    writes_user = True
    method_holes: ClassVar[frozenset[str]] = frozenset({"instruction"})
    spec: MagpieSpec

    @property
    def payload(self) -> list[pa.Field]:
        return [pa.field(name, pa.string()) for name in ("instruction", "output", "text")]

    def kept_texts(self, ask: Ask, payload: Mapping[str, Any]) -> list[str]:
        return [payload["instruction"], payload["output"]]

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        system = self._system.render(ask.fields)
        opening = [*([{"role": "system", "content": system}] if system else []), USER_TURN]
        reply = await session.chat(opening, turn="instruction", **self.spec.sampling.get("instruction", {}))
        instruction = full_text(reply, "instruction")
        if len(instruction.split()) < self.spec.min_words:
            raise AskRefused("short", instruction)
        output = full_text(await self.say(session, "output", {**ask.fields, "instruction": instruction}), "output")
        return {"instruction": instruction, "output": output, "text": f"{instruction}\n\n{output}"}
