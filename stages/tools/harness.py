"""Runs inside the sandbox: a function of a tool file, or the cells of an interpreter.

A jail imports this file once, and each program is a call of `answer_call` or `answer_cells`. The last line of the
output is a JSON object: `text` and the number of characters that are left out after it (`more`), and `error`, what was
raised.
"""

import ast
import contextlib
import io
import json
import os
import re
import sys
import types
from typing import Any

ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # addresses differ between processes
CELL, TOOLS = "<cell>", "<tools>"


class Output(io.TextIOBase):
    """Keeps the first characters of what is printed, and counts the others."""

    def __init__(self, max_chars: int) -> None:
        self.parts: list[str] = []
        self.room = max_chars
        self.num_more = 0

    def write(self, text: str) -> int:
        part = text[: self.room]
        if part:
            self.parts.append(part)
        self.room -= len(part)
        self.num_more += len(text) - len(part)
        return len(text)

    def text(self) -> str:
        return "".join(self.parts)


def answer_call(source: str, name: str, arguments: dict[str, Any], max_chars: int, builtins: dict[str, Any]) -> None:
    """Run a file's statements, then its function `name`; its value is the answer, or what it prints."""
    host = Host()
    module = module_of("tools", builtins)
    module.__dict__["__file__"] = "tools.py"
    output = Output(max_chars)
    try:
        with contextlib.redirect_stdout(output):
            exec(compile(source, TOOLS, "exec"), module.__dict__)
            value = module.__dict__[name](**arguments)
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a tool raises is the answer of the call
        host.reply({"error": error_text(error)})
        return
    if value is None and output.parts:
        host.reply({"text": output.text(), "more": output.num_more})
        return
    text = text_of(value)
    host.reply({"text": text[:max_chars], "more": max(0, len(text) - max_chars)})


def answer_cells(cells: list[str], max_chars: int, builtins: dict[str, Any]) -> None:
    """Run the cells before the last one again, without their output, then the last one.

    The answer is what the last cell prints, and the value of the expression that it ends in.
    """
    host = Host()
    module = module_of("cells", builtins)
    for cell in cells[:-1]:
        with contextlib.redirect_stdout(Output(0)), contextlib.suppress(Exception, SystemExit):
            run_cell(cell, module)
    output = Output(max_chars)
    error = None
    try:
        with contextlib.redirect_stdout(output):
            run_cell(cells[-1], module)
    except MemoryError:
        raise
    except BaseException as raised:  # noqa: BLE001
        error = error_text(raised)
    answer = {"text": output.text().rstrip("\n"), "more": output.num_more}
    host.reply(answer if error is None else {**answer, "error": error})


def run_cell(code: str, module: types.ModuleType) -> None:
    tree = ast.parse(code, CELL)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, CELL, "exec"), module.__dict__)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), CELL, "eval"), module.__dict__)
        if value is not None:
            print(repr(value))


def text_of(value: Any) -> str:
    """A text as it is, any other value as JSON, and what JSON lacks by its `repr`."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def error_text(error: BaseException) -> str:
    """An exception in a line, with the line of the cell that raised it."""
    if isinstance(error, SyntaxError) and error.filename in (CELL, TOOLS):
        return f"{type(error).__name__}: {error.msg} (line {error.lineno})"
    try:
        text = f"{type(error).__name__}: {error}".rstrip(": ")
    except Exception:  # noqa: BLE001 - it is the tool's
        text = type(error).__name__
    line, trace = None, error.__traceback__
    while trace is not None:
        line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == CELL else line
        trace = trace.tb_next
    return f"{text} (line {line})" if line else text


class Host:
    """Where answers go, without what differs between processes: addresses, and the path of the folder."""

    def __init__(self) -> None:
        self._stream, self._folder = sys.stdout, os.getcwd()

    def reply(self, fields: dict[str, Any]) -> None:
        for name in ("text", "error"):
            if name in fields:
                fields[name] = ADDRESS.sub("", fields[name].replace(self._folder, "/scratch"))
        self._stream.write("\n" + json.dumps(fields) + "\n")
        self._stream.flush()


def module_of(name: str, builtins: dict[str, Any]) -> types.ModuleType:
    """A new module for the code of a tool, whose functions see these builtins besides those of Python."""
    module = sys.modules[name] = types.ModuleType(name)
    module.__dict__["__builtins__"] = {**vars(sys.modules["builtins"]), **builtins}
    return module
