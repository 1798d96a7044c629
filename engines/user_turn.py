"""A chat that ends where the user's message would begin, so that the model writes it: the pre-query template of Magpie.

Xu et al. 2024 (arXiv 2406.08464, section 2.2): an aligned model that is given its chat template up to the user's turn
writes a message as users do. Any template is cut here the same way: a mark is rendered as the user's message; what
stands before it is the prompt, and the first that comes after it ends the turn.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

MARK = "gristmill-user-turn"
USER_TURN = {"role": "user"}  # a last message without content: it is for the model to write


def is_users(messages: str | Sequence[Mapping[str, str]]) -> bool:
    """Whether the model is to write the user's message: the last one is the user's and has no content."""
    return not isinstance(messages, str) and bool(messages) and dict(messages[-1]) == USER_TURN


def split_turn(render: Callable[[list[dict[str, str]]], str], messages: Sequence[Mapping[str, str]]) -> tuple[str, str]:
    """(what stands before the user's last message, what comes after it) in the rendered chat.

    Blanks before it are left out: tokens take the blank before a word as a part of it. Raises ValueError when the
    template does not show the user's message.
    """
    text = render([*(dict(m) for m in messages[:-1]), {**USER_TURN, "content": MARK}])
    before, found, after = text.rpartition(MARK)
    if not found:
        raise ValueError("the chat template does not show the user's message")
    return before.rstrip(" "), after


def end_of_turn(after: str, tokenizer: Any) -> dict[str, list[Any]]:
    """The sampling settings that end the turn: the token that comes after it, else the first line that does.

    Empty when the template writes nothing there: the model's own end of text has to do.
    """
    after = after.strip()
    ids = tokenizer.encode(after, add_special_tokens=False) if after else []
    if ids and ids[0] in {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}:
        return {"stop_token_ids": [ids[0]]}
    return {"stop": [after.splitlines()[0].rstrip()]} if after else {}


def with_end(sampling: Mapping[str, Any], end: Mapping[str, list[Any]]) -> dict[str, Any]:
    """`sampling` with what ends the turn added to its own stops."""
    settings = dict(sampling)
    for key, values in end.items():
        own = settings.get(key) or []
        settings[key] = [*([own] if isinstance(own, str) else own), *values]
    return settings
