"""Reading replies: whole texts without labels, and JSON. An unusable reply refuses the ask."""

import json
import re
from typing import Any

from gristmill.engines.contract import Reply
from gristmill.engines.errors import AskRefused
from gristmill.records.schema import clean

QUOTES = {'"': '"', "“": "”", "«": "»"}


def only_text(reply: Reply) -> str:
    """The stripped text of a method's only reply. Raises AskRefused("empty_answer").

    The row's `finish` records whether it was cut off; the finish stage decides about it.
    """
    text = reply.text.strip()
    if not text:
        raise AskRefused("empty_answer")
    return text


def full_text(reply: Reply, name: str) -> str:
    """The stripped text of a reply that later calls use. Raises AskRefused("cut_NAME") or ("empty_NAME")."""
    if reply.finish == "length":
        raise AskRefused(f"cut_{name}")
    if not (text := reply.text.strip()):
        raise AskRefused(f"empty_{name}")
    return text


def strip_label(text: str, *labels: str) -> str:
    """`text` without a label such as "Exercise 1:" before it and without quotes around the whole of it."""
    names = "|".join(re.escape(label) for label in labels)
    text = re.sub(rf"^[\s*#]*(?:{names})(?:\s+\d+)?[\s*]*:[\s*]*", "", text, count=1, flags=re.IGNORECASE).strip()
    closing = QUOTES.get(text[:1])
    if closing and len(text) > 1 and text.find(closing, 1) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def first_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in an answer, ignoring the text around it; None if there is no complete object.

    Its texts contain no lone surrogates, which JSON's escapes can encode: tokenizers and Arrow reject them.
    """
    try:
        value, _ = json.JSONDecoder().raw_decode(text, text.index("{"))
        return {clean(key): _clean_values(each) for key, each in value.items()}
    except (ValueError, RecursionError):
        return None


def _clean_values(value: Any) -> Any:
    if isinstance(value, dict):
        return {clean(key): _clean_values(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_clean_values(each) for each in value]
    return clean(value) if isinstance(value, str) else value
