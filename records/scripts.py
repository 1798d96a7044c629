"""Scripts that write no white space between words: their characters, for patterns of Python's re."""

import unicodedata

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
# Signs of these scripts that stand on the letter before them, and vowels of Thai and Lao that follow their consonant.
SIGNS = "\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3" + "".join(
    chr(at) for at in (*range(0x0E00, 0x17FF), 0x3099, 0x309A) if unicodedata.category(chr(at))[0] == "M"
)
