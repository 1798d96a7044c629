"""The statements of tests, compiled one by one before the program runs."""

import ast
import types

from gristmill.stages.sandbox.report import TESTS

Statement = types.CodeType | Exception  # code, or why there is none: an error when its turn comes
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)


def parse_tests(text: str) -> ast.Module | Exception:
    """The syntax tree of tests, or why there is none."""
    try:
        return ast.parse(text, TESTS)
    except UNREADABLE as error:
        return error


def statements_of(tree: ast.Module | Exception) -> list[Statement]:
    if isinstance(tree, Exception):
        return []
    return [_compiled(statement) for statement in tree.body]


def _compiled(statement: ast.stmt) -> Statement:
    try:
        return compile(ast.Module([statement], []), TESTS, "exec")
    except UNREADABLE as error:
        return error
