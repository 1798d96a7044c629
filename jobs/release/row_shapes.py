"""One row of a run in the shape of a format: its question, answer, dialogue, and what is trained beside them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gristmill.jobs.release.dialogues import THOUGHTS, CannotCarry, functions_of, messages_of, tools_of

SYSTEM, INPUT, TOOLS, FUNCTIONS = "system", "input", "tools", "functions"
BREAK = "\n\n"  # between an instruction and its input, and after a prompt without trailing white space
SPACES = (" ", "\t", "\n", "\f", "\r")
Row = Mapping[str, Any]  # a row of the run, by the names of its columns
Converted = dict[str, Any]


class Refusal(CannotCarry):
    """A value that a format cannot hold; the message names its column."""


def value_of(row: Row, name: str, convert: Callable[[Any], Any]) -> Any:
    try:
        return convert(row[name])
    except CannotCarry as error:
        raise Refusal(f"'{name}' {error}") from None


def _text(row: Row, name: str) -> str:
    if row[name] is None:
        raise Refusal(f"'{name}' is null")
    return str(row[name])


def texts(row: Row, names: Mapping[str, str]) -> Converted:
    return {target: _text(row, name) for target, name in names.items()}


def _question(row: Row, name: str) -> str:
    """Text of the user: the prompt, or the instruction with its input, if any, below."""
    text, extra = _text(row, name), row.get(INPUT) or ""
    return f"{text}{BREAK}{extra}" if extra else text


def _after_system(row: Row, messages: list[Any]) -> list[Any]:
    """Prepend the system message of the row, unless it is empty or the dialogue begins with a system message."""
    has_own = bool(messages) and messages[0]["role"] == SYSTEM
    return messages if has_own or not row.get(SYSTEM) else [{"role": SYSTEM, "content": row[SYSTEM]}, *messages]


def with_columns_beside(
    convert: Callable[[Row], Converted], row: Row, tools: Sequence[str], beside: Sequence[str]
) -> Converted:
    """The dialogues of a row with the columns that TRL reads beside them. `tools`: of `tools` and `functions`."""
    values = {name: row[name] for name in beside}
    if tools:
        lists = [value_of(row, name, functions_of if name == FUNCTIONS else tools_of) for name in tools]
        if len([tools for tools in lists if tools]) > 1:
            raise Refusal("'tools' and 'functions' both have values")
        values[TOOLS] = next((tools for tools in lists if tools), lists[0])
    return {**convert(row), **values}


def own_messages(row: Row, dialogue: str) -> Converted:
    return {"messages": _after_system(row, value_of(row, dialogue, messages_of))}


def with_reasoning(convert: Callable[[Row], Converted], row: Row, column: str) -> Converted:
    """The messages of a row with the reasoning in `column` in its last answer, unless that states its own."""
    converted = convert(row)
    dialogue = list(converted["messages"])
    last = next((at for at in reversed(range(len(dialogue))) if dialogue[at]["role"] == "assistant"), None)
    if row[column] and last is not None and not any(dialogue[last].get(name) for name in THOUGHTS):
        dialogue[last] = {**dialogue[last], "reasoning_content": row[column]}
    return {**converted, "messages": dialogue}


def without_reasoning(convert: Callable[[Row], Converted], row: Row) -> Converted:
    """The messages of a row without the fields that hold reasoning."""
    converted = convert(row)
    messages = [{key: m[key] for key in m if key not in THOUGHTS} for m in converted["messages"]]
    return {**converted, "messages": messages}


def _side(row: Row, name: str, role: str = "assistant") -> list[Any]:
    """A column of dialogues or texts as messages."""
    if isinstance(row[name], str) or row[name] is None:
        return [{"role": role, "content": _text(row, name) if role == "assistant" else _question(row, name)}]
    messages: list[Any] = value_of(row, name, messages_of)
    return messages


def pair(row: Row, question: str, answer: str) -> Converted:
    prompt, completion = _side(row, question, "user"), _side(row, answer)
    return {"prompt": _after_system(row, prompt), "completion": _without_prompt(completion, prompt)}


def _without_prompt(messages: list[Any], prompt: list[Any]) -> list[Any]:
    """The messages after the prompt where they repeat it, else all."""
    repeats = len(messages) > len(prompt) and messages[: len(prompt)] == prompt
    return messages[len(prompt) :] if repeats else messages


def messages(pair: Callable[[Row], Converted], row: Row) -> Converted:
    sides = pair(row)
    return {"messages": [*sides["prompt"], *sides["completion"]]}


def preference(row: Row, prompt: str | None) -> Converted:
    """Prompt and answers. Answers that hold the prompt as well, as many data sets have them, are cut after it."""
    chosen, rejected = _side(row, "chosen"), _side(row, "rejected")
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    opening = _side(row, prompt, "user") if prompt else []
    is_whole = chosen[0]["role"] != "assistant" or rejected[0]["role"] != "assistant"
    if opening and chosen[: len(opening)] == opening == rejected[: len(opening)] and shared >= len(opening):
        shared = len(opening)
    elif opening and not (is_whole and prompt and isinstance(row[prompt], str)):
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


def alpaca(row: Row, question: str, answer: str, beside: Sequence[str]) -> Converted:
    _refuse(row, beside)
    values = {"instruction": _text(row, question), "input": row.get(INPUT) or "", "output": _text(row, answer)}
    return {**values, SYSTEM: row.get(SYSTEM) or ""}


def prompt_completion(row: Row, question: str, answer: str, beside: Sequence[str], kept: Sequence[str]) -> Converted:
    _refuse(row, beside)
    prompt = _question(row, question)
    prompt = f"{row[SYSTEM]}{BREAK}{prompt}" if row.get(SYSTEM) else prompt
    return {
        "prompt": prompt if prompt.endswith(SPACES) else prompt + BREAK,
        "completion": _text(row, answer),
        **{name: row[name] for name in kept},
    }
