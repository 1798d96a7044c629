"""The formats of a release: row layouts that trainers read, converted from the columns of the methods.

rows               the columns of the run as they are
messages           `messages`: a list of messages, the input of chat templates
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
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.jobs.release.dialogues import (
    JSON,
    CannotCarry,
    array_of,
    encoded,
    functions_of,
    is_dialogue,
    is_text,
    message_type,
    messages_of,
    parsed,
    python_values,
    tools_of,
)
from gristmill.records.errors import UserError
from gristmill.records.schema import IDENTITY, IMAGE, RESERVED, with_images

ROWS = "rows"
MESSAGES, ALPACA, PREFERENCE, TEXT, PROMPT_COMPLETION = "messages", "alpaca", "preference", "text", "prompt-completion"
FORMATS = (ROWS, MESSAGES, ALPACA, PREFERENCE, TEXT, PROMPT_COMPLETION)
FORMAT_KEY = b"gristmill.format"  # metadata key in the schema of a shard
SYSTEM, INPUT, TOOLS, FUNCTIONS, KWARGS = "system", "input", "tools", "functions", "chat_template_kwargs"
DIALOGUES = ("messages", "conversations", "conversation")  # columns that hold whole dialogues
ANSWERS = {"instruction": ("output", "code", "solution"), "prompt": ("completion", "chosen", "text")}
IMAGES = ("images", "image")
BREAK = "\n\n"  # between an instruction and its input, and after a prompt without trailing white space
SPACES = (" ", "\t", "\n", "\f", "\r")
ID = IDENTITY[0]
Row = Mapping[str, Any]  # a row of the run, by the names of its columns
Converted = dict[str, Any]


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
        names = dict.fromkeys([ID.name, *self.reads])
        columns = {name: python_values(table.column(name)) for name in names}
        json = [name for name in names if _is_json(table.schema, name)]
        rows = [self._converted(dict(zip(columns, values)), json) for values in zip(*columns.values())]
        arrays = [array_of([row[f.name] for row in rows], f.type) for f in self.schema]
        converted = pa.table(arrays, schema=self.schema)
        for name in keep:
            converted = converted.append_column(name, table.column(name))
        return converted

    def _converted(self, row: dict[str, Any], json: Sequence[str]) -> Converted:
        name = ID.name
        try:
            row |= {column: _value(row, column, lambda text: text and parsed(text, "a value")) for column in json}
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
        raise UserError(f"row {row[ID.name]}: {what}, so it cannot become {self.name}; {remedy}")


class Refusal(CannotCarry):
    """A value that a format cannot hold; the message names its column."""


def find_format(name: str, columns: pa.Schema) -> RowFormat | None:
    """The converter from these columns to the format; None for `rows`.

    Raises UserError with the missing columns and the formats that fit.
    """
    if name == ROWS:
        return None
    if name not in FORMATS:
        raise UserError(f"--format {name}: unknown format (known: {', '.join(FORMATS)})")
    if row_format := _find(name, columns):
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
        convert = partial(_texts, names={TEXT: TEXT})
        return _format(name, [TEXT], {TEXT: pa.string()}, convert) if _has_text(columns, TEXT) else None
    if name == PREFERENCE:
        return _preference_format(columns)
    dialogue = next((n for n in DIALOGUES if _has(columns, n)), None)
    if name == MESSAGES and dialogue:
        return _of_dialogues(name, columns, {"messages": [dialogue]}, partial(_own_messages, dialogue=dialogue))
    has = _has_text if name == ALPACA else _has
    pairs = [(n, a) for n in ANSWERS for a in ANSWERS[n] if has(columns, n) and has(columns, a)]
    if not pairs:
        return None
    question, answer = pairs[0]
    above = [n for n in (INPUT, SYSTEM) if _has_text(columns, n) and (n == SYSTEM or question == "instruction")]
    convert = partial(_pair, question=question, answer=answer)
    if name == MESSAGES:
        return _of_dialogues(name, columns, {"messages": [question, answer]}, partial(_messages, convert), above)
    if name == PROMPT_COMPLETION and any(is_dialogue(columns.field(n).type) for n in (question, answer)):
        both = [question, answer]
        return _of_dialogues(name, columns, {"prompt": both, "completion": both}, convert, above)
    beside = [n for n in (TOOLS, FUNCTIONS, *(IMAGES if name == ALPACA else ())) if n in columns.names]
    reads, kept = [question, answer, *above, *beside], {}
    if name == PROMPT_COMPLETION:
        kept = {n: columns.field(n).type for n in IMAGES if _is_image(columns, n)}
        plain = partial(_prompt_completion, question=question, answer=answer, beside=beside, kept=tuple(kept))
        return _format(name, [*reads, *kept], {"prompt": pa.string(), "completion": pa.string(), **kept}, plain)
    names = ("instruction", "input", "output", *((SYSTEM,) if SYSTEM in above else ()))
    plain = partial(_alpaca, question=question, answer=answer, beside=beside)
    return _format(name, reads, dict.fromkeys(names, pa.string()), plain)


def _preference_format(columns: pa.Schema) -> RowFormat | None:
    prompt = next((n for n in ("prompt", "instruction") if _has(columns, n)), None)
    sides = [n for n in ("chosen", "rejected") if _has(columns, n)]
    has_dialogues = all(is_dialogue(columns.field(n).type) for n in sides)
    if len(sides) < 2 or not (prompt or has_dialogues):
        return None
    above = [n for n in (INPUT, SYSTEM) if _has_text(columns, n) and (n == SYSTEM or prompt == "instruction")]
    every = [*([prompt] if prompt else []), *sides]
    targets = dict.fromkeys(("prompt", "chosen", "rejected"), every)
    return _of_dialogues(PREFERENCE, columns, targets, partial(_preference, prompt=prompt), above)


def _of_dialogues(
    name: str,
    columns: pa.Schema,
    targets: Mapping[str, Sequence[str]],
    convert: Callable[[Row], Converted],
    above: Sequence[str] = (),
) -> RowFormat:
    """A format whose columns are dialogues: `targets` names the columns that each is made of."""
    sources = [n for names in targets.values() for n in names]
    kinds = [JSON if _is_json(columns, n) else columns.field(n).type for n in sources]
    message = pa.list_(message_type(kinds))
    types: dict[str, pa.DataType] = dict.fromkeys(targets, message)
    tools = next((n for n in (TOOLS, FUNCTIONS) if n in columns.names), None)
    types |= {TOOLS: pa.list_(JSON)} if tools else {}
    types |= {KWARGS: JSON} if KWARGS in columns.names else {}
    types |= {n: columns.field(n).type for n in IMAGES if _is_image(columns, n)}
    beside = [n for n in types if n not in targets and n != TOOLS]
    system = [SYSTEM] if _has_text(columns, SYSTEM) else []
    reads = dict.fromkeys([*sources, *above, *system, *([tools] if tools else []), *beside])
    return _format(name, list(reads), types, partial(_beside, convert, tools=tools, beside=tuple(beside)))


def _format(
    name: str, reads: Sequence[str], types: Mapping[str, pa.DataType], convert: Callable[[Row], Converted]
) -> RowFormat:
    schema = with_images(pa.schema([ID, *(pa.field(n, kind) for n, kind in types.items())]))
    schema = schema.with_metadata({**(schema.metadata or {}), FORMAT_KEY: name.encode()})
    return RowFormat(name, tuple(dict.fromkeys(reads)), schema, convert)


def _is_image(columns: pa.Schema, name: str) -> bool:
    kind = columns.field(name).type if name in columns.names else pa.null()
    return kind == IMAGE or kind == pa.list_(IMAGE)


def _value(row: Row, name: str, convert: Callable[[Any], Any]) -> Any:
    try:
        return convert(row[name])
    except CannotCarry as error:
        raise Refusal(f"'{name}' {error}") from None


def _text(row: Row, name: str) -> str:
    if row[name] is None:
        raise Refusal(f"'{name}' is null")
    return str(row[name])


def _texts(row: Row, names: Mapping[str, str]) -> Converted:
    return {target: _text(row, name) for target, name in names.items()}


def _question(row: Row, name: str) -> str:
    """Text of the user: the prompt, or the instruction with its input, if any, below."""
    text, extra = _text(row, name), row.get(INPUT) or ""
    return f"{text}{BREAK}{extra}" if extra else text


def _after_system(row: Row, messages: list[Any]) -> list[Any]:
    """Prepend the system message of the row, unless it is empty or the dialogue begins with a system message."""
    has_own = bool(messages) and messages[0]["role"] == SYSTEM
    return messages if has_own or not row.get(SYSTEM) else [{"role": SYSTEM, "content": row[SYSTEM]}, *messages]


def _beside(convert: Callable[[Row], Converted], row: Row, tools: str | None, beside: Sequence[str]) -> Converted:
    """The dialogues of a row with the columns that TRL reads beside them."""
    found = {name: row[name] for name in beside}
    if tools:
        found[TOOLS] = _value(row, tools, functions_of if tools == FUNCTIONS else tools_of)
    return {**convert(row), **found}


def _own_messages(row: Row, dialogue: str) -> Converted:
    return {"messages": _after_system(row, _value(row, dialogue, messages_of))}


def _side(row: Row, name: str, role: str = "assistant") -> list[Any]:
    """A column of dialogues or texts as messages."""
    if isinstance(row[name], str) or row[name] is None:
        return [{"role": role, "content": _text(row, name) if role == "assistant" else _question(row, name)}]
    messages: list[Any] = _value(row, name, messages_of)
    return messages


def _pair(row: Row, question: str, answer: str) -> Converted:
    prompt, completion = _side(row, question, "user"), _side(row, answer)
    return {"prompt": _after_system(row, prompt), "completion": _without_prompt(completion, prompt)}


def _without_prompt(messages: list[Any], prompt: list[Any]) -> list[Any]:
    """The messages after the prompt where they repeat it, else all."""
    repeats = len(messages) > len(prompt) and messages[: len(prompt)] == prompt
    return messages[len(prompt) :] if repeats else messages


def _messages(pair: Callable[[Row], Converted], row: Row) -> Converted:
    sides = pair(row)
    return {"messages": [*sides["prompt"], *sides["completion"]]}


def _preference(row: Row, prompt: str | None) -> Converted:
    """Prompt and answers. Answers that hold the prompt as well, as many data sets have them, are cut after it."""
    chosen, rejected = _side(row, "chosen"), _side(row, "rejected")
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    opening = _side(row, prompt, "user") if prompt else []
    is_whole = chosen[0]["role"] != "assistant" or rejected[0]["role"] != "assistant"
    if opening and chosen[: len(opening)] == opening == rejected[: len(opening)] and shared >= len(opening):
        shared = len(opening)
    elif opening and not (is_whole and isinstance(row[prompt], str)):
        shared = 0
    elif not shared:
        raise Refusal("'chosen' and 'rejected' begin differently, and no column holds their prompt")
    elif opening and not any(opening[0]["content"] == message["content"] for message in chosen[:shared]):
        raise Refusal(f"'{prompt}' is not in the dialogues 'chosen' and 'rejected', which begin with another prompt")
    head = chosen[:shared] or opening
    return {"prompt": _after_system(row, head), "chosen": chosen[shared:], "rejected": rejected[shared:]}


def _refuse(row: Row, names: Sequence[str]) -> None:
    for name in names:
        if row[name]:
            raise Refusal(f"'{name}' has no place beside plain texts")


def _alpaca(row: Row, question: str, answer: str, beside: Sequence[str]) -> Converted:
    _refuse(row, beside)
    values = {"instruction": _text(row, question), "input": row.get(INPUT) or "", "output": _text(row, answer)}
    return {**values, SYSTEM: row.get(SYSTEM) or ""}


def _prompt_completion(row: Row, question: str, answer: str, beside: Sequence[str], kept: Sequence[str]) -> Converted:
    _refuse(row, beside)
    prompt = _question(row, question)
    prompt = f"{row[SYSTEM]}{BREAK}{prompt}" if row.get(SYSTEM) else prompt
    return {
        "prompt": prompt if prompt.endswith(SPACES) else prompt + BREAK,
        "completion": _text(row, answer),
        **{name: row[name] for name in kept},
    }
