"""Structured output at endpoints: a JSON schema as OpenAI takes it; choice, regex and grammar as servers have them.

No standard has the last three. vLLM takes `structured_outputs`, its older releases `guided_*`, SGLang `regex` and
`ebnf`. Most servers ignore keys that they do not know, so a probe whose answer is known tells which dialect counts.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from gristmill.engines.contract import AnswerForm

Dialect = Callable[[AnswerForm], dict[str, Any]]


def vllm(form: AnswerForm) -> dict[str, Any]:
    keys = {"choice": list(form.choice), "regex": form.regex, "grammar": form.grammar}
    return {"structured_outputs": {name: value for name, value in keys.items() if value}}


def old_vllm(form: AnswerForm) -> dict[str, Any]:
    return {f"guided_{name}": value for name, value in vllm(form)["structured_outputs"].items()}


def sglang(form: AnswerForm) -> dict[str, Any]:
    if form.choice:
        return {"regex": "|".join(f"({re.escape(text)})" for text in form.choice)}
    return {"regex": form.regex} if form.regex else {"ebnf": form.grammar}


DIALECTS: tuple[Dialect, ...] = (vllm, old_vllm, sglang)

PROBE_PROMPT = "What is the capital of France?"
PROBE_ANSWER = "gm-7"  # no model answers so of itself
PROBE_TOKENS = 16


def probe_form(form: AnswerForm) -> AnswerForm:
    """A form of the same kind that allows one answer only, PROBE_ANSWER."""
    if form.choice:
        return AnswerForm(choice=(PROBE_ANSWER,))
    if form.regex:
        return AnswerForm(regex=PROBE_ANSWER)
    return AnswerForm(grammar=f'root ::= "{PROBE_ANSWER}"')


def response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """`response_format` of a request. OpenAI follows a schema to the letter only with `strict`, which not all allow."""
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": dict(schema), "strict": allows_strict(schema)},
    }


def allows_strict(schema: Any) -> bool:
    """Whether every object of a schema requires all its properties and no others, as `strict` demands."""
    if isinstance(schema, Mapping):
        if schema.get("type") == "object" or "properties" in schema:
            if schema.get("additionalProperties") is not False:
                return False
            if set(schema.get("required") or ()) != set(schema.get("properties") or {}):
                return False
        return all(map(allows_strict, schema.values()))
    return all(map(allows_strict, schema)) if isinstance(schema, list | tuple) else True
