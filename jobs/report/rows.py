"""One row as people see it: its words cut to a stated length, why it was rejected, and every call that made it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gristmill.records.schema import IDENTITY, PROVENANCE, REJECT

MAX_CHARS = 600  # of one part of a row
MAX_CODE_CHARS = 1200
MAX_TURN_CHARS = 900  # of the prompt and of the answer of one call
MAX_VALUE_CHARS = 300  # of a finding
MAX_FACT_CHARS = 90
MAX_TURNS, MAX_MESSAGES, MAX_FACTS = 10, 8, 8
TURNS, DUPLICATE_OF = "turns", "duplicate_of"
SPANS = {"decontaminate": "overlap_start", "decontaminate_embedding": "similar_start"}
OVERLAP = ("overlap_benchmark", "overlap_item", "overlap_share")
ASKED, ANSWERED = ("instruction", "input", "prompt"), ("output", "code", "solution", "answer", "tests")
SIDES = ("chosen", "rejected")
QUIET = {"finish", "rules", "language", "decontaminate", "dedup", "dedup_image", "dedup_rows", "balance"}
OWN = {f.name for f in [*IDENTITY, *PROVENANCE, REJECT]}


@dataclass(frozen=True)
class Cut:
    """A text, and whether something was left out before and behind it."""

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
    num_more: int = 0  # messages that are not shown


@dataclass(frozen=True)
class Turn:
    """One call."""

    name: str
    prompt: Cut
    text: Cut
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True)
class Shown:
    """One row to look at."""

    reason: str | None
    id: str
    source: str
    parts: tuple[Part, ...]
    facts: tuple[tuple[str, str], ...] = ()  # short payload columns
    evidence: tuple[tuple[str, str], ...] = ()  # findings of the stage that rejected it, or that judged it
    turns: tuple[Turn, ...] = ()
    num_turns: int = 0
    tokens: int = 0  # of all turns

    @property
    def margin(self) -> str:
        """By how much the chosen answer won, where it stands beside the rejected one."""
        return dict(self.facts).get("margin", "") if any(part.form == "sides" for part in self.parts) else ""

    @property
    def footer(self) -> list[tuple[str, str]]:
        return [(name, value) for name, value in self.facts if not (name == "margin" and self.margin)]


@dataclass(frozen=True)
class Look:
    """What of a run's columns is shown, and how. `findings`: columns by the stage that adds them."""

    asked: tuple[str, ...]
    answered: tuple[str, ...]
    facts: tuple[str, ...]
    code: frozenset[str]
    findings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    loud: tuple[str, ...] = ()  # stages whose findings are shown of kept rows too
    # Of stages that look for benchmarks: the column that they read, and the one that says where they found something.
    spans: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """All columns that are read."""
        found = [n for names in self.findings.values() for n in names]
        own = ["id", "source_id", REJECT.name, DUPLICATE_OF, "text", TURNS]
        own += [n for span in self.spans.values() for n in span]
        return list(dict.fromkeys([*own, *self.asked, *self.answered, *self.facts, *found]))


def look_of(schema: pa.Schema, stages: Sequence[tuple[str, Mapping[str, Any], Sequence[str]]]) -> Look | None:
    """How rows of a schema are shown; None where no column holds words.

    `stages`: name, table of the recipe and findings of each.
    """
    texts = [f.name for f in schema if pa.types.is_string(f.type) and f.name not in OWN]
    talks = [f.name for f in schema if _is_talk(f.type)]
    found = {n for _, _, names in stages for n in names} | {DUPLICATE_OF}
    payload = [n for n in texts if n not in found]
    asked = tuple(n for n in ASKED if n in payload or n in talks)
    answered: tuple[str, ...]
    if "messages" in talks:
        asked, answered = (), ("messages",)
    elif all(n in payload or n in talks for n in SIDES):
        answered = SIDES
    else:
        answered = tuple(n for n in ANSWERED if n in payload) if asked else ()
        answered = answered or (("text",) if "text" in payload else ())
    if not asked and not answered:
        answered = tuple(payload[:1])
    if not asked and not answered:
        return None
    run = [table for _, table, _ in stages if table.get("kind") == "execute"]
    code = {"code", "tests", *(t["code"] for t in run if t.get("code")), *(t["tests"] for t in run if t.get("tests"))}
    used = {*asked, *answered, "text", TURNS}
    facts = [f.name for f in schema if f.name not in OWN | used | found and _is_plain(f.type)]
    findings = {name: [n for n in names if n in schema.names and _is_plain(schema.field(n).type)]
                for name, _, names in stages}  # fmt: skip
    loud = tuple(name for name, table, _ in stages if table.get("kind") not in QUIET)
    spans = {
        name: (str(table.get("column") or "text"), SPANS[table["kind"]])
        for name, table, _ in stages
        if table.get("kind") in SPANS
    }
    return Look(asked, answered, tuple(facts[:MAX_FACTS]), frozenset(code), findings, loud, spans)


def _is_plain(kind: pa.DataType) -> bool:
    return any(
        is_(kind) for is_ in (pa.types.is_string, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    )


def _is_talk(kind: pa.DataType) -> bool:
    if not pa.types.is_list(kind) or not pa.types.is_struct(kind.value_type):
        return False
    return {"role", "content"} <= {f.name for f in kind.value_type}


def shown(row: Mapping[str, Any], look: Look) -> Shown:
    """The row in parts. A row that shares words with a benchmark is shown around them."""
    reason = row[REJECT.name]
    turns = row.get(TURNS) or []
    told = tuple(_turn(one) for one in turns[:MAX_TURNS])
    tokens = sum((one["tokens_in"] or 0) + (one["tokens_out"] or 0) for one in turns)
    facts = tuple((n, _value(row[n], MAX_FACT_CHARS)) for n in look.facts if row.get(n) is not None)
    parts = _parts(row, look, reason)
    return Shown(
        reason, row["id"], row["source_id"] or "", parts, facts, _evidence(row, look, reason), told, len(turns), tokens
    )


def _parts(row: Mapping[str, Any], look: Look, reason: str | None) -> tuple[Part, ...]:
    column, start = look.spans.get((reason or "").partition(":")[0], ("", ""))
    if row.get(column) and row.get(start) is not None:
        begin = max(0, row[start] - MAX_CHARS // 4)
        return (Part("", "text", cut(row[column], MAX_CHARS, begin)),)
    alone = len(look.asked) + len(look.answered) == 1
    parts = []
    for name in (*look.asked, *(() if look.answered == SIDES else look.answered)):
        value = row.get(name)
        if value is None or (value == "" and name == "input"):
            continue
        label = "" if alone else name
        if isinstance(value, list):
            said = tuple((str(m["role"]), cut(m["content"] or "")) for m in value[:MAX_MESSAGES])
            parts.append(Part(label, "talk", messages=said, num_more=len(value) - len(said)))
        elif name in look.code:
            parts.append(Part(label, "code", cut(value, MAX_CODE_CHARS, is_code=True)))
        else:
            parts.append(Part(label, "text", cut(value, MAX_CHARS if name in look.answered else MAX_CHARS // 2)))
    if look.answered == SIDES and any(row.get(name) for name in SIDES):
        parts.append(Part("", "sides", messages=tuple((name, cut(_last(row.get(name)))) for name in SIDES)))
    if not parts and (turns := row.get(TURNS)):  # nothing came of it: what was said last
        parts.append(Part(f"last answer ({turns[-1]['turn']})", "text", cut(turns[-1]["text"] or "")))
    return tuple(parts)


def _last(value: Any) -> str:
    """The words of an answer, or of the last message of a dialogue."""
    return value or "" if not isinstance(value, list) else (value[-1]["content"] or "") if value else ""


def _turn(one: Mapping[str, Any]) -> Turn:
    prompt, text = (cut(one[n] or "", MAX_TURN_CHARS, is_code=True) for n in ("prompt", "text"))
    return Turn(one["turn"] or "", prompt, text, one["tokens_in"] or 0, one["tokens_out"] or 0)


def _evidence(row: Mapping[str, Any], look: Look, reason: str | None) -> tuple[tuple[str, str], ...]:
    """What a row duplicates, which benchmark item is in it, and what the stages found that have their say."""
    found: list[tuple[str, str]] = []
    if row.get(DUPLICATE_OF):
        found.append(("duplicate of", str(row[DUPLICATE_OF])[:12]))
    elif reason and reason.partition(":")[0] in look.spans and row.get("overlap_item"):
        share = f"{row['overlap_share']:.0%} of " if row.get("overlap_share") is not None else ""
        found.append(("benchmark", f"{share}{row['overlap_item']}"))
    said = {DUPLICATE_OF, *OVERLAP, "overlap_start"}
    stages = [reason.partition(":")[0]] if reason else look.loud
    for stage in stages:
        for name in look.findings.get(stage, ()):
            if name not in said and row.get(name) is not None:
                found.append((name.replace("_", " "), _value(row[name], MAX_VALUE_CHARS)))
    return tuple(found)


def _value(value: Any, most: int) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    text = " ".join(str(value).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def cut(text: str, most: int = MAX_CHARS, begin: int = 0, is_code: bool = False) -> Cut:
    """At most `most` characters from `begin` on, at borders of words; code keeps its lines, other text does not."""
    end = begin + most
    piece = text[begin:end]
    if is_code:
        return Cut(piece.strip("\n"), begin > 0, end < len(text))
    piece = (piece.partition(" ")[2] or piece) if begin else piece
    piece = (piece.rpartition(" ")[0] or piece) if end < len(text) else piece
    return Cut(" ".join(piece.split()), begin > 0, end < len(text))
