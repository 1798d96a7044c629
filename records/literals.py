"""Literals of JSON and TOML texts, whose every fault is a ValueError."""

import json
import tomllib
from typing import Any

import numpy as np

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


def check_depth(data: bytes) -> None:
    """Raise ValueError for lines of JSON that are nested too deeply for Arrow, whose parser would end the process."""
    codes = np.frombuffer(data, np.uint8)
    steps = np.isin(codes, np.frombuffer(b"[{", np.uint8)).astype(np.int32)
    steps -= np.isin(codes, np.frombuffer(b"]}", np.uint8))
    if not len(steps) or np.cumsum(steps).max() - min(0, np.cumsum(steps).min()) <= DEEPEST:
        return  # brackets in strings are counted too, so this is an upper bound
    for line in data.splitlines():
        if line.count(b"[") + line.count(b"{") > DEEPEST and _depth(json_value(line)) > DEEPEST:
            raise ValueError("nested too deeply")


def _depth(value: Any) -> int:
    items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if items is None else 1 + max(map(_depth, items), default=0)
