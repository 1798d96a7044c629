"""The normal form of a text, and the role of each character in words: the definition that all stages share.

The normal form is compatibility decomposition (NFKD) and full case folding of Unicode 14.0, with these additions:

- Typographic apostrophes, quotes and dashes become ', " and -. White space becomes a blank.
- Characters that nobody sees are removed: format characters, soft hyphens, zero-width spaces and joiners, variation
  selectors and enclosing marks.
- Marks that the same text has or has not are removed: the vowel points of Arabic and Hebrew, and the tatweel.
- Marks stand in canonical order, so composed and decomposed text are the same. All other marks stay: accents, tones,
  and the vowel signs of Indic scripts.
- The four Turkish letters i, I with and without a dot are one letter.

`gristmill.records.words` makes words of it. The kernel `gristmill.stages.kernels.fold` does the same to UTF-8 bytes; a
test compares the two. scripts/unicode_tables.py writes the tables, so no text depends on the Python that reads it.
"""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

UNICODE_VERSION = "14.0.0"
NUM_CODES = 0x110000
HANGUL = range(0xAC00, 0xAC00 + 11172)  # syllables, which decompose by rule
FIRST_LEAD, FIRST_VOWEL, FIRST_TAIL, NUM_VOWELS, NUM_TAILS = 0x1100, 0x1161, 0x11A7, 21, 28

# Roles of characters. A word is a run of letters, or a single ideograph or letter of a script without spaces, each with
# the marks behind it.
SEPARATOR, LETTER, IDEOGRAPH, UNSPACED, MARK, REMOVED, EXPANDS = range(7)
KIND_BITS = 3
KIND_MASK = (1 << KIND_BITS) - 1
# Properties for the quality rules: in an alphabet, ending a sentence, closing it, a quotation mark, a bullet, part of a
# word, and a word by itself (as the first character of the normal form is, whose kind the table does not tell).
ALPHABETIC, TERMINAL, CLOSING, QUOTE, BULLET, IN_WORD, IS_IDEOGRAPH, IS_UNSPACED = (1 << bit for bit in range(8))
MAX_EXPANSION = 18  # characters of the longest normal form of a character
LENGTH_BITS = 5
LENGTH_MASK = (1 << LENGTH_BITS) - 1
MAX_MARKS = 30  # marks that are put in order together, as in the stream-safe format of UAX 15
DOT_ABOVE = 0x0307
PAGE_BITS = 7


class Tables(NamedTuple):
    """Roles and normal forms of all characters, for the kernels. The entry of a code point is
    entries[pages[code >> 7], code & 127]: its role in the lowest 3 bits, and above them the combining class of a mark,
    or for EXPANDS the length (5 bits) and the start of its normal form in `expansions`.
    """

    pages: np.ndarray  # uint16 (8704,)
    entries: np.ndarray  # uint32 (n, 128)
    expansions: np.ndarray  # int32
    properties: np.ndarray  # uint8 (n, 128), on the same pages: bits for the quality rules


@cache
def tables() -> Tables:
    """The tables, some 220 KB, read-only."""
    with np.load(Path(__file__).with_name("unicode.npz")) as file:
        arrays = [file[name] for name in Tables._fields]
    for array in arrays:
        array.flags.writeable = False
    return Tables(*arrays)


@cache
def _entries() -> np.ndarray:
    """The entry of every code point: uint32 (NUM_CODES,)."""
    return tables().entries[tables().pages].reshape(-1)


@cache
def _mark_runs() -> tuple[re.Pattern[str], re.Pattern[str], dict[str, int]]:
    """(an i with marks, marks to put in order, the combining class of each mark with one)."""
    kinds, values = _entries() & KIND_MASK, _entries() >> KIND_BITS
    codes = np.flatnonzero((kinds == MARK) & (values > 0))
    classes = dict(zip(map(chr, codes.tolist()), values[codes].tolist()))
    marks = "".join(classes)
    return re.compile(f"i[{marks}]+"), re.compile(f"[{marks}]{{2,{MAX_MARKS}}}"), classes


def code_points(text: str) -> np.ndarray:
    """The code points of a text: uint32 (characters,)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def kinds_of(codes: np.ndarray) -> np.ndarray:
    """The role in words of each code point of a normal form: uint32 (n,)."""
    kinds: np.ndarray = _entries()[codes] & KIND_MASK
    return kinds


def _decomposed(codes: np.ndarray) -> np.ndarray:
    """Hangul syllables as two or three letters, everything else as it is."""
    places = codes.astype(np.int64) - HANGUL.start
    is_syllable = (places >= 0) & (places < len(HANGUL))
    if not is_syllable.any():
        return codes
    lead, rest = np.divmod(places, NUM_VOWELS * NUM_TAILS)
    vowel, tail = np.divmod(rest, NUM_TAILS)
    columns = np.stack([FIRST_LEAD + lead, FIRST_VOWEL + vowel, FIRST_TAIL + tail], axis=1)
    columns[~is_syllable] = 0
    columns[~is_syllable, 0] = codes[~is_syllable]
    is_part = np.stack([np.ones(len(codes), bool), is_syllable, is_syllable & (tail > 0)], axis=1)
    return columns[is_part].astype(np.uint32)


def folded(text: str) -> str:
    """The normal form of a text but for its white space: a blank for each character of it, or ASCII as it is."""
    if text.isascii():
        return text.lower()
    codes = _decomposed(code_points(text))
    kinds, values = kinds_of(codes), (_entries()[codes] >> KIND_BITS).astype(np.int64)
    is_longer = kinds == EXPANDS
    lengths = np.where(is_longer, values & LENGTH_MASK, kinds != REMOVED)
    places = np.repeat(np.arange(len(codes)), lengths)
    offsets = np.arange(len(places)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    starts = np.where(is_longer, values >> LENGTH_BITS, 0)[places]
    forms = np.where(
        is_longer[places], tables().expansions[starts + np.where(is_longer[places], offsets, 0)], codes[places]
    )
    text = forms.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    classes = np.where(kinds_of(forms) == MARK, _entries()[forms] >> KIND_BITS, 0)
    if not ((classes[:-1] > classes[1:]) & (classes[1:] > 0)).any() and not (forms == DOT_ABOVE).any():
        return text
    dotted, runs, class_of = _mark_runs()
    text = dotted.sub(lambda m: m[0].replace(chr(DOT_ABOVE), ""), text)
    return runs.sub(lambda m: "".join(sorted(m[0], key=class_of.__getitem__)), text)


def normal_form(text: str) -> str:
    """The normal form of a text, with one blank for each run of white space and none at its ends."""
    return " ".join(folded(text).split())
