"""The plain method: one template, one call, one text."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gristmill.generators.text.contract import Ask, Method, Session, Template, conversation
from gristmill.generators.text.prompts import columns_of, render


@dataclass(frozen=True)
class PromptSpec:
    """Settings of `prompt`."""

    template: str = "{text}"  # prompt; `{column}` stands for a column of the source
    system: str = ""  # system message; `{column}` stands for a column of the source

    def __post_init__(self) -> None:
        Template(self.template)
        Template(self.system)


class Prompt(Method):
    """Renders the template from the source row and keeps the answer."""

    kind = "prompt"
    revision = 1
    Spec = PromptSpec

    def __init__(self, spec: PromptSpec) -> None:
        super().__init__(spec)
        self._template = Template(spec.template)
        self._system = Template(spec.system)

    @property
    def payload(self) -> list[pa.Field]:
        return [pa.field("prompt", pa.string()), pa.field("text", pa.string())]

    def fields_read(self) -> list[str]:
        return columns_of([self._template, self._system], ())

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        prompt = render(self._template, ask.fields)
        reply = await session.chat(conversation(self._system.render(ask.fields), prompt))
        return {"prompt": prompt, "text": reply.text.strip()}
