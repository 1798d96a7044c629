"""Words and tokens of a text for counts and comparisons, whatever the model or its tokenizer.

A word, in the normal form of the text (records/normal_form.py), is

- a run of letters and digits of any script, with the marks behind them;
- a single character, with its marks, in scripts without spaces: Han, kana, bopomofo, Yi, Nushu, Tangut and Khitan
  ("ideographs"), and Thai, Lao, Khmer, Burmese, Tibetan and their kin ("letters of scripts without spaces").

Everything else separates words: white space, punctuation, symbols, emoji and the underscore. So "don’t", "don't" and
"don t" are the same two words.
"""

import hashlib
import re

import numpy as np

from gristmill.records.normal_form import (
    IDEOGRAPH,
    LETTER,
    MARK,
    SEPARATOR,
    UNSPACED,
    code_points,
    folded,
    kinds_of,
    normal_form,
)

ASCII_WORD = re.compile(r"[a-z0-9]+")
ASCII_TOKEN = re.compile(r"\w+|[^\w\s]")  # a word, which here may hold underscores, or a single mark
TOKENS_ARE = "words of letters, digits and underscores (single characters in scripts without spaces) and single marks"
# Length in sixths of a word of a word of letters, an ideograph and a letter of a script without spaces: about 1.5
# characters of Chinese or Japanese, and 3 of Thai or Khmer, make a word of running text.
SIXTHS = {LETTER: 6, IDEOGRAPH: 4, UNSPACED: 2}
KEY_BYTES = 16
NO_KEY = bytes(KEY_BYTES)


def words(text: str) -> list[str]:
    """The words of the normal form of a text, in order."""
    form = folded(text)
    if text.isascii():
        return ASCII_WORD.findall(form)
    starts, stops, _ = _spans(form, is_token=False)
    return [form[start:stop] for start, stop in zip(starts.tolist(), stops.tolist())]


def words_or_text(text: str) -> list[str]:
    """The words of a text, or its whole normal form for a text without words, which equals only what is equal."""
    return words(text) or [normal_form(text)]


def num_words(text: str) -> float:
    """Length of a text in words, for limits that hold in any language: 1.5 ideographs, or 3 letters of another script
    without spaces, count as one word.
    """
    if text.isascii():
        return len(ASCII_WORD.findall(text.lower()))
    _, _, kinds = _spans(folded(text), is_token=False)
    counts = np.bincount(kinds, minlength=UNSPACED + 1).tolist()
    return float(sum(counts[kind] * sixths for kind, sixths in SIXTHS.items()) / 6)


def tokens(text: str) -> list[str]:
    """Words, which here may hold underscores, and single marks of the normal form of a text, in order."""
    form = folded(text)
    if text.isascii():
        return ASCII_TOKEN.findall(form)
    starts, stops, _ = _spans(form, is_token=True)
    return [form[start:stop] for start, stop in zip(starts.tolist(), stops.tolist())]


def num_tokens(text: str | None) -> int:
    """Words and single marks of a text: what a release counts as its tokens."""
    if not text:
        return 0
    return len(ASCII_TOKEN.findall(text)) if text.isascii() else len(_spans(folded(text), is_token=True)[0])


def _spans(form: str, is_token: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(starts, stops, roles of the first characters) of the words of a normal form, or of its tokens; each (n,)."""
    codes = code_points(form)
    kinds = kinds_of(codes).astype(np.int64)
    is_space = (codes == 32) | ((codes >= 9) & (codes <= 13)) | ((codes >= 28) & (codes <= 31))
    if is_token:
        kinds[codes == ord("_")] = LETTER
    # A mark takes the role of the character before it; at the beginning and after a space it separates.
    is_mark = kinds == MARK
    bases = np.maximum.accumulate(np.where(is_mark, 0, np.arange(len(codes))))
    kinds = np.where(is_mark & is_mark[bases], SEPARATOR, kinds[bases])
    is_inside = kinds != SEPARATOR
    if is_token:
        is_inside |= ~(is_space | (is_mark & is_space[bases]))
    follows_letter = np.append(False, (kinds == LETTER)[:-1])
    is_start = is_inside & ~is_mark & ~((kinds == LETTER) & follows_letter)
    edges = np.append(np.flatnonzero(is_start | ~is_inside), len(codes))
    at = np.flatnonzero(is_start[edges[:-1]])
    return edges[at], edges[at + 1], kinds[edges[at]]


def text_key(text: str | None) -> bytes:
    """16 bytes, equal for texts with the same normal form.

    NO_KEY for a text that is null or holds nothing to see.
    """
    form = normal_form(text) if text else ""
    if not form:
        return NO_KEY
    return hashlib.blake2b(form.encode("utf-8", "replace"), digest_size=KEY_BYTES).digest()
