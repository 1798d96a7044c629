"""Tools of the shipped recipes: a small library's catalogue, loans and arithmetic. They run in the sandbox.

Each function without a leading underscore is a tool. Its type hints make the schema, its docstring what the model
reads. An exception is an error message to the model.
"""

import ast
import datetime
import operator
from typing import Literal

_COLUMNS = ("title", "year", "pages", "subject", "copies")
_BOOKS = {
    key: dict(zip(_COLUMNS, values))
    for key, *values in (
        ("B101", "The Tides", 1998, 312, "science", 2),
        ("B102", "Salt and Iron", 2011, 428, "history", 1),
        ("B103", "A Field of Stones", 1974, 196, "fiction", 0),
        ("B104", "Bread at Home", 2019, 240, "cooking", 4),
        ("B105", "Clocks and Gears", 2004, 275, "science", 3),
        ("B106", "The Quiet Harbour", 2016, 350, "fiction", 2),
    )
}
_FINES = {"adult": 20, "student": 10, "child": 5}  # cents for each day
_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}


def search_books(subject: Literal["science", "history", "fiction", "cooking"]) -> list[dict[str, str]]:
    """List the books of a subject, with their ids and titles.

    Args:
        subject: the subject to list
    """
    return [{"id": key, "title": book["title"]} for key, book in _BOOKS.items() if book["subject"] == subject]


def book_details(book_id: str) -> dict[str, object]:
    """Look up a book: title, year, number of pages, subject, and copies on the shelf.

    Args:
        book_id: id of the book, e.g. B101
    """
    if book_id not in _BOOKS:
        raise ValueError(f"no book has the id {book_id}; ids are {', '.join(_BOOKS)}")
    return {"id": book_id, **_BOOKS[book_id]}


def due_date(borrowed_on: str, days: int = 21) -> str:
    """Say on which day a loan ends.

    Args:
        borrowed_on: day of the loan as YYYY-MM-DD
        days: length of the loan in days
    """
    if not 1 <= days <= 365:
        raise ValueError("days must lie in 1..365")
    return (datetime.date.fromisoformat(borrowed_on) + datetime.timedelta(days=days)).isoformat()


def late_fee(days_late: int, reader: Literal["adult", "student", "child"] = "adult") -> str:
    """Say what a reader pays for a book that comes back late, in dollars.

    Args:
        days_late: days after the due date
        reader: kind of reader
    """
    if days_late < 0:
        raise ValueError("days_late must not be negative")
    return f"{days_late * _FINES[reader] / 100:.2f}"


def calculate(expression: str) -> float:
    """Work out an expression of numbers with + - * / and parentheses.

    Args:
        expression: the expression, e.g. (3 + 4) * 2
    """
    return _value(ast.parse(expression, mode="eval").body)


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.operand))
    raise ValueError(f"only numbers, + - * / and parentheses can stand in an expression, not {ast.unparse(node)}")
