"""The keys of a tool table, and which of them belong to which kind."""

import re
from dataclasses import dataclass, field
from typing import Literal

from gristmill.stages.sandbox.runner import Limits
from gristmill.stages.tools.servers import check_loopback

# Keys of each kind beyond `kind`.
KIND_KEYS = {
    "file": ("file", "only", "deterministic", "limits"),
    "python": ("name", "description", "deterministic", "limits"),
    "corpus": ("path", "column", "num_passages", "name", "description"),
    "mcp": ("command", "url", "only", "timeout_s"),
}
NAMES = {"python": "python", "corpus": "search"}  # of tools whose table states none
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class ToolSpec:
    """A table of `tools`: one tool, or all those of a file or a server."""

    # "file": the functions of a Python file, run in the sandbox; "python": an interpreter in the sandbox; "corpus": a
    # search over texts; "mcp": a server of the Model Context Protocol, which runs outside the sandbox.
    kind: Literal["file", "python", "corpus", "mcp"]
    # file: Python file, a local path or s3://. Each function without a leading underscore is a tool; its type hints
    # and docstring make the schema.
    file: str | None = None
    only: tuple[str, ...] = ()  # file and mcp: names of the tools to offer; by default all.
    # file and python: whether equal calls have equal answers: the clock starts at 2026-01-01 UTC in each call, and
    # random numbers of the system have a seed. false: tools have the real ones, and the run promises no equal bytes.
    deterministic: bool = True
    limits: Limits = field(default_factory=Limits)  # file and python: limits of a call.
    name: str | None = None  # python and corpus: name of the tool; by default "python" and "search".
    description: str = ""  # python and corpus: what the model reads about the tool; by default a general text.
    path: str | None = None  # corpus: files, a folder, a glob or an output, as `path` of a source.
    column: str = "text"  # corpus: column with the text of a passage.
    num_passages: int = 3  # corpus: passages in an answer at most.
    command: tuple[str, ...] = ()  # mcp: program of a local server, and its arguments.
    url: str | None = None  # mcp: address of a server on this machine; instead of `command`.
    timeout_s: float = 30.0  # mcp: seconds for an answer.

    def __post_init__(self) -> None:
        keys = KIND_KEYS[self.kind]
        blank = ToolSpec.__dataclass_fields__
        for kind, others in KIND_KEYS.items():
            for key in others:
                default = Limits() if key == "limits" else blank[key].default
                if key not in keys and getattr(self, key) != default:
                    raise ValueError(f'{key} goes with kind = "{kind}", not with "{self.kind}"')
        if self.kind == "file" and not self.file:
            raise ValueError('kind = "file" needs file, a Python file with functions')
        if self.kind == "corpus" and not self.path:
            raise ValueError('kind = "corpus" needs path, the texts to search')
        if self.kind == "mcp" and bool(self.command) == bool(self.url):
            raise ValueError('kind = "mcp" needs either command, a program with its arguments, or url')
        if self.url is not None:
            check_loopback(self.url)
        if self.name is not None and not NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r}: use letters, digits, _ and -, at most 64")
        if self.num_passages < 1 or self.timeout_s <= 0:
            raise ValueError("num_passages must be at least 1, and timeout_s above 0")

    @property
    def is_deterministic(self) -> bool:
        """Whether equal calls have equal answers."""
        return self.kind != "mcp" and self.deterministic

    @property
    def label(self) -> str:
        """What the table is called in messages."""
        return f"{self.kind} {self.file or self.path or self.url or ' '.join(self.command)}".strip()
