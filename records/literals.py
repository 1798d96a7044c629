"""Literals of JSON and TOML texts, whose every fault is a ValueError."""

import json
import re
import tomllib
from typing import Any

import numpy as np

NULL_ROW = re.compile(rb"(?:\A(?:\xef\xbb\xbf)?|[}\]\n])[ \t\r]*+null")
DEEPEST = 500  # brackets within brackets that other parsers of JSON take


def json_value(text: str | bytes) -> Any:
    """The literals of a JSON text. Raises ValueError for any other, also for one that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def toml_tables(text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises ValueError for any other, also for one that is nested too deeply."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def check_lines(data: bytes) -> None:
    """Raise ValueError for lines of JSON on which Arrow's parser ends the process: deep nesting, and `null` for a row.

    What Arrow reports itself is left to it.
    """
    codes = np.frombuffer(data, np.uint8)
    steps = np.isin(codes, np.frombuffer(b"[{", np.uint8)).astype(np.int32)
    steps -= np.isin(codes, np.frombuffer(b"]}", np.uint8))
    depths = np.cumsum(steps)
    # Brackets in strings are counted too, so both tests only say which lines are worth a closer look.
    is_deep = len(depths) > 0 and depths.max() - min(0, depths.min()) > DEEPEST
    if not is_deep and NULL_ROW.search(data) is None:
        return
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        if line.count(b"[") + line.count(b"{") > DEEPEST and _depth(json_value(line)) > DEEPEST:
            raise ValueError(f"line {number} is nested too deeply")
        if NULL_ROW.search(line) is not None and not isinstance(json_value(line), dict):
            raise ValueError(f"line {number} is no JSON object")


def _depth(value: Any) -> int:
    items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if items is None else 1 + max(map(_depth, items), default=0)
