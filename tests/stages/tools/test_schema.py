"""From Python functions to tools: the schema says what the function takes, and bad files are refused in a line."""

from pathlib import Path
from typing import Any

import pytest

from gristmill.records.errors import UserError
from gristmill.stages.tools.schema import function_schemas
from gristmill.stages.verify.schemas import check_schema, validator
from tests.conftest import ROOT


def parameters(signature: str, docstring: str = "Does it.") -> dict[str, Any]:
    (schema,) = function_schemas(f'def f({signature}):\n    """{docstring}"""\n', "tools.py")
    check_schema(schema.parameters)
    return schema.parameters


@pytest.mark.parametrize(
    ("annotation", "right", "wrong"),
    [
        ("str", ["a"], [1, None]),
        ("int", [1], ["1", 1.5, True]),
        ("float", [1, 1.5], ["1"]),
        ("bool", [True], [1]),
        ("list", [[1, "a"]], ["a"]),
        ("list[int]", [[1], []], [["a"]]),
        ("tuple[str, ...]", [["a"]], [[1]]),
        ("dict[str, list[int]]", [{"a": [1]}], [{"a": 1}]),
        ("dict", [{"a": 1}], [[]]),
        ("str | None", ["a", None], [1]),
        ("Optional[list[int]]", [[1], None], ["a"]),
        ("typing.Union[int, list[str]]", [1, ["a"]], ["a"]),
        ("int | str | None", [1, "a", None], [[]]),
        ("Literal['a', 2, None]", ["a", 2, None], ["b", 3]),
        ("'list[str]'", [["a"]], [[1]]),
        ("Annotated[int, 'days']", [1], ["a"]),
        ("Any", [1, "a", None, []], []),
    ],
)
def test_annotations_are_what_their_values_are_checked_by(annotation: str, right: list[Any], wrong: list[Any]) -> None:
    check = validator(parameters(f"x: {annotation}"))
    assert all(check.is_valid({"x": value}) for value in right)
    assert not any(check.is_valid({"x": value}) for value in wrong)
    assert not check.is_valid({}) and not check.is_valid({"x": right[0], "y": 1})


def test_defaults_make_an_argument_optional() -> None:
    schema = parameters("a: int, b: str = 'x', *, c: float, d: list[int] | None = None, e: str = ZONE")
    assert schema["required"] == ["a", "c"]
    assert schema["properties"]["b"]["default"] == "x" and schema["properties"]["d"]["default"] is None
    assert "default" not in schema["properties"]["e"]


@pytest.mark.parametrize(
    "docstring",
    [
        "Add up.\n\n    Over two lines.\n\n    Args:\n        a: the first\n            number\n"
        "        b (int): the second\n\n    Returns:\n        total: the sum",
        "Add up.\n\n    Over two lines.\n\n    :param a: the first\n        number\n"
        "    :param int b: the second\n    :returns: the sum",
    ],
)
def test_docstrings_describe_the_tool_and_its_arguments(docstring: str) -> None:
    source = f'def add(a: int, b: int) -> int:\n    """{docstring}\n    """\n'
    (schema,) = function_schemas(source, "tools.py")
    assert schema.description == "Add up.\n\nOver two lines."
    words = {name: each["description"] for name, each in schema.parameters["properties"].items()}
    assert words == {"a": "the first number", "b": "the second"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(:", "tools.py: not Python: .* .line 1"),
        ("x = 1", "defines no function"),
        ("def _f(a: int):\n    'x'", "defines no function"),
        ("def f(a: int): pass", "f has no docstring"),
        ("def f(a):\n    'x'", "argument 'a' has no type; annotate it"),
        ("def f(a: Path):\n    'x'", "argument 'a': the type Path is not one of str, int"),
        ("def f(a: dict[int, str]):\n    'x'", r"the type dict\[int, str\]"),
        ("def f(a: 'list['):\n    'x'", "'list.' is no type"),
        ("def f(*a: int):\n    'x'", r"takes \*"),
        ("async def f(a: int):\n    'x'", "f is async"),
        pytest.param(
            "def f(a: " + " | ".join(["list[int]"] * 1500) + "):\n    'x'", "too deeply|not Python", id="deep union"
        ),
        (
            "def f(a: " + "list[" * 190 + "int" + "]" * 190 + "):\n    'x'\ndef g(): pass",
            "g has no docstring|not Python",
        ),
        ("def f():\n    '\\ud800'", "half a surrogate pair"),
        ("def größe():\n    'x'", "größe: the name of a tool has letters of ASCII"),
        ("@once\ndef f(a: Path):\n    'x'", "the type Path is not one of"),
        ("x = '\0'", "not Python"),
        ("def f():\n    'x'\ndef f():\n    'y'", "two functions are named f"),
    ],
)
def test_files_that_make_no_tools_are_refused_in_a_line(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        function_schemas(source, "tools.py")
    assert "\n" not in str(error.value) and str(error.value).startswith("tools.py: ")


def test_a_file_is_not_run_outside_the_sandbox(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    source = (
        f"open({str(mark)!r}, 'w')\n@open({str(mark)!r}, 'w')\ndef f(a: int = open({str(mark)!r}, 'w')):\n    'x'\n"
    )
    assert len(function_schemas(source, "tools.py")) == 1 and not mark.exists()


def test_the_shipped_tools() -> None:
    path = ROOT / "recipes" / "tools" / "library.py"
    schemas = function_schemas(path.read_text(), str(path))
    assert [schema.name for schema in schemas] == ["search_books", "book_details", "due_date", "late_fee", "calculate"]
    for schema in schemas:
        check_schema(schema.parameters)
        assert all("description" in each for each in schema.parameters["properties"].values())
