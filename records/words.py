"""Words of a text: what a release counts as its tokens, and when two texts are the same."""

import hashlib
import re
import unicodedata

WORD = re.compile(r"\w+|[^\w\s]")  # a run of letters, digits and underscores (Unicode), or a single mark
TOKENS_ARE = r"matches of `\w+|[^\w\s]` (Python's re, Unicode)"
KEY_BYTES = 16
NO_KEY = bytes(KEY_BYTES)


def num_words(text: str | None) -> int:
    """Words and single marks of a text: the same for everybody, whatever the model or its tokenizer."""
    return len(WORD.findall(text)) if text else 0


def text_key(text: str | None) -> bytes:
    """16 bytes that two texts share when they differ in case, white space or compatible characters (NFKC) only.

    NO_KEY for a text without anything in it.
    """
    words = unicodedata.normalize("NFKC", text).casefold().split() if text else []
    if not words:
        return NO_KEY
    return hashlib.blake2b(" ".join(words).encode("utf-8", "replace"), digest_size=KEY_BYTES).digest()
