"""Writes records/unicode.npz: what records/normal_form.py knows of Unicode 14.0, from `unicodedata` and `regex`.

    python -m scripts.unicode_tables           write the file (on Python 3.11, whose unicodedata is 14.0)
    python -m scripts.unicode_tables --check   exit with 1 when the file on disk differs

The tables are in the package, so words do not depend on the Python that counts them.
"""

import argparse
import sys
import unicodedata
from pathlib import Path

import numpy as np
import regex

from gristmill.records.normal_form import (
    ALPHABETIC,
    BULLET,
    CLOSING,
    EXPANDS,
    HANGUL,
    IDEOGRAPH,
    IN_WORD,
    IS_IDEOGRAPH,
    IS_UNSPACED,
    KIND_BITS,
    LENGTH_BITS,
    LETTER,
    MARK,
    NUM_CODES,
    PAGE_BITS,
    QUOTE,
    REMOVED,
    SEPARATOR,
    TERMINAL,
    UNICODE_VERSION,
    UNSPACED,
)

FILE = Path(__file__).resolve().parent.parent / "records" / "unicode.npz"
APOSTROPHES = "\u2018\u2019\u201a\u201b\u2032\u2035\u02b9\u02bb\u02bc\u02bd\u02c8\u055a\u05f3\ua78c"
QUOTES = "\u201c\u201d\u201e\u201f\u2033\u2036\u00ab\u00bb\u05f4\u301d\u301e\u301f"
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043\u05be\u2e3a\u2e3b\u301c\u3030"
SIGNS = {**dict.fromkeys(APOSTROPHES, "'"), **dict.fromkeys(QUOTES, '"'), **dict.fromkeys(DASHES, "-")}
# Vowel points and signs of recitation, which the same text has or has not, and the line that stretches a word.
OPTIONAL = [
    *(range(0x0591, 0x05BE), range(0x05BF, 0x05C0), range(0x05C1, 0x05C3), range(0x05C4, 0x05C6)),  # Hebrew
    *(range(0x05C7, 0x05C8), range(0x0610, 0x061B), range(0x0640, 0x0641), range(0x064B, 0x0653)),  # Arabic
    *(range(0x0656, 0x0660), range(0x0670, 0x0671), range(0x06D6, 0x06DD), range(0x06DF, 0x06E5)),
    *(range(0x06E7, 0x06E9), range(0x06EA, 0x06EE), range(0x08D3, 0x0900), range(0x0711, 0x0712)),  # 0711: Syriac
    range(0x0730, 0x074B),
]
OPTIONAL_CODES = {code for part in OPTIONAL for code in part}
KHMER_STOPS, TIBETAN_STOPS, GREEK_QUESTION = "\u17d4\u17d5\u17da", "\u0f0d\u0f0e\u0f0f\u0f10\u0f11", "\u037e"
BULLETS = "-*·•‣⁃∙■□▪▫▶▸►◆◇○●◦✓✔➢➤・･"
CLOSING_CORNERS = "\u300d\u300f\ufe42\ufe44\uff63\u201c\u2018\u301e\u301f"  # and marks that close in some languages
MORE_TERMINALS = set(KHMER_STOPS + TIBETAN_STOPS + GREEK_QUESTION + "\u2026\uff0e")
IDEOGRAPHIC = regex.compile(
    r"[[\p{L}\p{Nl}]&&[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Bopomofo}\p{scx=Yi}\p{scx=Nushu}\p{scx=Tangut}"
    r"\p{scx=Khitan_Small_Script}]]",
    regex.V1,
)
COMPLEX = regex.compile(r"[\p{Line_Break=SA}\p{Script=Tibetan}]")
IGNORABLE = regex.compile(r"\p{Default_Ignorable_Code_Point}")
SENTENCE_END, IS_ALPHABETIC = regex.compile(r"\p{Sentence_Terminal}"), regex.compile(r"\p{Alphabetic}")


def kind_of(char: str) -> int:
    """The role of a character of a normal form in words."""
    code, category = ord(char), unicodedata.category(char)
    if category in ("Cn", "Co"):  # unassigned in 14.0, or private
        return SEPARATOR if 0x1F000 <= code < 0x20000 else IDEOGRAPH if code >= 0x20000 else LETTER
    if category in ("Cf", "Me") or IGNORABLE.match(char) or code in OPTIONAL_CODES:
        return REMOVED
    if category in ("Mn", "Mc"):
        return MARK
    if IDEOGRAPHIC.match(char):
        return IDEOGRAPH
    if category[0] == "L":
        return UNSPACED if COMPLEX.match(char) else LETTER
    return LETTER if category[0] == "N" else SEPARATOR


def expansion(char: str) -> str:
    """The normal form of a character: NFKD and case folding until neither changes it, then our own rules."""
    if char.isspace():
        return " "
    text, before = char, ""
    while text != before:
        before = text
        # U+0345 would fold to a letter, which must not be before the marks are in order.
        text = "".join(SIGNS.get(c) or (c if c == "\u0345" else c.casefold()) for c in text)
        text = unicodedata.normalize("NFKD", text).replace("\u0131", "i")
    if char == "\u0130":
        return "i"  # I with a dot, in Turkish the capital of i; see also `normal_form`
    return "".join(c for c in text if kind_of(c) != REMOVED)


def properties_of(char: str, kind: int) -> int:
    """Bits for the quality rules; see `gristmill.records.normal_form`."""
    category = unicodedata.category(char)
    bits = ALPHABETIC if IS_ALPHABETIC.match(char) else 0
    if SENTENCE_END.match(char) or char in MORE_TERMINALS:
        bits |= TERMINAL
    if category in ("Pf", "Pi") or char in CLOSING_CORNERS:
        bits |= QUOTE
    if category in ("Pe", "Pf", "Pi") or char in "\"')]}*_":
        bits |= CLOSING
    if char in BULLETS:
        bits |= BULLET
    if kind not in (SEPARATOR, REMOVED):
        bits |= IN_WORD
    first = kind if kind == REMOVED else kind_of(expansion(char)[:1] or char)
    return bits | {IDEOGRAPH: IS_IDEOGRAPH, UNSPACED: IS_UNSPACED}.get(first, 0)


def tables() -> dict[str, np.ndarray]:
    """The arrays of `gristmill.records.normal_form.Tables`, by name."""
    if unicodedata.unidata_version != UNICODE_VERSION:
        raise SystemExit(f"needs unicodedata {UNICODE_VERSION}, this Python has {unicodedata.unidata_version}")
    entries, properties = np.zeros(NUM_CODES, np.int64), np.zeros(NUM_CODES, np.int64)
    expansions: list[int] = []
    for code in range(NUM_CODES):
        if 0xD800 <= code < 0xE000:
            continue
        char = chr(code)
        kind, value = kind_of(char), unicodedata.combining(char)
        properties[code] = properties_of(char, kind)
        form = char if kind == REMOVED or code in HANGUL else expansion(char)
        if not form:
            kind = REMOVED
        elif form != char:
            kind, value = EXPANDS, len(expansions) << LENGTH_BITS | len(form)
            expansions += map(ord, form)
        entries[code] = kind | (value << KIND_BITS if kind in (MARK, EXPANDS) else 0)
    both = (entries << 8 | properties).reshape(-1, 1 << PAGE_BITS)
    unique, pages = np.unique(both, axis=0, return_inverse=True)
    return {
        "pages": pages.reshape(-1).astype(np.uint16),
        "entries": (unique >> 8).astype(np.uint32),
        "expansions": np.array(expansions, np.int32),
        "properties": (unique & 255).astype(np.uint8),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true")
    arrays = tables()
    if parser.parse_args().check:
        with np.load(FILE) as stored:
            return int(set(stored) != set(arrays) or any(not np.array_equal(stored[n], arrays[n]) for n in arrays))
    np.savez_compressed(FILE, allow_pickle=False, **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(main())
