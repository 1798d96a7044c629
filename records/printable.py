"""Texts for terminals and pages: control characters become visible, so that no text can act on the reader's screen.

Rows hold what a model wrote: escape sequences that set a title or clear the screen, marks that reverse the order of
characters, invisible tags. Letters, accents, joiners and emoji of every script stay as they are.
"""

import json
import re
from typing import Any

# C0 but tab and newline, DEL and C1; line and paragraph separators; marks of direction (LRM, RLM, ALM, embeddings,
# isolates); the byte order mark and interlinear marks; surrogates; noncharacters; tags.
UNSAFE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f"
)
FLAG = "\U0001f3f4(?:{})\U000e007f".format(  # the flags of England, Scotland and Wales are emoji made of tags
    "|".join("".join(chr(0xE0000 + ord(c)) for c in code) for code in ("gbeng", "gbsct", "gbwls"))
)
FLAG_OR_UNSAFE = re.compile(f"({FLAG})|[{UNSAFE}]")
FLAG_OR_UNSAFE_IN_LINE = re.compile(f"({FLAG})|[{UNSAFE}\n\t]")
UNSAFE_CHARACTER = re.compile(f"[{UNSAFE}]")
SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def printable(text: str) -> str:
    """`text` with control characters as visible escapes (`\\x1b`, `\\u202e`). Newlines and tabs stay."""
    return FLAG_OR_UNSAFE.sub(_visible, text)


def printable_line(text: str) -> str:
    """`printable` in one line: newlines and tabs become `\\n` and `\\t`."""
    return FLAG_OR_UNSAFE_IN_LINE.sub(_visible, text)


def _visible(match: re.Match[str]) -> str:
    if match[1]:
        return match[1]
    code = ord(match[0])
    if match[0] in SHORT:
        return SHORT[match[0]]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def json_text(value: Any, indent: int | None = None, **options: Any) -> str:
    """JSON that reads back as `value` and has no control character in it, with other letters as they are.

    It can always be encoded: lone surrogates are escaped too. `options` go to json.dumps.
    """
    return UNSAFE_CHARACTER.sub(_escape, json.dumps(value, indent=indent, ensure_ascii=False, **options))


def _escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1] if ord(match[0]) > 0x7F else f"\\u{ord(match[0]):04x}"
