"""Fenced blocks in a text, as Markdown has them."""

FENCE = "```"


def first_block(text: str, must_close: bool = False) -> str | None:
    """The lines between the first fence and the next, or the end of the text if none follows; None without a fence.

    The rest of the line of the first fence (a language) is no part of it. `must_close`: None if no fence follows.
    Takes time proportional to the length of the text.
    """
    fence = text.find(FENCE)
    line = text.find("\n", fence + len(FENCE)) if fence >= 0 else -1
    if line < 0:
        return None
    end = text.find(FENCE, line + 1)
    if end < 0:
        return None if must_close else text[line + 1 :]
    return text[line + 1 : end]
