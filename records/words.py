"""Words and tokens of a text for counts and comparisons, whatever the model or its tokenizer."""

import hashlib
import re
import unicodedata

WORD = re.compile(r"\w+")  # a run of letters, digits and underscores (Unicode)
TOKEN = re.compile(r"\w+|[^\w\s]")  # a word or a single mark
TOKENS_ARE = r"matches of `\w+|[^\w\s]` (Python's re, Unicode)"
KEY_BYTES = 16
NO_KEY = bytes(KEY_BYTES)


def tokens(text: str) -> list[str]:
    """Words and single marks of the lowercased text, in order."""
    return TOKEN.findall(text.lower())


def num_tokens(text: str | None) -> int:
    """Words and single marks of a text: what a release counts as its tokens."""
    return len(TOKEN.findall(text)) if text else 0


def text_key(text: str | None) -> bytes:
    """16 bytes, equal for texts that differ only in case, white space or compatible characters (NFKC).

    NO_KEY for a text that is null or holds only white space.
    """
    words = unicodedata.normalize("NFKC", text).casefold().split() if text else []
    if not words:
        return NO_KEY
    return hashlib.blake2b(" ".join(words).encode("utf-8", "replace"), digest_size=KEY_BYTES).digest()
