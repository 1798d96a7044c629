"""Chats in which the model writes the user's message: the pre-query template of Magpie.

Xu et al. 2024 (arXiv 2406.08464, section 2.2): an aligned model writes a user's message when its prompt is the chat
template up to the user's turn. Every template is cut in the same way: a mark is rendered as the user's message. The
text before the mark is the prompt, and the first token or line after the mark ends the turn.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

MARK = "gristmill-user-turn"
USER_TURN = {"role": "user"}  # a last message without content, which the model writes


def is_users(messages: str | Sequence[Mapping[str, str]]) -> bool:
    """Whether the model writes the user's message: the last message is the user's and has no content."""
    return not isinstance(messages, str) and bool(messages) and dict(messages[-1]) == USER_TURN


def split_turn(render: Callable[[list[dict[str, str]]], str], messages: Sequence[Mapping[str, str]]) -> tuple[str, str]:
    """(text before the user's last message, text after it) in the rendered chat.

    Blanks before the message are removed, because a token includes the blank before its word. Raises ValueError when
    the template does not show the user's message.
    """
    text = render([*(dict(m) for m in messages[:-1]), {**USER_TURN, "content": MARK}])
    before, mark, after = text.rpartition(MARK)
    if not mark:
        raise ValueError("the chat template does not show the user's message")
    return before.rstrip(" "), after


def end_of_turn(after: str, tokenizer: Any) -> dict[str, list[Any]]:
    """The sampling settings that end the turn: the special token after it, else the first line after it.

    Empty when the template has no text there; then the model's end-of-text token ends the turn.
    """
    after = after.strip()
    ids = tokenizer.encode(after, add_special_tokens=False) if after else []
    if ids and ids[0] in {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}:
        return {"stop_token_ids": [ids[0]]}
    return {"stop": [after.splitlines()[0].rstrip()]} if after else {}


def with_end(sampling: Mapping[str, Any], end: Mapping[str, list[Any]]) -> dict[str, Any]:
    """`sampling` with the settings of `end` added to its stops."""
    settings = dict(sampling)
    for key, values in end.items():
        stops = settings.get(key) or []
        settings[key] = [*([stops] if isinstance(stops, str) else stops), *values]
    return settings
