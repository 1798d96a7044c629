"""Programs and tests in a model's answer: the fenced block, the names that it defines, the tests of these names."""

import ast
import re
import warnings

from gristmill.engines.contract import Reply
from gristmill.engines.errors import AskRefused
from gristmill.records.fences import first_block

DEFINITION = re.compile(r"^(?:async[ \t]+def|def|class)[ \t]+(\w+)", re.MULTILINE)
ASSERT = re.compile(r"^assert\b.*$", re.MULTILINE)
MAX_CUT_LINES = 10  # lines that tests may lose at their end when they were cut off
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def program_of(reply: Reply) -> str:
    """The program in an answer: its first fenced block, or the whole answer without a fence.

    Raises AskRefused("cut_solution") when the answer ends inside the program, ("empty_solution") for none.
    """
    block = first_block(reply.text)
    if reply.finish == "length" and not (block and block.is_closed):
        raise AskRefused("cut_solution")
    program = block.text if block else reply.text
    if not program.strip():
        raise AskRefused("empty_solution")
    return program.strip("\r\n").rstrip()  # an indented body keeps its indentation


def top_level_names(program: str) -> set[str]:
    """Top-level names of functions, classes and values; for invalid Python, those of lines that look like one."""
    tree = parse_python(program)
    if tree is None:
        return set(DEFINITION.findall(program))
    assigned = {n.id for node in tree.body for n in ast.walk(node) if _is_stored(node, n)}  # type: ignore[attr-defined]
    return assigned | {node.name for node in tree.body if isinstance(node, Definition)}


def asserts_of(reply: Reply, program: str) -> str:
    """The tests in an answer: statements with asserts about the names of `program`, and the code that they need.

    They come from a fenced block, or else from the lines that begin with assert. Omits repeated asserts, and
    definitions and imports that would replace those of the program, so that no test tests its own copy. Adds calls of
    test functions that nothing calls.
    Raises AskRefused("unreadable_tests") if it is not Python, ("no_tests") if it asserts nothing about the program.
    """
    text = _text_of(reply)
    tree, names = parse_python(text), top_level_names(program)
    if tree is None:
        raise AskRefused("unreadable_tests")
    try:
        statements = _without_repeats([node for node in tree.body if not _replaces(node, names)])
    except RecursionError:  # an expression that the parser can take may be nested too deeply to be compared
        raise AskRefused("unreadable_tests") from None
    plain = [node for node in statements if not isinstance(node, Definition)]
    names_read = _names_read(plain)
    asserting = [node for node in statements if any(isinstance(n, ast.Assert) for n in ast.walk(node))]
    calls = [
        node.name
        for node in asserting
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test")
        and node.name not in names_read
        and not _wants(node.args)
    ]
    run_names = names_read | set(calls)
    runs = [node for node in asserting if not isinstance(node, Definition) or node.name in run_names]
    if not runs or not _names_read([*plain, *runs]) & names:
        raise AskRefused("no_tests")
    source = Source(text)
    return "\n".join([*map(source.of, statements), *(f"{name}()" for name in calls)])


def _without_repeats(nodes: list[ast.stmt]) -> list[ast.stmt]:
    """The statements without repeated asserts."""
    starts: set[str] = set()
    statements = []
    for node in nodes:
        words = ast.dump(node) if isinstance(node, ast.Assert) else None
        if words is None or words not in starts:
            statements.append(node)
        starts |= {words} if words is not None else set()
    return statements


def parse_python(program: str) -> ast.Module | None:
    """The syntax tree; None for text that is not Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a model's odd escapes are no concern of the log
            return ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _text_of(reply: Reply) -> str:
    answer = reply.text.replace("\r\n", "\n").replace("\r", "\n")
    block = first_block(answer)
    if block is None:
        return "\n".join(line for line in ASSERT.findall(answer) if parse_python(line))
    lines = block.text.split("\n")
    if reply.finish == "length":
        for _ in range(min(MAX_CUT_LINES, len(lines))):
            if parse_python("\n".join(lines)):
                break
            lines.pop()
    return "\n".join(lines)


def _is_stored(statement: ast.stmt, node: ast.AST) -> bool:
    return (
        isinstance(statement, ast.Assign | ast.AnnAssign)
        and isinstance(node, ast.Name)
        and isinstance(node.ctx, ast.Store)
    )


def _replaces(node: ast.stmt, names: set[str]) -> bool:
    """Whether a statement of the tests would bind a name of the program anew."""
    if isinstance(node, Definition):
        return node.name in names
    if isinstance(node, ast.Import | ast.ImportFrom):
        return any((alias.asname or alias.name.split(".")[0]) in names for alias in node.names)
    return False


def _names_read(nodes: list[ast.stmt]) -> set[str]:
    return {n.id for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _wants(args: ast.arguments) -> bool:
    """Whether a call needs arguments."""
    return len(args.args) + len(args.posonlyargs) > len(args.defaults) or None in args.kw_defaults


class Source:
    """The lines of a program, for the source of its statements: `ast.get_source_segment` splits them for each."""

    def __init__(self, text: str) -> None:
        self._lines = [line.encode() for line in text.split("\n")]  # columns of a syntax tree are bytes

    def of(self, node: ast.stmt) -> str:
        """The source of a statement, with the decorators of a definition."""
        end = node.end_lineno or node.lineno
        if isinstance(node, Definition):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            return b"\n".join(self._lines[first - 1 : end]).decode()
        lines = self._lines[node.lineno - 1 : end]
        lines[-1] = lines[-1][: node.end_col_offset]
        lines[0] = lines[0][node.col_offset :]
        return b"\n".join(lines).decode()
