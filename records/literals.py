"""Literals of JSON and TOML texts, whose every fault is a ValueError."""

import json
import tomllib
from typing import Any


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
