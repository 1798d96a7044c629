"""Early checks of structured output. Imports no vLLM."""

import importlib.util
import json
from collections.abc import Sequence

from gristmill.engines.contract import AnswerForm
from gristmill.records.errors import UserError


def check_texts(choice: Sequence[str], regex: str | None, grammar: str | None) -> None:
    """Raise ValueError for choices that are empty or repeat, and for an empty structure."""
    if not all(choice) or len(set(choice)) < len(choice):
        raise ValueError("choice: its texts must differ, and none may be empty")
    for name, text in (("regex", regex), ("grammar", grammar)):
        if text == "":
            raise ValueError(f"{name} is empty; leave it out for free text")


def check_structure(form: AnswerForm) -> None:
    """Raise UserError for a structure that vLLM's default backend (guidance) refuses.

    Does nothing where its package is not installed; the engine then refuses the structure when it is opened.
    """
    if not form.is_structured or importlib.util.find_spec("llguidance") is None:
        return
    from llguidance import LLMatcher, grammar_from

    json_schema = json.dumps(dict(form.json_schema)) if form.json_schema else None
    structures = (("json_schema", json_schema), ("regex", form.regex), ("grammar", form.grammar))
    for name, text in structures:
        if text is None:
            continue
        try:
            fault = LLMatcher.validate_grammar(grammar_from(name, text))  # type: ignore[arg-type]
        except (ValueError, TypeError, KeyError) as error:
            fault = str(error)
        if fault:
            raise UserError(f"generator.{name}: {one_line(fault)}")


def one_line(fault: str) -> str:
    """The message of a fault without the excerpt of the grammar below it."""
    lines = [line.strip() for line in fault.splitlines()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[0] if errors else next(iter(lines), "")
