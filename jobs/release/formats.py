"""The formats of a release: rows as trainers read them, made of the columns of the methods. Pure functions over Arrow.

rows               the columns of the run as they are
messages           `messages`: list<struct<role, content>>, as chat templates take it
alpaca             `instruction`, `input`, `output`: strings; `system` where the run has it
preference         `prompt`, `chosen`, `rejected`: each a list of messages, the prompt explicit
text               `text`: string
prompt-completion  `prompt`, `completion`: strings that are read as one text, the loss on the second

A format keeps `id` and its own columns only, as collators take odd columns amiss; provenance stays with the run, by id.
What is asked and what is answered is found by name: `instruction` (and `input`) with `output`, `code` or `solution`;
`prompt` with `chosen` or, where there is none, `text`; a column `system` goes before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.errors import UserError
from gristmill.records.schema import IDENTITY, RESERVED

ROWS = "rows"
MESSAGES, ALPACA, PREFERENCE, TEXT, PROMPT_COMPLETION = "messages", "alpaca", "preference", "text", "prompt-completion"
FORMATS = (ROWS, MESSAGES, ALPACA, PREFERENCE, TEXT, PROMPT_COMPLETION)
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
DIALOGUE = pa.list_(MESSAGE)
MADE_AS = b"gristmill.format"  # key of the note in the schema of a shard
SYSTEM, INPUT = "system", "input"
ANSWERS = {"instruction": ("output", "code", "solution"), "prompt": ("chosen", "text")}
BREAK = "\n\n"  # between an instruction and its input, and after a prompt that ends in no white space
ID = IDENTITY[0]
Columns = dict[str, pa.Array]


@dataclass(frozen=True)
class Form:
    """How the rows of one run or mixture become a format. Pickles."""

    name: str
    reads: tuple[str, ...]  # columns of the rows beside `id`
    schema: pa.Schema
    _make: Callable[["_Rows"], Columns]

    def convert(self, table: pa.Table, keep: Sequence[str] = ()) -> pa.Table:
        """The same rows in the same order, as `schema`, with the columns named in `keep` behind.

        Raises UserError that names the row when one lacks what the format needs: a null, or a dialogue of no message.
        """
        rows = _Rows(self.name, table.select(list(dict.fromkeys([ID.name, *self.reads]))).combine_chunks())
        made = {ID.name: rows.column(ID.name), **self._make(rows)}
        found = pa.table([made[f.name] for f in self.schema], schema=self.schema)
        for name in keep:
            found = found.append_column(name, table.column(name))
        return found


def form_of(name: str, columns: pa.Schema) -> Form | None:
    """How rows with these columns become the format; None for rows as they are.

    Raises UserError that names the columns which are missing and the formats which fit.
    """
    if name == ROWS:
        return None
    form, needs = _find(name, columns)
    if form is None:
        fitting = [ROWS, *(n for n in FORMATS[1:] if _find(n, columns)[0])]
        there = [f.name for f in columns if f.name not in RESERVED and (_is_text(f.type) or _is_dialogue(f.type))]
        raise UserError(
            f"--format {name} needs {needs}; the columns with text here are {', '.join(there) or 'none'}. Formats "
            f"that fit: {', '.join(fitting)}"
        )
    return form


def made_as(schema: pa.Schema) -> str | None:
    """The format that a shard of a release was made in; None for rows and for other people's files."""
    note = (schema.metadata or {}).get(MADE_AS)
    return note.decode() if note else None


def _find(name: str, columns: pa.Schema) -> tuple[Form | None, str]:
    """(the form or None, what the format needs, in words)."""
    pairs = [(n, a) for n in ANSWERS for a in ANSWERS[n] if _has(columns, n) and _has(columns, a)]
    asked, answer = pairs[0] if pairs else (None, None)
    extra = tuple(n for n in (INPUT, SYSTEM) if _has(columns, n) and not (n == INPUT and asked != "instruction"))
    pair = (asked, answer, *extra) if asked and answer else ()
    either = "instruction with output, code or solution, or prompt with text"
    if name == MESSAGES:
        system = tuple(n for n in extra if n == SYSTEM)
        if "messages" in columns.names and _is_dialogue(columns.field("messages").type):
            return _form(name, ("messages", *system), {"messages": DIALOGUE}, _own_messages), ""
        return _form(name, pair, {"messages": DIALOGUE}, _messages), f"messages, or {either}"
    if name == ALPACA:
        made = {n: pa.string() for n in ("instruction", "input", "output", *((SYSTEM,) if SYSTEM in extra else ()))}
        return _form(name, pair, made, _alpaca), either
    if name == PREFERENCE:
        prompt = next((n for n in ("prompt", "instruction") if _has(columns, n, or_dialogue=True)), None)
        judged = all(_has(columns, n, or_dialogue=True) for n in ("chosen", "rejected"))
        extra = tuple(n for n in (INPUT, SYSTEM) if _has(columns, n) and not (n == INPUT and prompt != "instruction"))
        reads = (prompt, "chosen", "rejected", *extra) if prompt and judged else ()
        sides = dict.fromkeys(("prompt", "chosen", "rejected"), DIALOGUE)
        missing = [n for n in ("chosen", "rejected") if not _has(columns, n, or_dialogue=True)]
        missing = [*([] if prompt else ["prompt (or instruction)"]), *missing]
        return _form(name, reads, sides, _preference), f"{' and '.join(missing)} beside what is there"
    if name == TEXT:
        reads = (TEXT,) if _has(columns, TEXT) else ()
        return _form(name, reads, {TEXT: pa.string()}, _text), "a column text of strings"
    if name == PROMPT_COMPLETION:
        made = dict.fromkeys(("prompt", "completion"), pa.string())
        return _form(name, pair, made, _prompt_completion), either
    raise UserError(f"--format {name}: there is no such format (known: {', '.join(FORMATS)})")


def _form(
    name: str, reads: tuple[str, ...], made: dict[str, pa.DataType], make: Callable[["_Rows"], Columns]
) -> Form | None:
    if not reads:
        return None
    schema = pa.schema([ID, *(pa.field(n, kind) for n, kind in made.items())], {MADE_AS: name.encode()})
    return Form(name, reads, schema, make)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_dialogue(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    inner = {f.name: f.type for f in kind.value_type}
    return all(n in inner and _is_text(inner[n]) for n in ("role", "content"))


def _has(columns: pa.Schema, name: str, or_dialogue: bool = False) -> bool:
    if name not in columns.names:
        return False
    kind = columns.field(name).type
    return _is_text(kind) or (or_dialogue and _is_dialogue(kind))


class _Rows:
    """The columns of a table in one piece each; whoever asks for a column gets it without nulls."""

    def __init__(self, format_name: str, table: pa.Table) -> None:
        self.format_name, self.table = format_name, table
        self.num_rows = table.num_rows

    def has(self, name: str) -> bool:
        return name in self.table.column_names

    def column(self, name: str) -> pa.Array:
        found = self.table.column(name)
        return found.chunk(0) if found.num_chunks else pa.array([], found.type)

    def text(self, name: str) -> pa.Array:
        """Raises UserError for a null."""
        column = self.column(name).cast(pa.string())
        self._refuse(name, np.asarray(column.is_null()), "is null")
        return column

    def text_or_empty(self, name: str) -> pa.Array:
        """A null, and a column that is not there, is the empty text."""
        if not self.has(name):
            return pa.array([""] * self.num_rows, pa.string())
        return pc.fill_null(self.column(name).cast(pa.string()), "")

    def dialogue(self, name: str) -> pa.Array:
        """As DIALOGUE, whatever else its messages hold. Raises UserError for nulls and for no message at all."""
        column = self.column(name)
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        self._refuse(name, lengths == 0, "holds no message")
        inner = column.flatten()
        parts = [pc.struct_field(inner, n).cast(pa.string()) for n in ("role", "content")]
        for n, part in zip(("role", "content"), parts):
            broken = np.asarray(part.is_null())
            self._refuse(name, np.bincount(np.repeat(np.arange(len(column)), lengths), broken) > 0, f"has a null {n}")
        return _lists(lengths, *parts)

    def _refuse(self, name: str, is_bad: np.ndarray, what: str) -> None:
        bad = np.flatnonzero(is_bad)
        if len(bad):
            row = self.column(ID.name)[int(bad[0])].as_py()
            raise UserError(
                f"row {row}: '{name}' {what}, so it cannot become {self.format_name}; pack as rows, or reject such "
                "rows in the recipe"
            )


def _question(rows: _Rows, name: str) -> pa.Array:
    """What the user says: the prompt, or the instruction with its input below it where there is one."""
    asked = rows.text(name)
    if not rows.has(INPUT):
        return asked
    given = rows.text_or_empty(INPUT)
    return pc.if_else(pc.equal(given, ""), asked, pc.binary_join_element_wise(asked, given, BREAK))


def _pair(rows: _Rows) -> tuple[str, str]:
    return next((n, a) for n in ANSWERS for a in ANSWERS[n] if rows.has(n) and rows.has(a))


def _text(rows: _Rows) -> Columns:
    return {TEXT: rows.text(TEXT)}


def _own_messages(rows: _Rows) -> Columns:
    return {"messages": _after_system(rows, rows.dialogue("messages"))}


def _messages(rows: _Rows) -> Columns:
    asked, answer = _pair(rows)
    return {"messages": _talk(rows, [("user", _question(rows, asked)), ("assistant", rows.text(answer))])}


def _alpaca(rows: _Rows) -> Columns:
    asked, answer = _pair(rows)
    made = {"instruction": rows.text(asked), "input": rows.text_or_empty(INPUT), "output": rows.text(answer)}
    return {**made, SYSTEM: rows.text_or_empty(SYSTEM)}


def _preference(rows: _Rows) -> Columns:
    asked = "prompt" if rows.has("prompt") else "instruction"
    if _is_dialogue(rows.column(asked).type):
        prompt = _after_system(rows, rows.dialogue(asked))
    else:
        prompt = _talk(rows, [("user", _question(rows, asked))])
    return {"prompt": prompt, **{side: _answer(rows, side) for side in ("chosen", "rejected")}}


def _answer(rows: _Rows, name: str) -> pa.Array:
    if _is_dialogue(rows.column(name).type):
        return rows.dialogue(name)
    said = rows.text(name)
    return _lists(np.ones(rows.num_rows, np.int64), pa.array(["assistant"] * rows.num_rows, pa.string()), said)


def _prompt_completion(rows: _Rows) -> Columns:
    asked, answer = _pair(rows)
    question = _question(rows, asked)
    if rows.has(SYSTEM):
        system = rows.text_or_empty(SYSTEM)
        whole = pc.binary_join_element_wise(system, question, BREAK)
        question = pc.if_else(pc.equal(system, ""), question, whole)
    is_apart = pc.match_substring_regex(question, r"\s\z")
    prompt = pc.if_else(is_apart, question, pc.binary_join_element_wise(question, "", BREAK))
    return {"prompt": prompt, "completion": rows.text(answer)}


def _talk(rows: _Rows, turns: Sequence[tuple[str, pa.Array]]) -> pa.Array:
    """DIALOGUE with one message a turn, after the row's system message."""
    num, many = rows.num_rows, len(turns)
    contents = pa.concat_arrays([content for _, content in turns])
    order = np.arange(num * many).reshape(many, num).T.ravel()
    roles = pa.array([role for role, _ in turns] * num, pa.string())
    return _after_system(rows, _lists(np.full(num, many), roles, contents.take(pa.array(order))))


def _after_system(rows: _Rows, talks: pa.Array) -> pa.Array:
    """The dialogues with the row's system message before them, where it has one and the dialogue has none yet."""
    if not rows.has(SYSTEM):
        return talks
    system, lengths = rows.text_or_empty(SYSTEM), pc.list_value_length(talks).to_numpy(zero_copy_only=False)
    inner = talks.flatten()
    roles, contents = pc.struct_field(inner, "role"), pc.struct_field(inner, "content")
    starts = (np.cumsum(lengths) - lengths).astype(np.int64)
    begins = np.asarray(pc.equal(roles.take(pa.array(starts)), SYSTEM))
    wanted = np.flatnonzero(np.asarray(pc.not_equal(system, "")) & ~begins)
    order = np.insert(np.arange(len(inner)) + len(system), starts[wanted], wanted)
    said = pa.concat_arrays([system, contents]).take(pa.array(order))
    whose = pa.concat_arrays([pa.array([SYSTEM] * len(system), pa.string()), roles]).take(pa.array(order))
    return _lists(lengths + np.isin(np.arange(len(lengths)), wanted), whose, said)


def _lists(lengths: np.ndarray, roles: pa.Array, contents: pa.Array) -> pa.Array:
    """DIALOGUE of so many messages a row."""
    offsets = pa.array(np.r_[0, np.cumsum(lengths)].astype(np.int32))
    inner = pa.StructArray.from_arrays([roles, contents], fields=list(MESSAGE))
    return pa.ListArray.from_arrays(offsets, inner, type=DIALOGUE)
