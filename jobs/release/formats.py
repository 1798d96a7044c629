"""The formats of a release: row layouts that trainers read, converted from the columns of the methods.

rows               the columns of the run as they are
messages           `messages`: a list of messages, the input of chat templates; the column `reasoning` becomes the
                   `reasoning_content` of the last answer, where chat templates look for it
alpaca             `instruction`, `input`, `output`: strings; `system` if the run has it
preference         `prompt`, `chosen`, `rejected`: each a list of messages, the prompt explicit
text               `text`: string
prompt-completion  `prompt`, `completion`: strings that form one text, or lists of messages

A format keeps only `id` and its own columns, because collators reject unexpected columns. The run keeps the provenance
of each id. Column names decide which is the question and which the answer: `instruction` (and `input`) goes with
`output`, `code` or `solution`; `prompt` goes with `completion`, `chosen` or else `text`. A column `system` comes first.
Formats with messages keep `tools`, `chat_template_kwargs`, `images` and `image`, which TRL reads beside them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.jobs.release.dialogues import (
    JSON,
    THINKING,
    THOUGHTS,
    CannotCarry,
    array_of,
    encoded,
    is_dialogue,
    is_text,
    message_type,
    parsed,
    plain_dialogues,
    python_values,
)
from gristmill.jobs.release.row_shapes import (
    FUNCTIONS,
    INPUT,
    SYSTEM,
    TOOLS,
    Converted,
    Refusal,
    Row,
    alpaca,
    messages,
    own_messages,
    pair,
    preference,
    prompt_completion,
    texts,
    value_of,
    with_columns_beside,
    with_reasoning,
    without_reasoning,
)
from gristmill.records.errors import UserError
from gristmill.records.schema import IDENTITY, IMAGE, REASONING, RESERVED, with_images

ROWS = "rows"
MESSAGES, ALPACA, PREFERENCE, TEXT, PROMPT_COMPLETION = "messages", "alpaca", "preference", "text", "prompt-completion"
FORMATS = (ROWS, MESSAGES, ALPACA, PREFERENCE, TEXT, PROMPT_COMPLETION)
FORMAT_KEY = b"gristmill.format"  # metadata key in the schema of a shard
KWARGS = "chat_template_kwargs"
DIALOGUES = ("messages", "conversations", "conversation")  # columns that hold whole dialogues
ANSWERS = {"instruction": ("output", "code", "solution"), "prompt": ("completion", "chosen", "text")}
IMAGES = ("images", "image")
ID, SOURCE = IDENTITY[0], "source_id"


@dataclass(frozen=True)
class RowFormat:
    """Converts the rows of one run or mixture to a format. Can be pickled."""

    name: str
    reads: tuple[str, ...]  # columns of the rows beside `id`
    schema: pa.Schema
    _convert: Callable[[Row], Converted]
    task: ClassVar[str] = "text-generation"  # the task category that all formats are for

    def convert(self, table: pa.Table, keep: Sequence[str] = ()) -> pa.Table:
        """Convert rows to `schema` in the same order; the columns named in `keep` are appended.

        Raises UserError with the row id for a value that the format needs and a row lacks, and for a value that has no
        place in the format.
        """
        converted = pa.table(self._plain_arrays(table) or self._arrays(table), schema=self.schema)
        for name in keep:
            converted = converted.append_column(name, table.column(name))
        return converted

    def _plain_arrays(self, table: pa.Table) -> list[Any] | None:
        if self.name != MESSAGES or len(self.reads) > 1:
            return None
        dialogues = plain_dialogues(table.column(self.reads[0]), self.schema.field("messages").type)
        return None if dialogues is None else [table.column(ID.name), dialogues]

    def _arrays(self, table: pa.Table) -> list[Any]:
        place = [SOURCE] if SOURCE in table.column_names else []
        names = dict.fromkeys([ID.name, *place, *self.reads])
        columns = {name: python_values(table.column(name)) for name in names}
        json = [name for name in names if _is_json(table.schema, name)]
        rows = [self._converted(dict(zip(columns, values)), json) for values in zip(*columns.values())]
        return [array_of([row[f.name] for row in rows], f.type) for f in self.schema]

    def _converted(self, row: dict[str, Any], json: Sequence[str]) -> Converted:
        name = ID.name
        try:
            row |= {column: value_of(row, column, lambda text: text and parsed(text, "a value")) for column in json}
            values = {name: row[name], **self._convert(row)}
            for field in self.schema:
                name = field.name
                values[name] = encoded(values[name], field.type)
            return values
        except Refusal as refusal:
            what = str(refusal)
        except CannotCarry as error:
            what = f"'{name}' {error}"
        remedy = "pack as rows, or reject these rows in the recipe"
        place = f" (source {row[SOURCE]})" if row.get(SOURCE) else ""
        raise UserError(f"row {row[ID.name]}{place}: {what}, so it cannot become {self.name}; {remedy}")


def find_format(name: str, columns: pa.Schema, has_reasoning: bool = True) -> RowFormat | None:
    """The converter from these columns to the format; None for `rows`.

    has_reasoning: whether messages have the model's reasoning, if the rows have it.
    Raises UserError with the missing columns and the formats that fit.
    """
    if name == ROWS:
        return None
    if name not in FORMATS:
        raise UserError(f"--format {name}: unknown format (known: {', '.join(FORMATS)})")
    if name == MESSAGES and not has_reasoning and REASONING.name in columns.names:
        columns = columns.remove(columns.get_field_index(REASONING.name))
    if row_format := _find(name, columns):
        if name == MESSAGES and not has_reasoning:
            return _without_reasoning(row_format)
        return row_format
    fitting = [ROWS, *(n for n in FORMATS[1:] if _find(n, columns))]
    texts = [f.name for f in columns if f.name not in RESERVED and (is_text(f.type) or is_dialogue(f.type))]
    raise UserError(
        f"--format {name} needs {_needs(name, columns)}; the columns with text are {', '.join(texts) or 'none'}. "
        f"Formats that fit: {', '.join(fitting)}"
    )


def format_of_schema(schema: pa.Schema) -> str | None:
    """The format recorded in the schema of a shard; None for `rows` and for files that gristmill did not write."""
    note = (schema.metadata or {}).get(FORMAT_KEY)
    return note.decode() if note else None


def _needs(name: str, columns: pa.Schema) -> str:
    either = "instruction with output, code or solution, or prompt with completion or text"
    if name == PREFERENCE:
        has_prompt = _has(columns, "prompt") or _has(columns, "instruction")
        missing = [] if has_prompt else ["prompt (or instruction)"]
        missing += [n for n in ("chosen", "rejected") if not _has(columns, n)]
        return f"{' and '.join(missing)} in addition to the present columns"
    return {MESSAGES: f"messages, or {either}", TEXT: "a column text of strings"}.get(name, either)


def _is_json(columns: pa.Schema, name: str) -> bool:
    """Whether the texts of a column are JSON: by their type, and in columns that hold whole dialogues."""
    kind = columns.field(name).type
    return bool(kind == JSON or (name in (*DIALOGUES, KWARGS) and is_text(kind)))


def _has(columns: pa.Schema, name: str | None) -> bool:
    return name in columns.names and (is_text(columns.field(name).type) or is_dialogue(columns.field(name).type))


def _has_text(columns: pa.Schema, name: str) -> bool:
    return name in columns.names and is_text(columns.field(name).type)


def _find(name: str, columns: pa.Schema) -> RowFormat | None:
    """The converter of a format, None where the columns do not fit."""
    if name == TEXT:
        convert = partial(texts, names={TEXT: TEXT})
        return _format(name, [TEXT], {TEXT: pa.string()}, convert) if _has_text(columns, TEXT) else None
    if name == PREFERENCE:
        return _preference_format(columns)
    dialogue = next((n for n in DIALOGUES if _has(columns, n)), None)
    if name == MESSAGES and dialogue:
        return _messages_format(columns, [dialogue], partial(own_messages, dialogue=dialogue))
    has = _has_text if name == ALPACA else _has
    pairs = [(n, a) for n in ANSWERS for a in ANSWERS[n] if has(columns, n) and has(columns, a)]
    if not pairs:
        return None
    question, answer = pairs[0]
    above = [n for n in (INPUT, SYSTEM) if _has_text(columns, n) and (n == SYSTEM or question == "instruction")]
    convert = partial(pair, question=question, answer=answer)
    if name == MESSAGES:
        return _messages_format(columns, [question, answer], partial(messages, convert), above)
    if name == PROMPT_COMPLETION and any(is_dialogue(columns.field(n).type) for n in (question, answer)):
        both = [question, answer]
        return _of_dialogues(name, columns, {"prompt": both, "completion": both}, convert, above)
    beside = [n for n in (TOOLS, FUNCTIONS, *(IMAGES if name == ALPACA else ())) if n in columns.names]
    reads, kept = [question, answer, *above, *beside], {}
    if name == PROMPT_COMPLETION:
        kept = {n: columns.field(n).type for n in IMAGES if _is_image(columns, n)}
        plain = partial(prompt_completion, question=question, answer=answer, beside=beside, kept=tuple(kept))
        return _format(name, [*reads, *kept], {"prompt": pa.string(), "completion": pa.string(), **kept}, plain)
    names = ("instruction", "input", "output", *((SYSTEM,) if SYSTEM in above else ()))
    plain = partial(alpaca, question=question, answer=answer, beside=beside)
    return _format(name, reads, dict.fromkeys(names, pa.string()), plain)


def _preference_format(columns: pa.Schema) -> RowFormat | None:
    prompts = ("prompt", "instruction", "conversations", "conversation")  # ShareGPT keeps the prompt of a pair there
    prompt = next((n for n in prompts if _has(columns, n)), None)
    sides = [n for n in ("chosen", "rejected") if _has(columns, n)]
    has_dialogues = all(is_dialogue(columns.field(n).type) for n in sides)
    if len(sides) < 2 or not (prompt or has_dialogues):
        return None
    above = [n for n in (INPUT, SYSTEM) if _has_text(columns, n) and (n == SYSTEM or prompt == "instruction")]
    every = [*([prompt] if prompt else []), *sides]
    targets = dict.fromkeys(("prompt", "chosen", "rejected"), every)
    return _of_dialogues(PREFERENCE, columns, targets, partial(preference, prompt=prompt), above)


def _messages_format(
    columns: pa.Schema, sources: list[str], convert: Callable[[Row], Converted], above: Sequence[str] = ()
) -> RowFormat:
    if not _has_text(columns, REASONING.name):
        return _of_dialogues(MESSAGES, columns, {"messages": sources}, convert, above)
    convert = partial(with_reasoning, convert, column=REASONING.name)
    return _of_dialogues(MESSAGES, columns, {"messages": sources}, convert, [*above, REASONING.name], has_thoughts=True)


def _without_reasoning(row_format: RowFormat) -> RowFormat:
    """The format without the fields of messages that hold reasoning."""
    schema = row_format.schema
    at = schema.get_field_index("messages")
    inner = schema.field(at).type.value_type
    if inner != JSON:
        kept = pa.struct([field for field in inner if field.name not in THOUGHTS])
        schema = schema.set(at, pa.field("messages", pa.list_(kept)))
    return replace(row_format, schema=schema, _convert=partial(without_reasoning, row_format._convert))


def _of_dialogues(
    name: str,
    columns: pa.Schema,
    targets: Mapping[str, Sequence[str]],
    convert: Callable[[Row], Converted],
    above: Sequence[str] = (),
    has_thoughts: bool = False,
) -> RowFormat:
    """A format whose columns are dialogues: `targets` names the columns that each is made of.

    has_thoughts: whether a message may hold the reasoning of another column.
    """
    sources = [n for names in targets.values() for n in names]
    kinds = [JSON if _is_json(columns, n) else columns.field(n).type for n in sources]
    message = pa.list_(message_type([*kinds, *([THINKING] if has_thoughts else [])]))
    types: dict[str, pa.DataType] = dict.fromkeys(targets, message)
    tools = tuple(n for n in (TOOLS, FUNCTIONS) if n in columns.names)
    types |= {TOOLS: pa.list_(JSON)} if tools else {}
    types |= {KWARGS: JSON} if KWARGS in columns.names else {}
    types |= {n: columns.field(n).type for n in IMAGES if _is_image(columns, n)}
    beside = [n for n in types if n not in targets and n != TOOLS]
    system = [SYSTEM] if _has_text(columns, SYSTEM) else []
    reads = dict.fromkeys([*sources, *above, *system, *tools, *beside])
    return _format(name, list(reads), types, partial(with_columns_beside, convert, tools=tools, beside=tuple(beside)))


def _format(
    name: str, reads: Sequence[str], types: Mapping[str, pa.DataType], convert: Callable[[Row], Converted]
) -> RowFormat:
    schema = with_images(pa.schema([ID, *(pa.field(n, kind) for n, kind in types.items())]))
    schema = schema.with_metadata({**(schema.metadata or {}), FORMAT_KEY: name.encode()})
    return RowFormat(name, tuple(dict.fromkeys(reads)), schema, convert)


def _is_image(columns: pa.Schema, name: str) -> bool:
    kind = columns.field(name).type if name in columns.names else pa.null()
    return kind == IMAGE or kind == pa.list_(IMAGE)
