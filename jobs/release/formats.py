"""The formats of a release: row layouts that trainers read, converted from the columns of the methods.

rows               the columns of the run as they are
messages           `messages`: list<struct<role, content>>, the input of chat templates
alpaca             `instruction`, `input`, `output`: strings; `system` if the run has it
preference         `prompt`, `chosen`, `rejected`: each a list of messages, the prompt explicit
text               `text`: string
prompt-completion  `prompt`, `completion`: strings that form one text, with the loss on the completion

A format keeps only `id` and its own columns, because collators reject unexpected columns. The run keeps the provenance
of each id. Column names decide which is the question and which the answer: `instruction` (and `input`) goes with
`output`, `code` or `solution`; `prompt` goes with `chosen` or else `text`. A column `system` comes first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

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
FORMAT_KEY = b"gristmill.format"  # metadata key in the schema of a shard
SYSTEM, INPUT = "system", "input"
ANSWERS = {"instruction": ("output", "code", "solution"), "prompt": ("chosen", "text")}
BREAK = "\n\n"  # between an instruction and its input, and after a prompt without trailing white space
ID = IDENTITY[0]
Columns = dict[str, pa.Array]


@dataclass(frozen=True)
class RowFormat:
    """Converts the rows of one run or mixture to a format. Can be pickled."""

    name: str
    reads: tuple[str, ...]  # columns of the rows beside `id`
    schema: pa.Schema
    _convert: Callable[["_Rows"], Columns]
    task: ClassVar[str] = "text-generation"  # the task category that all formats are for

    def convert(self, table: pa.Table, keep: Sequence[str] = ()) -> pa.Table:
        """Convert rows to `schema` in the same order; the columns named in `keep` are appended.

        Raises UserError with the row id for a null, or an empty dialogue, in a column that the format needs.
        """
        rows = _Rows(self.name, table.select(list(dict.fromkeys([ID.name, *self.reads]))).combine_chunks())
        columns = {ID.name: rows.column(ID.name), **self._convert(rows)}
        converted = pa.table([columns[f.name] for f in self.schema], schema=self.schema)
        for name in keep:
            converted = converted.append_column(name, table.column(name))
        return converted


def find_format(name: str, columns: pa.Schema) -> RowFormat | None:
    """The converter from these columns to the format; None for `rows`.

    Raises UserError with the missing columns and the formats that fit.
    """
    if name == ROWS:
        return None
    row_format, needs = _find(name, columns)
    if row_format is None:
        fitting = [ROWS, *(n for n in FORMATS[1:] if _find(n, columns)[0])]
        text_columns = [
            f.name for f in columns if f.name not in RESERVED and (_is_text(f.type) or _is_dialogue(f.type))
        ]
        raise UserError(
            f"--format {name} needs {needs}; the columns with text are {', '.join(text_columns) or 'none'}. Formats "
            f"that fit: {', '.join(fitting)}"
        )
    return row_format


def format_of_schema(schema: pa.Schema) -> str | None:
    """The format recorded in the schema of a shard; None for `rows` and for files that gristmill did not write."""
    note = (schema.metadata or {}).get(FORMAT_KEY)
    return note.decode() if note else None


def _find(name: str, columns: pa.Schema) -> tuple[RowFormat | None, str]:
    """(the converter or None, the columns that the format needs, in words)."""
    pairs = [(n, a) for n in ANSWERS for a in ANSWERS[n] if _has(columns, n) and _has(columns, a)]
    question, answer = pairs[0] if pairs else (None, None)
    extra = tuple(n for n in (INPUT, SYSTEM) if _has(columns, n) and not (n == INPUT and question != "instruction"))
    pair = (question, answer, *extra) if question and answer else ()
    either = "instruction with output, code or solution, or prompt with text"
    if name == MESSAGES:
        system = tuple(n for n in extra if n == SYSTEM)
        if "messages" in columns.names and _is_dialogue(columns.field("messages").type):
            return _converter(name, ("messages", *system), {"messages": DIALOGUE}, _own_messages), ""
        return _converter(name, pair, {"messages": DIALOGUE}, _messages), f"messages, or {either}"
    if name == ALPACA:
        names = ("instruction", "input", "output", *((SYSTEM,) if SYSTEM in extra else ()))
        return _converter(name, pair, dict.fromkeys(names, pa.string()), _alpaca), either
    if name == PREFERENCE:
        prompt = next((n for n in ("prompt", "instruction") if _has(columns, n, or_dialogue=True)), None)
        has_answers = all(_has(columns, n, or_dialogue=True) for n in ("chosen", "rejected"))
        extra = tuple(n for n in (INPUT, SYSTEM) if _has(columns, n) and not (n == INPUT and prompt != "instruction"))
        reads = (prompt, "chosen", "rejected", *extra) if prompt and has_answers else ()
        sides = dict.fromkeys(("prompt", "chosen", "rejected"), DIALOGUE)
        missing = [n for n in ("chosen", "rejected") if not _has(columns, n, or_dialogue=True)]
        missing = [*([] if prompt else ["prompt (or instruction)"]), *missing]
        return _converter(
            name, reads, sides, _preference
        ), f"{' and '.join(missing)} in addition to the present columns"
    if name == TEXT:
        reads = (TEXT,) if _has(columns, TEXT) else ()
        return _converter(name, reads, {TEXT: pa.string()}, _text), "a column text of strings"
    if name == PROMPT_COMPLETION:
        names = ("prompt", "completion")
        return _converter(name, pair, dict.fromkeys(names, pa.string()), _prompt_completion), either
    raise UserError(f"--format {name}: unknown format (known: {', '.join(FORMATS)})")


def _converter(
    name: str, reads: tuple[str, ...], types: dict[str, pa.DataType], convert: Callable[["_Rows"], Columns]
) -> RowFormat | None:
    if not reads:
        return None
    schema = pa.schema([ID, *(pa.field(n, kind) for n, kind in types.items())], {FORMAT_KEY: name.encode()})
    return RowFormat(name, reads, schema, convert)


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
    """The columns of a table, each as one array. Raises UserError for nulls where the format has no place for them."""

    def __init__(self, format_name: str, table: pa.Table) -> None:
        self.format_name, self.table = format_name, table
        self.num_rows = table.num_rows

    def has(self, name: str) -> bool:
        return name in self.table.column_names

    def column(self, name: str) -> pa.Array:
        column = self.table.column(name)
        return column.chunk(0) if column.num_chunks else pa.array([], column.type)

    def text(self, name: str) -> pa.Array:
        """A column of strings. Raises UserError for a null."""
        column = self.column(name).cast(pa.string())
        self._refuse(name, np.asarray(column.is_null()), "is null")
        return column

    def text_or_empty(self, name: str) -> pa.Array:
        """A column of strings; nulls, and a missing column, become empty strings."""
        if not self.has(name):
            return pa.array([""] * self.num_rows, pa.string())
        return pc.fill_null(self.column(name).cast(pa.string()), "")

    def dialogue(self, name: str) -> pa.Array:
        """A column as DIALOGUE, without other fields. Raises UserError for nulls and for empty dialogues."""
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
                f"row {row}: '{name}' {what}, so it cannot become {self.format_name}; pack as rows, or reject "
                "these rows in the recipe"
            )


def _question(rows: _Rows, name: str) -> pa.Array:
    """Text of the user: the prompt, or the instruction with its input, if any, below."""
    text = rows.text(name)
    if not rows.has(INPUT):
        return text
    extra = rows.text_or_empty(INPUT)
    return pc.if_else(pc.equal(extra, ""), text, pc.binary_join_element_wise(text, extra, BREAK))


def _pair(rows: _Rows) -> tuple[str, str]:
    return next((n, a) for n in ANSWERS for a in ANSWERS[n] if rows.has(n) and rows.has(a))


def _text(rows: _Rows) -> Columns:
    return {TEXT: rows.text(TEXT)}


def _own_messages(rows: _Rows) -> Columns:
    return {"messages": _after_system(rows, rows.dialogue("messages"))}


def _messages(rows: _Rows) -> Columns:
    question, answer = _pair(rows)
    return {"messages": _dialogue(rows, [("user", _question(rows, question)), ("assistant", rows.text(answer))])}


def _alpaca(rows: _Rows) -> Columns:
    question, answer = _pair(rows)
    return {
        "instruction": rows.text(question),
        "input": rows.text_or_empty(INPUT),
        "output": rows.text(answer),
        SYSTEM: rows.text_or_empty(SYSTEM),
    }


def _preference(rows: _Rows) -> Columns:
    name = "prompt" if rows.has("prompt") else "instruction"
    if _is_dialogue(rows.column(name).type):
        prompt = _after_system(rows, rows.dialogue(name))
    else:
        prompt = _dialogue(rows, [("user", _question(rows, name))])
    return {"prompt": prompt, **{side: _answer(rows, side) for side in ("chosen", "rejected")}}


def _answer(rows: _Rows, name: str) -> pa.Array:
    if _is_dialogue(rows.column(name).type):
        return rows.dialogue(name)
    answers = rows.text(name)
    return _lists(np.ones(rows.num_rows, np.int64), pa.array(["assistant"] * rows.num_rows, pa.string()), answers)


def _prompt_completion(rows: _Rows) -> Columns:
    name, answer = _pair(rows)
    question = _question(rows, name)
    if rows.has(SYSTEM):
        system = rows.text_or_empty(SYSTEM)
        joined = pc.binary_join_element_wise(system, question, BREAK)
        question = pc.if_else(pc.equal(system, ""), question, joined)
    ends_in_space = pc.match_substring_regex(question, r"\s\z")
    prompt = pc.if_else(ends_in_space, question, pc.binary_join_element_wise(question, "", BREAK))
    return {"prompt": prompt, "completion": rows.text(answer)}


def _dialogue(rows: _Rows, turns: Sequence[tuple[str, pa.Array]]) -> pa.Array:
    """DIALOGUE with one message per turn, after the system message of the row."""
    num, many = rows.num_rows, len(turns)
    contents = pa.concat_arrays([content for _, content in turns])
    order = np.arange(num * many).reshape(many, num).T.ravel()
    roles = pa.array([role for role, _ in turns] * num, pa.string())
    return _after_system(rows, _lists(np.full(num, many), roles, contents.take(pa.array(order))))


def _after_system(rows: _Rows, dialogues: pa.Array) -> pa.Array:
    """Prepend the system message of the row, unless it is empty or the dialogue begins with a system message."""
    if not rows.has(SYSTEM):
        return dialogues
    system, lengths = rows.text_or_empty(SYSTEM), pc.list_value_length(dialogues).to_numpy(zero_copy_only=False)
    inner = dialogues.flatten()
    roles, contents = pc.struct_field(inner, "role"), pc.struct_field(inner, "content")
    starts = (np.cumsum(lengths) - lengths).astype(np.int64)
    has_system = np.asarray(pc.equal(roles.take(pa.array(starts)), SYSTEM))
    missing = np.flatnonzero(np.asarray(pc.not_equal(system, "")) & ~has_system)
    order = np.insert(np.arange(len(inner)) + len(system), starts[missing], missing)
    all_contents = pa.concat_arrays([system, contents]).take(pa.array(order))
    all_roles = pa.concat_arrays([pa.array([SYSTEM] * len(system), pa.string()), roles]).take(pa.array(order))
    return _lists(lengths + np.isin(np.arange(len(lengths)), missing), all_roles, all_contents)


def _lists(lengths: np.ndarray, roles: pa.Array, contents: pa.Array) -> pa.Array:
    """DIALOGUE with `lengths[i]` messages in row i."""
    offsets = pa.array(np.r_[0, np.cumsum(lengths)].astype(np.int32))
    inner = pa.StructArray.from_arrays([roles, contents], fields=list(MESSAGE))
    return pa.ListArray.from_arrays(offsets, inner, type=DIALOGUE)
