"""Magpie (Xu et al. 2024, arXiv 2406.08464): instructions out of nothing, by letting the model write the user's turn.

An aligned model that is shown its chat template up to where the user's message begins writes one, as it has seen them
in its training; a second call answers it. There is no prompt, so there is nothing to be copied from but the model.
"""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from generators.text.answers import said, whole
from generators.text.contract import Ask, Method, Session, Template, conversation
from generators.text.prompts import columns_of
from records.spec import nearest
from stages.engine import AskRefused
from stages.served import SAMPLING
from stages.user_turn import USER_TURN


@dataclass(frozen=True)
class MagpieSpec:
    """Two calls a row: the user's message, then the answer to it. It needs a model with a chat template.

    system: the system message of both calls, with any column of the source as `{column}`; it steers what is asked
    about. Without one, and with an empty source, all asks differ by their seeds alone.
    instruction_sampling: sampling of the first call, over the generator's: warm and wide (the paper: temperature 1.0,
    top_p 1.0), for all the variety is there. min_words: an instruction with fewer is refused as "short".
    """

    system: str = ""
    instruction_sampling: dict[str, Any] = field(default_factory=lambda: {"temperature": 1.0, "top_p": 1.0})
    min_words: int = 3

    def __post_init__(self) -> None:
        Template(self.system)
        for key in self.instruction_sampling:
            if key not in SAMPLING:
                raise ValueError(f"instruction_sampling: unknown key '{key}'{nearest(key, SAMPLING)}")
        if self.min_words < 1:
            raise ValueError("min_words must be at least 1")


class Magpie(Method):
    """Keeps the `instruction` and the `output`; `text` is both."""

    kind = "magpie"
    Spec = MagpieSpec
    keeps_turns = True
    writes_user = True

    def __init__(self, spec: MagpieSpec) -> None:
        super().__init__(spec)
        self._system = Template(spec.system)

    @property
    def payload(self) -> list[pa.Field]:
        return [pa.field(name, pa.string()) for name in ("instruction", "output", "text")]

    def fields_read(self) -> list[str]:
        return columns_of([self._system], ())

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        system = self._system.render(ask.fields)
        begun = [*([{"role": "system", "content": system}] if system else []), USER_TURN]
        asked = await session.chat(begun, turn="instruction", **self.spec.instruction_sampling)
        instruction = whole(asked)
        if len(instruction.split()) < self.spec.min_words:
            raise AskRefused("short", instruction)
        output = said(await session.chat(conversation(system, instruction), turn="output"))
        return {"instruction": instruction, "output": output, "text": f"{instruction}\n\n{output}"}
