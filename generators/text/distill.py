"""Distillation: prompts in, the teacher's answers out, as instruction data.

Sequence-level distillation (Kim and Rush 2016, section 3.2) trains a student on what its teacher writes. The prompts
are the source's own: take them from the use that the student is for.
"""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gristmill.generators.text.answers import only_text
from gristmill.generators.text.contract import Ask, Method, Session, Template, conversation
from gristmill.generators.text.prompts import column, columns_of, render


@dataclass(frozen=True)
class DistillSpec:
    """Settings of `distill`, which makes one call a row."""

    template: str = "{text}"  # instruction; `{column}` stands for a column of the source
    input: str = ""  # source column sent after the instruction and kept in the column `input`; empty: none
    system: str = ""  # system message of the teacher, which the row does not keep

    def __post_init__(self) -> None:
        Template(self.template)
        Template(self.system)
        if self.input:
            column(self.input)


class Distill(Method):
    """Keeps the instruction, its input and the teacher's answer; `text` is all of them."""

    kind = "distill"
    revision = 1
    Spec = DistillSpec

    def __init__(self, spec: DistillSpec) -> None:
        super().__init__(spec)
        self._template = Template(spec.template)
        self._system = Template(spec.system)
        self._input = column(spec.input) if spec.input else None

    @property
    def payload(self) -> list[pa.Field]:
        names = ["instruction", *(["input"] if self._input else []), "output", "text"]
        return [pa.field(name, pa.string()) for name in names]

    def fields_read(self) -> list[str]:
        return columns_of([self._template, self._system, *([self._input] if self._input else [])], ())

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        instruction_fields = {"instruction": render(self._template, ask.fields)}
        if self._input:
            instruction_fields["input"] = self._input.render(ask.fields)
        prompt = "\n\n".join(part for part in instruction_fields.values() if part)
        output = only_text(await session.chat(conversation(self._system.render(ask.fields), prompt)))
        return {**instruction_fields, "output": output, "text": f"{prompt}\n\n{output}"}
