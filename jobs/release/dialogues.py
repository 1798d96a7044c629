"""Messages of dialogues, as chat templates take them: `role`, `content`, and every other field that a message has.

Sources: lists of structs, or JSON texts of lists of objects. A message has `role` and `content`, or, as ShareGPT writes
it, `from` and `value`. TRL documents the target (its guide "Dataset formats"): `tool_calls` with the arguments as
objects, and `tools` beside the messages. Values without a fixed shape are JSON, the type Json of `datasets`.

A null field of a struct counts as absent: Arrow cannot tell the two apart. Nulls in JSON texts are kept.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

JSON = pa.json_()
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
DIALOGUE = pa.list_(MESSAGE)
SHAREGPT = {  # the role of each `from`
    **{"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"},
    **{"chatgpt": "assistant", "model": "assistant", "function_call": "assistant", "tool_call": "assistant"},
    **{"observation": "tool", "tool": "tool", "function": "tool", "function_response": "tool"},
}
CALLS = ("function_call", "tool_call")  # `from` of a message whose value is the JSON of calls
# A message that thought before its content.
THINKING = pa.struct([*MESSAGE, pa.field("reasoning_content", pa.string())])
THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # a message with one of these needs no content
MAX_UINT = 2**64  # readers of JSON take integers below it


class CannotCarry(ValueError):
    """A value that no format can hold; the message says what it is, e.g. "has a null content"."""


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _keys(kind: pa.DataType) -> tuple[str, str] | None:
    """The fields of a message that hold its role and content; None for a struct that is no message."""
    names = {field.name: field.type for field in kind}
    role = next((name for name in ("role", "from") if name in names and is_text(names[name])), None)
    content = next((name for name in ("content", "value") if name in names and _is_content(names[name])), None)
    return (role, content) if role and content else None


def _is_content(kind: pa.DataType) -> bool:
    is_parts = is_list(kind) and (pa.types.is_struct(kind.value_type) or kind.value_type == JSON)
    return is_text(kind) or is_parts or kind == JSON or pa.types.is_null(kind)


def is_dialogue(kind: pa.DataType) -> bool:
    """Whether the type is a list of messages, or one message."""
    inner = kind.value_type if is_list(kind) else kind
    return inner == JSON or (pa.types.is_struct(inner) and _keys(inner) is not None)


def message_type(kinds: Iterable[pa.DataType]) -> pa.DataType:
    """The type that holds the messages of all these columns: texts count as messages without other fields.

    JSON where a column holds JSON; else a struct of `role`, `content` and all other fields.
    """
    fields = {"role": pa.string(), "content": pa.string()}
    for kind in kinds:
        inner = kind.value_type if is_list(kind) else kind
        if inner == JSON:
            return JSON
        if not pa.types.is_struct(inner):
            continue
        role, content = _keys(inner) or ("role", "content")
        if not is_text(inner.field(content).type) and not pa.types.is_null(inner.field(content).type):
            fields["content"] = pa.list_(JSON)
        if role == "from":
            fields.setdefault("tool_calls", pa.list_(JSON))
        for field in inner:
            if field.name in (role, content):
                continue
            name = "tool_calls" if field.name == "function_call" else field.name
            target = pa.list_(JSON) if name == "tool_calls" else _field_type(field.type)
            fields[name] = target if fields.get(name, target) == target else JSON
    return pa.struct(list(fields.items()))


def _field_type(kind: pa.DataType) -> pa.DataType:
    if is_text(kind) or pa.types.is_null(kind):
        return pa.string()
    is_plain = pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return kind if is_plain else JSON


def python_values(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column, maps as dicts, and structs without their null fields."""
    values = column.to_pylist(maps_as_pydicts="strict")
    return [_without_nulls(value) for value in values] if pa.types.is_nested(column.type) else values


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def plain_dialogues(column: pa.ChunkedArray, target: pa.DataType) -> pa.Array | None:
    """The dialogues of a column in the type `target`, all at once, where no message needs a change or a refusal.

    None where one may: each message is then looked at by itself (`messages_of`), which is 100 times slower.
    """
    if not pa.types.is_list(column.type) or not pa.types.is_struct(column.type.value_type) or column.null_count:
        return None
    inner = column.combine_chunks().flatten() if column.num_chunks != 1 else column.chunk(0).flatten()
    names = {field.name for field in column.type.value_type}
    is_other = any(not is_text(field.type) or field.name not in names for field in target.value_type)
    lengths = pc.list_value_length(column).to_numpy()
    if is_other or "function_call" in names or inner.null_count or not lengths.all():
        return None
    fields = [pc.struct_field(inner, field.name).cast(field.type) for field in target.value_type]
    roles, contents = fields[:2]
    if roles.null_count or contents.null_count or pc.any(pc.is_in(roles, pa.array(["", "function"]))).as_py():
        return None
    structs = pa.StructArray.from_arrays(fields, fields=list(target.value_type))
    return pa.ListArray.from_arrays(np.r_[0, np.cumsum(lengths)].astype(np.int32), structs, type=target)


def messages_of(value: Any) -> list[dict[str, Any]]:
    """The messages of a dialogue: a list of objects or of their JSON texts, or one message.

    Raises CannotCarry for a dialogue without messages, and for a message that has no place in a format.
    """
    messages = [value] if isinstance(value, Mapping) else value
    if not isinstance(messages, list) or not messages:
        raise CannotCarry("holds no message")
    return [_message(parsed(message, "a message") if isinstance(message, str) else message) for message in messages]


def _message(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise CannotCarry("has a message that is no object" if raw is not None else "has a null message")
    is_sharegpt = "role" not in raw and "from" in raw
    content_key = "value" if "content" not in raw and "value" in raw else "content"
    role, content = raw.get("from" if is_sharegpt else "role"), raw.get(content_key)
    rest = {key: value for key, value in raw.items() if key not in ("from" if is_sharegpt else "role", content_key)}
    if not isinstance(role, str) or not role:
        raise CannotCarry("has a null role")
    if is_sharegpt:
        if role not in SHAREGPT:
            raise CannotCarry(f"has a message from '{role}' (known: {', '.join(SHAREGPT)})")
        if role in CALLS:
            rest["tool_calls"], content = content, None
        role = SHAREGPT[role]
    if (call := rest.pop("function_call", None)) is not None:
        if rest.get("tool_calls"):
            raise CannotCarry("has both tool_calls and function_call in a message")
        rest["tool_calls"] = call
    if rest.get("tool_calls") is not None:
        rest["tool_calls"] = [_call(call) for call in _items(rest["tool_calls"], "tool_calls")]
    if content is None and not rest.get("tool_calls") and not any(rest.get(name) for name in THOUGHTS):
        raise CannotCarry("has a null content")
    return {"role": "tool" if role == "function" else role, "content": content, **rest}


def _items(value: Any, what: str) -> list[Any]:
    """A list of objects that may be JSON text, as a whole or one by one; one object counts as a list of one."""
    value = parsed(value, what) if isinstance(value, str) else value
    if isinstance(value, Mapping):
        value = [value]
    items = [parsed(item, what) if isinstance(item, str) else item for item in value] if isinstance(value, list) else []
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in items):
        raise CannotCarry(f"has {what} that are no objects")
    return items


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call with its arguments as an object, also of `{name, arguments}` without `function` around it."""
    if "function" not in call and "name" in call:
        call = {"type": "function", "function": call}
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise CannotCarry("has a tool call without the name of a function")
    arguments = function.get("arguments")
    if isinstance(arguments, str) and arguments.strip():
        arguments = parsed(arguments, "arguments of a tool call")
    if arguments and not isinstance(arguments, Mapping):
        raise CannotCarry("has arguments of a tool call that are no object")
    return {**call, "function": {**function, "arguments": arguments or {}}}


def tools_of(value: Any) -> list[Any] | None:
    """The list of tools of a row, from structs or JSON; None where there are none."""
    return None if value is None or value == "" else _items(value, "tools")


def functions_of(value: Any) -> list[Any] | None:
    """`tools_of` for a list of bare functions, as OpenAI's `functions` had them."""
    functions = tools_of(value)
    return functions and [{"type": "function", "function": function} for function in functions]


def parsed(text: str, what: str) -> Any:
    """The value of a JSON text. Raises CannotCarry for any other text, and for an object with a key twice."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refused)
    except (ValueError, RecursionError):
        raise CannotCarry(f"has {what} that {'is' if what.startswith('a ') else 'are'} no valid JSON") from None


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(table := dict(pairs)) < len(pairs):
        raise ValueError("a key occurs twice")
    return table


def _refused(constant: str) -> Any:
    raise ValueError(constant)


def json_of(value: Any) -> str:
    """The JSON text of a value, which `datasets` reads back as the same value. Raises CannotCarry for other values."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except TypeError:
        raise CannotCarry("has a value (bytes, a time) that JSON cannot hold") from None
    except (ValueError, RecursionError):  # NaN, half a character
        raise CannotCarry("has a number or a character that JSON cannot hold") from None
    if _has_big_integer(value):
        raise CannotCarry("has an integer of more than 64 bits")
    return text


def _has_big_integer(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_big_integer, value.values()))
    if isinstance(value, list):
        return any(map(_has_big_integer, value))
    return isinstance(value, int) and not -(MAX_UINT // 2) <= value < MAX_UINT


def encoded(value: Any, kind: pa.DataType) -> Any:
    """A value as `array_of` takes it. Raises CannotCarry for a value that the type cannot hold."""
    if value is None:
        return None
    if kind == JSON:
        return json_of(value)
    if is_list(kind):
        values = [{"type": "text", "text": value}] if isinstance(value, str) and kind.value_type == JSON else value
        return [encoded(inner, kind.value_type) for inner in values]
    if pa.types.is_struct(kind):
        return {field.name: encoded(value.get(field.name), field.type) for field in kind}
    if is_text(kind) and not isinstance(value, str):
        raise CannotCarry(f"has a {type(value).__name__} in place of a text")
    return value


def array_of(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Encoded values as an array."""
    return pa.array(values, _storage(kind)).cast(kind)


def _storage(kind: pa.DataType) -> pa.DataType:
    if kind == JSON:
        return pa.string()
    if is_list(kind):
        return pa.list_(_storage(kind.value_type))
    return pa.struct([(field.name, _storage(field.type)) for field in kind]) if pa.types.is_struct(kind) else kind
