"""Messages of a trajectory: their column, and a text of them for people and judges."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

Message = Mapping[str, Any]
FUNCTION = pa.struct([pa.field("name", pa.string()), pa.field("arguments", pa.string())])  # arguments: a JSON object
CALL = pa.struct([pa.field("id", pa.string()), pa.field("type", pa.string()), pa.field("function", FUNCTION)])
# As trainers take them: https://huggingface.co/docs/trl/dataset_formats, tool calling.
MESSAGES = pa.field(
    "messages",
    pa.list_(
        pa.struct(
            [
                pa.field("role", pa.string()),  # system, user, assistant or tool
                pa.field("content", pa.string()),
                pa.field("reasoning_content", pa.string()),  # what the model thought before, where the engine parts it
                pa.field("tool_calls", pa.list_(CALL)),  # of the assistant
                pa.field("tool_call_id", pa.string()),  # of a tool: the id of the call that it answers
                pa.field("name", pa.string()),  # of a tool: its name
            ]
        )
    ),
)
SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


def is_messages(kind: pa.DataType) -> bool:
    """Whether a column of this type holds messages: lists of structs with role and content."""
    if not pa.types.is_list(kind) or not pa.types.is_struct(kind.value_type):
        return False
    return {"role", "content"} <= {field.name for field in kind.value_type}


def calls_of(message: Message) -> list[tuple[str, str, str]]:
    """(id, name, arguments as JSON text) of each call of a message."""
    calls = []
    for call in message.get("tool_calls") or ():
        function = (call or {}).get("function") or {}
        calls.append(((call or {}).get("id") or "", function.get("name") or "", function.get("arguments") or ""))
    return calls


def message_text(message: Message) -> str:
    """The content of a message, and a line for each call."""
    calls = [f"[calls {name}({arguments})]" for _, name, arguments in calls_of(message)]
    return "\n".join([*([message["content"]] if message.get("content") else []), *calls])


def trajectory_text(messages: Sequence[Message] | None) -> str:
    """The whole trajectory as a text with speakers; "" for none."""
    return "\n\n".join(_spoken(message) for message in _some(messages))


def _some(messages: Sequence[Message] | None) -> Iterable[Message]:
    return (message for message in messages or () if message)


def _spoken(message: Message) -> str:
    speaker = SPEAKERS.get(message["role"] or "", str(message["role"]))
    name = f" {message['name']}" if message.get("name") else ""
    return f"{speaker}{name}: {message_text(message)}"
