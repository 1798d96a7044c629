"""Scripts that write no white space between words: their characters, for patterns of Python's re."""

from collections.abc import Iterable

import numpy as np

from gristmill.records.normal_form import EXPANDS, MARK, code_points, folded, kinds_of

# Thai and Lao, Tibetan, Myanmar, Khmer, kana, Han, and their extensions.
UNSPACED = "".join(
    f"{chr(first)}-{chr(last)}"
    for first, last in (
        (0x0E00, 0x0EFF),
        (0x0F00, 0x0FFF),
        (0x1000, 0x109F),
        (0x1780, 0x17FF),
        (0x3040, 0x30FF),
        (0x3400, 0x9FFF),
        (0xF900, 0xFAFF),
        (0x20000, 0x3FFFF),
    )
)


def _marks(codes: Iterable[int]) -> str:
    """The marks of Unicode 14.0 among code points: by our tables, whatever version the running Python has."""
    places = np.fromiter(codes, np.uint32)
    return "".join(
        chr(code)
        for code, kind in zip(places.tolist(), kinds_of(places).tolist())
        if kind == MARK or (kind == EXPANDS and (kinds_of(code_points(folded(chr(code)))) == MARK).all())
    )


# Signs of these scripts that stand on the letter before them, vowels of Thai and Lao that follow their consonant, and
# two vowels of Khmer that nobody sees.
SIGNS = "\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3\u17b4\u17b5" + _marks([*range(0x0E00, 0x17FF), 0x3099, 0x309A])
