"""A row as the page shows it: its words, cut to a stated length, its reject reason, and every call that made it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gristmill.records.schema import IDENTITY, PROVENANCE, REASONING, REJECT, has_reasoning
from gristmill.stages.trajectory.messages import is_messages, message_text

MAX_CHARS = 600  # of one part of a row
MAX_CODE_CHARS = 1200
MAX_TURN_CHARS = 900  # of the prompt and of the answer of one call
MAX_VALUE_CHARS = 300  # of a finding
MAX_FACT_CHARS = 90
MAX_TURNS, MAX_MESSAGES, MAX_FACTS = 10, 8, 8
TURNS, DUPLICATE_OF = "turns", "duplicate_of"
SPANS = {"decontaminate": "overlap_start", "decontaminate_embedding": "similar_start"}
OVERLAP = ("overlap_benchmark", "overlap_item", "overlap_share")
QUESTIONS, ANSWERS = ("instruction", "input", "prompt"), ("output", "code", "solution", "answer", "tests")
SIDES = ("chosen", "rejected")
QUIET = {"finish", "rules", "language", "decontaminate", "dedup", "dedup_image", "dedup_rows", "balance"}
RUN_COLUMNS = {f.name for f in [*IDENTITY, *PROVENANCE, REJECT]}


@dataclass(frozen=True)
class Cut:
    """A text, and whether something is left out before and after it."""

    text: str
    is_cut_before: bool = False
    is_cut: bool = False


@dataclass(frozen=True)
class Part:
    """A part of a row. form: "text", "code", "talk" (messages), or "sides" (chosen beside rejected)."""

    label: str
    form: str
    cut: Cut = Cut("")
    messages: tuple[tuple[str, Cut], ...] = ()  # (role or side, words)
    num_more: int = 0  # messages left out


@dataclass(frozen=True)
class Turn:
    """One call of the model."""

    name: str
    prompt: Cut
    text: Cut
    tokens_in: int
    tokens_out: int
    reasoning: Cut | None = None


@dataclass(frozen=True)
class RowView:
    """One row of the page."""

    reason: str | None
    id: str
    source: str
    parts: tuple[Part, ...]
    facts: tuple[tuple[str, str], ...] = ()  # short payload columns
    evidence: tuple[tuple[str, str], ...] = ()  # findings of the stage that rejected or judged it
    turns: tuple[Turn, ...] = ()
    num_turns: int = 0
    tokens: int = 0  # of all turns

    @property
    def margin(self) -> str:
        """By how much the chosen answer won, of a row that shows it beside the rejected answer."""
        return dict(self.facts).get("margin", "") if any(part.form == "sides" for part in self.parts) else ""

    @property
    def footer(self) -> list[tuple[str, str]]:
        """The facts without the margin, which the page shows elsewhere."""
        return [(name, value) for name, value in self.facts if not (name == "margin" and self.margin)]


@dataclass(frozen=True)
class RowLayout:
    """Which columns of a run the page shows, and how."""

    questions: tuple[str, ...]  # columns
    answers: tuple[str, ...]  # columns
    facts: tuple[str, ...]  # columns
    code: frozenset[str]  # columns whose lines are kept
    findings: Mapping[str, Sequence[str]] = field(default_factory=dict)  # columns by the stage that adds them
    judges: tuple[str, ...] = ()  # stages whose findings kept rows show too
    # Of stages that search for benchmarks: the column that they read, and the column with the start of a hit.
    spans: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    thoughts: tuple[str, ...] = ()  # the column with the model's reasoning, if there is one

    @property
    def columns(self) -> list[str]:
        """All columns that the page reads."""
        findings = [n for names in self.findings.values() for n in names]
        always = ["id", "source_id", REJECT.name, DUPLICATE_OF, "text", TURNS]
        always += self.thoughts
        always += [n for span in self.spans.values() for n in span]
        return list(dict.fromkeys([*always, *self.questions, *self.answers, *self.facts, *findings]))


def layout_of(schema: pa.Schema, stages: Sequence[tuple[str, Mapping[str, Any], Sequence[str]]]) -> RowLayout | None:
    """The layout of rows of a schema; None where no column holds words.

    `stages`: name, table of the recipe, and findings of each.
    """
    texts = [f.name for f in schema if pa.types.is_string(f.type) and f.name not in RUN_COLUMNS]
    talks = [f.name for f in schema if is_messages(f.type)]
    added = {n for _, _, names in stages for n in names} | {DUPLICATE_OF}
    payload = [n for n in texts if n not in added and not (n == REASONING.name and has_reasoning(schema.names))]
    questions = tuple(n for n in QUESTIONS if n in payload or n in talks)
    answers: tuple[str, ...]
    if "messages" in talks:
        questions, answers = (), ("messages",)
    elif all(n in payload or n in talks for n in SIDES):
        answers = SIDES
    else:
        answers = tuple(n for n in ANSWERS if n in payload) if questions else ()
        answers = answers or (("text",) if "text" in payload else ())
    if not questions and not answers:
        answers = tuple(payload[:1])
    if not questions and not answers:
        return None
    programs = [table for _, table, _ in stages if table.get("kind") == "execute"]
    code = {
        "code",
        "tests",
        *(t["code"] for t in programs if t.get("code")),
        *(t["tests"] for t in programs if t.get("tests")),
    }
    thoughts = (REASONING.name,) if has_reasoning(schema.names) else ()
    used = {*questions, *answers, *thoughts, "text", "tools", TURNS}  # `tools` is the same long text in each row
    facts = [f.name for f in schema if f.name not in RUN_COLUMNS | used | added and _is_plain(f.type)]
    findings = {name: [n for n in names if n in schema.names and _is_plain(schema.field(n).type)]
                for name, _, names in stages}  # fmt: skip
    judges = tuple(name for name, table, _ in stages if table.get("kind") not in QUIET)
    spans = {
        name: (str(table.get("column") or "text"), SPANS[table["kind"]])
        for name, table, _ in stages
        if table.get("kind") in SPANS
    }
    return RowLayout(questions, answers, tuple(facts[:MAX_FACTS]), frozenset(code), findings, judges, spans, thoughts)


def _is_plain(kind: pa.DataType) -> bool:
    return any(
        is_(kind) for is_ in (pa.types.is_string, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    )


def row_view(row: Mapping[str, Any], layout: RowLayout) -> RowView:
    """The row in parts. A row that shares words with a benchmark shows the words around them."""
    reason = row[REJECT.name]
    turns = row.get(TURNS) or []
    calls = tuple(_turn(turn) for turn in turns[:MAX_TURNS])
    tokens = sum((turn["tokens_in"] or 0) + (turn["tokens_out"] or 0) for turn in turns)
    facts = tuple((n, _value(row[n], MAX_FACT_CHARS)) for n in layout.facts if row.get(n) is not None)
    parts = _parts(row, layout, reason)
    return RowView(
        reason,
        row["id"],
        row["source_id"] or "",
        parts,
        facts,
        _evidence(row, layout, reason),
        calls,
        len(turns),
        tokens,
    )


def _parts(row: Mapping[str, Any], layout: RowLayout, reason: str | None) -> tuple[Part, ...]:
    stage, _, what = (reason or "").partition(":")
    column, start = layout.spans.get(stage, ("", ""))
    column = what.partition("_in_")[2] or column  # see stages/further.py
    if row.get(column) and row.get(start) is not None:
        begin = max(0, row[start] - MAX_CHARS // 4)
        return (Part("", "text", cut(row[column], MAX_CHARS, begin)),)
    alone = len(layout.questions) + len(layout.answers) == 1
    parts = []
    for name in (*layout.questions, *layout.thoughts, *(() if layout.answers == SIDES else layout.answers)):
        value = row.get(name)
        if value is None or (value == "" and name == "input"):
            continue
        label = "" if alone and name not in layout.thoughts else name
        if isinstance(value, list):
            messages = tuple((_speaker(m), cut(message_text(m))) for m in value[:MAX_MESSAGES])
            parts.append(Part(label, "talk", messages=messages, num_more=len(value) - len(messages)))
        elif name in layout.code:
            parts.append(Part(label, "code", cut(value, MAX_CODE_CHARS, is_code=True)))
        else:
            parts.append(Part(label, "text", cut(value, MAX_CHARS if name in layout.answers else MAX_CHARS // 2)))
    if layout.answers == SIDES and any(row.get(name) for name in SIDES):
        parts.append(Part("", "sides", messages=tuple((name, cut(_last(row.get(name)))) for name in SIDES)))
    if not parts and (turns := row.get(TURNS)):  # no payload: the last call shows what happened
        parts.append(Part(f"last answer ({turns[-1]['turn']})", "text", cut(turns[-1]["text"] or "")))
    return tuple(parts)


def _speaker(message: Mapping[str, Any]) -> str:
    """Who speaks: the role, and the name of a tool."""
    return " ".join([str(message["role"]), *([message["name"]] if message.get("name") else [])])


def _last(value: Any) -> str:
    """The text of an answer, or of the last message of a dialogue."""
    return value or "" if not isinstance(value, list) else (value[-1]["content"] or "") if value else ""


def _turn(turn: Mapping[str, Any]) -> Turn:
    prompt, text = (cut(turn[n] or "", MAX_TURN_CHARS, is_code=True) for n in ("prompt", "text"))
    thought = cut(turn["reasoning"], MAX_TURN_CHARS, is_code=True) if turn.get("reasoning") else None
    return Turn(turn["turn"] or "", prompt, text, turn["tokens_in"] or 0, turn["tokens_out"] or 0, thought)


def _evidence(row: Mapping[str, Any], layout: RowLayout, reason: str | None) -> tuple[tuple[str, str], ...]:
    """What the row duplicates, which benchmark item it holds, and the findings of the stages that judged it."""
    evidence: list[tuple[str, str]] = []
    if row.get(DUPLICATE_OF):
        evidence.append(("duplicate of", str(row[DUPLICATE_OF])[:12]))
    elif reason and reason.partition(":")[0] in layout.spans and row.get("overlap_item"):
        share = f"{row['overlap_share']:.0%} of " if row.get("overlap_share") is not None else ""
        evidence.append(("benchmark", f"{share}{row['overlap_item']}"))
    listed = {DUPLICATE_OF, *OVERLAP, "overlap_start"}
    stages = [reason.partition(":")[0]] if reason else layout.judges
    for stage in stages:
        for name in layout.findings.get(stage, ()):
            if name not in listed and row.get(name) is not None:
                evidence.append((name.replace("_", " "), _value(row[name], MAX_VALUE_CHARS)))
    return tuple(evidence)


def _value(value: Any, most: int) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    text = " ".join(str(value).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def cut(text: str, most: int = MAX_CHARS, begin: int = 0, is_code: bool = False) -> Cut:
    """At most `most` characters from `begin` on, cut between words; code keeps its lines, other text does not."""
    end = begin + most
    piece = text[begin:end]
    if is_code:
        return Cut(piece.strip("\n"), begin > 0, end < len(text))
    piece = (piece.partition(" ")[2] or piece) if begin else piece
    piece = (piece.rpartition(" ")[0] or piece) if end < len(text) else piece
    return Cut(" ".join(piece.split()), begin > 0, end < len(text))
