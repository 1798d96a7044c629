"""Values that fit a JSON schema, drawn from a seed: the canned engine's answers to structured output."""

import json
from collections.abc import Mapping
from typing import Any

from gristmill.generators.canned.words import Bank
from gristmill.generators.text.contract import mix

MAX_ITEMS = 3  # of an array whose schema asks for no more
MAX_DEPTH = 16  # of a schema that refers to itself


def value_of(schema: Mapping[str, Any], seed: int, bank: Bank, depth: int = 0) -> Any:
    """A value. Honours const, enum, type, properties, items, bounds, anyOf and local $ref; ignores other keys."""
    return _value(schema, schema, seed, bank, depth)


def text_of(schema: Mapping[str, Any], seed: int, bank: Bank) -> str:
    """The value as JSON text."""
    return json.dumps(value_of(schema, seed, bank), ensure_ascii=False)


def _value(root: Mapping[str, Any], schema: Any, seed: int, bank: Bank, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return None
    if "const" in schema:
        return schema["const"]
    for key in ("enum", "anyOf", "oneOf"):
        if schema.get(key):
            chosen = schema[key][mix(seed, depth) % len(schema[key])]
            return chosen if key == "enum" else _value(root, chosen, seed, bank, depth + 1)
    if "$ref" in schema:
        return _value(root, _resolve(root, schema["$ref"]), seed, bank, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[mix(seed, depth) % len(kind)]
    if kind == "object":
        wanted = schema.get("properties", {})
        return {name: _value(root, wanted[name], mix(seed, 7 + at), bank, depth + 1) for at, name in enumerate(wanted)}
    if kind == "array":
        low = int(schema.get("minItems", 1))
        high = max(low, int(schema.get("maxItems", max(low, MAX_ITEMS))))
        num = low + mix(seed, depth) % (high - low + 1)
        return [_value(root, schema.get("items", {}), mix(seed, 7 + at), bank, depth + 1) for at in range(num)]
    if kind in ("integer", "number"):
        low, high = int(schema.get("minimum", 0)), int(schema.get("maximum", 100))
        return low + mix(seed, depth) % (max(high, low) - low + 1)
    if kind == "boolean":
        return bool(mix(seed, depth) & 1)
    if kind == "null":
        return None
    text = bank.text(seed, 12)
    least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
    while len(text) < least:
        text += " " + bank.text(mix(seed, len(text)), 12)
    return text[: int(most)] if most is not None else text


def _resolve(root: Mapping[str, Any], ref: str) -> Any:
    value: Any = root
    for part in ref.removeprefix("#/").split("/"):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
