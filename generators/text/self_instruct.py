"""New tasks from a few examples after Self-Instruct (Wang et al. 2022, arXiv 2212.10560).

First a task, after examples; then whether it is one of classification; then its instance, the input first, or, for
classification, the possible labels first and an input for one of them, so that the labels come out even (section 2.2).
With [rounds], kept tasks are examples of later rounds, and the stage `novelty` is the paper's ROUGE-L filter.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.errors import AskRefused
from gristmill.generators.text.answers import full_text
from gristmill.generators.text.contract import Ask, Session, pick
from gristmill.generators.text.steps import Steps, StepsSpec, object_of, read_object
from gristmill.generators.text.task_filters import KEYWORDS, OPENINGS, instance_fault, task_fault, task_of
from gristmill.records.templates import template_texts

MAX_LABELS = 8
Example = Mapping[str, Any]


@dataclass(frozen=True)
class SelfInstructSpec(StepsSpec):
    """Settings of `self_instruct`: the filters of section 2.2 of the paper.

    Calls: `task` ({tasks}, a numbered list); `classify` ({instruction}, {shown}: examples with their answers); then
    `instance` ({instruction}, {shown}), or `labels` ({instruction}) and `input` ({instruction}, {label}). All but
    `task` answer in JSON. The source has the column `instruction`, and may have `input`, `output` and
    `is_classification`.
    """

    TEMPLATES = template_texts(__file__, "self_instruct", "task", "classify", "instance", "labels", "input")
    HOLES = {
        "task": ("tasks",),
        "classify": ("instruction",),
        "instance": ("instruction",),
        "labels": ("instruction",),
        "input": ("instruction", "label"),
    }

    shots: int = 2  # examples shown with their answers in the calls `classify` and `instance`
    min_words: int = 4  # words of a task at least
    max_words: int = 150  # words of a task at most
    keywords: tuple[str, ...] = KEYWORDS  # words that refuse a task, because it cannot be done in writing
    openings: tuple[str, ...] = OPENINGS  # beginnings that refuse a task

    def __post_init__(self) -> None:
        if self.shots < 0:
            raise ValueError("shots must not be negative")
        if not 1 <= self.min_words <= self.max_words:
            raise ValueError("min_words must lie in 1..max_words")
        super().__post_init__()


class SelfInstruct(Steps):
    """Three calls, four for a classification task."""

    kind = "self_instruct"
    revision = 2  # 2: states the ids of examples; copies by the normal form of every script
    Spec = SelfInstructSpec
    method_holes: ClassVar[frozenset[str]] = frozenset({"tasks", "shown", "instruction", "label"})
    feed = "examples"
    feedback_columns = ("instruction", "input", "output", "is_classification")
    spec: SelfInstructSpec

    @property
    def payload(self) -> list[pa.Field]:
        """`input` is "" for a task that needs none; `example_ids` are those of the examples of [rounds], else null."""
        return [
            pa.field("instruction", pa.string()),
            pa.field("input", pa.string()),
            pa.field("output", pa.string()),
            pa.field("is_classification", pa.bool_()),
            pa.field("example_ids", pa.list_(pa.string())),
            pa.field("text", pa.string()),
        ]

    def fields_read(self) -> list[str]:
        return list(dict.fromkeys(["instruction", *self.columns_of()]))

    def ways(self) -> list[dict[str, int]]:
        by_kind = ("instance",), ("labels", "input")
        return [dict.fromkeys(("task", "classify", *calls), 1) for calls in by_kind]

    def kept_texts(self, ask: Ask, payload: Mapping[str, Any]) -> list[str]:
        return [payload[name] for name in ("instruction", "input", "output")]

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        examples = examples_of(ask.fields)
        tasks = "\n".join(f"{number}. {example['instruction']}" for number, example in enumerate(examples, 1))
        reply = await self.say(session, "task", {**ask.fields, "tasks": tasks})
        instruction = task_of(full_text(reply, "task"))
        if fault := task_fault(instruction, examples, self.spec):
            raise AskRefused(fault)
        fields = {**ask.fields, "instruction": instruction}
        of_class = await self._classify(session, fields, examples)
        if of_class:
            input_text, output = await self._output_first(session, fields, ask.seed)
        else:
            input_text, output = await self._input_first(session, fields, examples)
        if fault := instance_fault(instruction, input_text, output, [] if of_class else examples):
            raise AskRefused(fault)
        return {
            "instruction": instruction,
            "input": input_text,
            "output": output,
            "is_classification": of_class,
            "example_ids": ids_of(ask.fields),
            "text": "\n\n".join(part for part in (instruction, input_text, output) if part),
        }

    async def _classify(self, session: Session, fields: Mapping[str, Any], examples: Sequence[Example]) -> bool:
        yes, no = ([e for e in examples if e.get("is_classification") is is_class] for is_class in (True, False))
        shots = [e for pair in zip_longest(yes, no) for e in pair if e is not None][: self.spec.shots]  # some of both
        shot_pairs = [(e["instruction"], {"classification": e["is_classification"]}) for e in shots]
        reply_schema = object_of(classification={"type": "boolean"})
        reply = await self.say(session, "classify", {**fields, "shown": _examples_text(shot_pairs)}, reply_schema)
        of_class: bool = read_object(reply, "classify", classification=bool)["classification"]
        return of_class

    async def _input_first(
        self, session: Session, fields: Mapping[str, Any], examples: Sequence[Example]
    ) -> tuple[str, str]:
        shots = [e for e in examples if e.get("output") and not e.get("is_classification")][: self.spec.shots]
        shot_pairs = [(e["instruction"], {"input": e.get("input") or "", "output": e["output"]}) for e in shots]
        reply_schema = object_of(input={"type": "string"}, output={"type": "string"})
        reply = await self.say(session, "instance", {**fields, "shown": _examples_text(shot_pairs)}, reply_schema)
        instance = read_object(reply, "instance", input=str, output=str)
        return instance["input"].strip(), instance["output"].strip()

    async def _output_first(self, session: Session, fields: Mapping[str, Any], seed: int) -> tuple[str, str]:
        labels_are = {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": MAX_LABELS}
        reply = await self.say(session, "labels", fields, object_of(labels=labels_are))
        values = read_object(reply, "labels", labels=list)["labels"]
        labels = list(dict.fromkeys(label.strip() for label in values if isinstance(label, str) and label.strip()))
        if len(labels) < 2:
            raise AskRefused("few_labels")
        label = pick(labels[:MAX_LABELS], seed, -2)
        reply = await self.say(session, "input", {**fields, "label": label}, object_of(input={"type": "string"}))
        task_input: str = read_object(reply, "input", input=str)["input"].strip()
        if not task_input:
            raise AskRefused("empty_input")
        return task_input, label


def ids_of(fields: Mapping[str, Any]) -> list[str] | None:
    """The ids of the examples that [rounds] sets, None for others."""
    ids = fields.get("example_ids")
    return ids if isinstance(ids, list) and all(isinstance(i, str) for i in ids) else None


def examples_of(fields: Mapping[str, Any]) -> list[Example]:
    """The rows that the new task imitates: `examples` if [rounds] sets them, else the source row.

    Raises AskRefused("missing_field") where there is no instruction at all.
    """
    examples = fields.get("examples")
    rows = [row for row in examples if isinstance(row, Mapping)] if isinstance(examples, list) else []
    found = [row for row in rows if _has_task(row)] or [row for row in [fields] if _has_task(row)]
    if not found:
        raise AskRefused("missing_field", "instruction")
    return found


def _has_task(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("instruction"), str) and bool(row["instruction"].strip())


def _examples_text(pairs: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Examples with their answers, as the model is to answer."""
    return "".join(f"Task: {task}\n{json.dumps(answer, ensure_ascii=False)}\n\n" for task, answer in pairs)
