"""What a tool is: a function with a JSON schema, called with arguments and answered with a text."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Failure = Literal["unknown_tool", "bad_json", "bad_arguments", "failed"]
NOTHING = "(no output)"  # the answer of a tool that says nothing: chat templates and people expect some text
ERROR = "Error: "  # every result of a failed call begins with it, as the model sees it


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The answer to a call, as the model sees it; `failure` says why there is no other answer."""

    text: str
    failure: Failure | None = None


@dataclass(slots=True)
class TrajectoryState:
    """What tools keep between the calls of a trajectory."""

    cells: list[str] = field(default_factory=list)  # the code that the interpreter has run


class ToolFailed(Exception):
    """A tool has no answer; the message is for the model."""


class Tool(ABC):
    """A tool. `call` blocks, and several threads may call it at once."""

    def __init__(self, name: str, description: str, parameters: Mapping[str, Any]) -> None:
        """parameters: the JSON schema of an object, with a property for each argument."""
        self.name = name
        self.description = description
        self.parameters = dict(parameters)

    @property
    def definition(self) -> dict[str, Any]:
        """The tool in the chat format, as chat templates and servers take it."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}

    @abstractmethod
    def call(self, arguments: Mapping[str, Any], state: TrajectoryState) -> str:
        """The answer to a call whose arguments fit the schema, cut to the length that the tool was made with.

        Raises ToolFailed, whose message is cut likewise.
        """


def cut(text: str, max_chars: int, num_more: int = 0) -> str:
    """A text of at most `max_chars` characters, and a note of what was cut off, here or before (`num_more`)."""
    num_more += max(0, len(text) - max_chars)
    return f"{text[:max_chars]}\n[cut: {num_more:,} more characters]" if num_more else text


def object_schema(properties: Mapping[str, Any], required: list[str]) -> dict[str, Any]:
    """The JSON schema of the arguments of a tool."""
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}
