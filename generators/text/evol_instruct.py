"""Instructions that evolve, after WizardLM's Evol-Instruct (Xu et al. 2023, arXiv 2304.12244, section 3).

An ask is one step: the instruction is made harder in one of five ways (in depth), or another one is made in its domain
(in breadth); failed evolutions are eliminated; then the evolved instruction is answered. With [rounds], what one round
kept is evolved again by the next: rounds are generations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.errors import AskRefused
from gristmill.generators.text.answers import full_text
from gristmill.generators.text.contract import Ask, Session, mix
from gristmill.generators.text.steps import Steps, StepsSpec, object_of, read_object
from gristmill.records.spec import nearest
from gristmill.records.templates import template_texts
from gristmill.records.words import text_key, words

OPERATIONS = template_texts(
    __file__, "evol_instruct", "constraints", "deepen", "concretise", "reasoning", "complicate", "breadth"
)
# Phrases of the templates, labels that models make of them, and the marks of the paper's prompts. Shorter ones, such as
# "new instruction", occur in good instructions.
GIVEAWAYS = (
    *(
        "rewrite the instruction below",
        "into a slightly more demanding version",
        "return only the rewritten instruction",
    ),
    *("use the instruction below as a starting point", "entirely new instruction", "return only the new instruction"),
    *("do not respond to the instruction", "do not respond to either instruction"),
    *("keep everything that the original contains", "a person must be able to understand it and respond to it"),
    *("add at most 20 words, and keep the wording concise", "beyond the data, add at most 20 words"),
    *("rewritten instruction:", "new instruction:", "original instruction:"),
    *("#given prompt#", "#rewritten prompt#", "#created prompt#"),
)
SORRY_WORDS = 80  # section 3.2: an apology below this many words is a response that the model could not give
EMPTY_WORDS = frozenset(
    "a about after all also am an and any are as at be because been but by can could did do does for from had has have "
    "he her here him his how i if in into is it its just me more my no not of on or our out own she should so some "
    "such than that the their them then there these they this those to too up us very was we were what when where "
    "which who why will with would yes you your".split()
)


@dataclass(frozen=True)
class EvolInstructSpec(StepsSpec):
    """Settings of `evol_instruct`. The source has the column `instruction`.

    Calls: one of the operations constraints, deepen, concretise, reasoning, complicate or breadth ({instruction});
    `equal` ({first}, {second}), answered in JSON; `response` ({instruction}).
    """

    TEMPLATES = {**OPERATIONS, **template_texts(__file__, "evol_instruct", "equal", "response")}
    HOLES = {
        **{name: ("instruction",) for name in (*OPERATIONS, "response")},
        "equal": ("first", "second"),
    }

    # relative frequency of each operation; one left out is never drawn
    operations: dict[str, float] = field(default_factory=lambda: dict.fromkeys(OPERATIONS, 1.0))
    # phrases of the templates; an evolved instruction with a new one has copied the prompt and is refused
    giveaways: tuple[str, ...] = GIVEAWAYS
    gain: bool = True  # ask the model whether the evolved instruction differs (call `equal`); small models cannot tell

    def __post_init__(self) -> None:
        for name, weight in self.operations.items():
            if name not in OPERATIONS:
                raise ValueError(f"operations: unknown '{name}'{nearest(name, OPERATIONS)}")
            if weight < 0:
                raise ValueError(f"operations.{name} must not be negative")
        if not sum(self.operations.values()):
            raise ValueError("operations must hold one with a weight above 0")
        super().__post_init__()

    @property
    def call_names(self) -> list[str]:
        operations = [name for name in OPERATIONS if self.operations.get(name)]
        return [*operations, *(["equal"] if self.gain else []), "response"]


class EvolInstruct(Steps):
    """Three calls. `parent` is the instruction that `instruction` came from, `depth` how many steps a seed is away."""

    kind = "evol_instruct"
    revision = 3  # 2: copies by the normal form of every script; 3: whole phrases of the templates as giveaways
    Spec = EvolInstructSpec
    method_holes: ClassVar[frozenset[str]] = frozenset({"instruction", "first", "second"})
    feed = "row"
    feedback_columns = ("instruction", "depth")
    spec: EvolInstructSpec

    @property
    def payload(self) -> list[pa.Field]:
        return [
            pa.field("instruction", pa.string()),
            pa.field("output", pa.string()),
            pa.field("operation", pa.string()),
            pa.field("parent", pa.string()),
            pa.field("depth", pa.int32()),
            pa.field("text", pa.string()),
        ]

    def fields_read(self) -> list[str]:
        return list(dict.fromkeys(["instruction", *self.columns_of()]))

    def ways(self) -> list[dict[str, int]]:
        other_calls = [name for name in self.spec.call_names if name not in OPERATIONS]
        return [dict.fromkeys([name, *other_calls], 1) for name in self.spec.call_names if name in OPERATIONS]

    def kept_texts(self, ask: Ask, payload: Mapping[str, Any]) -> list[str]:
        return [payload["instruction"], payload["output"]]

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        parent = ask.fields.get("instruction")
        if not isinstance(parent, str) or not parent.strip():
            raise AskRefused("missing_field", "instruction")
        operation = draw_operation(self.spec.operations, ask.seed)
        new_instruction = full_text(
            await self.say(session, operation, {**ask.fields, "instruction": parent}), operation
        )
        if copies(new_instruction, parent, self.spec.giveaways):
            raise AskRefused("copied_prompt")
        if self.spec.gain:
            await self._eliminate_equal(session, ask.fields, parent, new_instruction)
        output = full_text(
            await self.say(session, "response", {**ask.fields, "instruction": new_instruction}), "response"
        )
        if fault := response_fault(output):
            raise AskRefused(fault)
        depth = ask.fields.get("depth")
        return {
            "instruction": new_instruction,
            "output": output,
            "operation": operation,
            "parent": parent,
            "depth": (depth if isinstance(depth, int) else 0) + 1,
            "text": f"{new_instruction}\n\n{output}",
        }

    async def _eliminate_equal(
        self, session: Session, fields: Mapping[str, Any], parent: str, new_instruction: str
    ) -> None:
        if text_key(new_instruction) == text_key(parent):
            raise AskRefused("no_gain")
        rewrite = {**fields, "first": parent, "second": new_instruction}
        reply = await self.say(session, "equal", rewrite, object_of(same={"type": "boolean"}))
        if read_object(reply, "equal", same=bool)["same"]:
            raise AskRefused("no_gain")


def draw_operation(weights: Mapping[str, float], seed: int) -> str:
    """An operation, drawn by its weight from the seed."""
    names = [name for name in OPERATIONS if weights.get(name)]
    mass = mix(seed, -2) / 2**63 * sum(weights[name] for name in names)
    for name in names[:-1]:
        mass -= weights[name]
        if mass < 0:
            return name
    return names[-1]


def copies(instruction: str, parent: str, giveaways: tuple[str, ...]) -> bool:
    """Whether phrases of the evolving prompt came along (elimination rule 4), whatever the space between words."""
    low, old = (" ".join(text.casefold().replace("*", "").split()) for text in (instruction, parent))
    return any(phrase in low and phrase not in old for phrase in map(str.casefold, giveaways))


def response_fault(output: str) -> str | None:
    """Elimination rules 2 and 3: "sorry" for a short apology, "stop_words" for nothing but these and punctuation."""
    output_words = words(output)
    if "sorry" in output_words and len(output_words) < SORRY_WORDS:
        return "sorry"
    return "stop_words" if all(word in EMPTY_WORDS for word in output_words) else None
