"""Validators of JSON Schema whose time is linear in the value that they check.

jsonschema matches `pattern` by backtracking, which takes exponential time for some patterns, and compares the items of
a list of objects pair by pair. Here patterns are matched by RE2, and items are compared by a hash.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

LITERALS = frozenset({"const", "enum", "default", "examples"})  # keywords whose value is no schema


def check_schema(schema: Any) -> None:
    """Raise ValueError, in a line, if `schema` is not a JSON Schema, or if `validator` cannot bound its time."""
    import jsonschema

    try:
        jsonschema.validators.validator_for(schema).check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"it is not a JSON Schema: {error.json_path}: {error.message}") from None
    keys = set(_keys(schema))
    if {"unevaluatedProperties", "patternProperties"} <= keys:
        raise ValueError("unevaluatedProperties cannot stand beside patternProperties; use additionalProperties")
    for pattern in patterns_of(schema):
        try:
            matches(pattern, "")
        except pa.ArrowInvalid:
            raise ValueError(
                f"pattern {pattern!r} is not in the syntax of RE2, which has neither look-around nor back-references"
            ) from None


def _keys(schema: Any) -> Iterator[str]:
    for each in schema.values() if isinstance(schema, Mapping) else schema if isinstance(schema, list) else ():
        yield from _keys(each)
    yield from map(str, schema) if isinstance(schema, Mapping) else ()


def patterns_of(schema: Any) -> Iterator[str]:
    """Every `pattern` and every key of `patternProperties` in a schema."""
    if isinstance(schema, list):
        for each in schema:
            yield from patterns_of(each)
    if not isinstance(schema, Mapping):
        return
    for key, value in schema.items():
        if key == "pattern" and isinstance(value, str):
            yield value
        elif key == "patternProperties" and isinstance(value, Mapping):
            yield from map(str, value)
        if key not in LITERALS:
            yield from patterns_of(value)


def pattern_identity(schema: Any) -> dict[str, str]:
    """What a component adds to its identity: up to 0.2.0, the patterns of a schema were those of Python."""
    return {"patterns": "re2"} if any(True for _ in patterns_of(schema)) else {}


def validator(schema: Any) -> Any:
    """The jsonschema validator of a schema that `check_schema` accepts. Formats are not checked."""
    import jsonschema

    base = jsonschema.validators.validator_for(schema)
    keywords = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties(base.VALIDATORS.get("additionalProperties")),
        "uniqueItems": _unique_items,
    }
    keywords = {name: keyword for name, keyword in keywords.items() if name in base.VALIDATORS}
    return jsonschema.validators.extend(base, keywords)(_without_dialect(schema))


def _without_dialect(schema: Any) -> Any:
    """The schema without `$schema`, at which jsonschema would return to the validator of that dialect."""
    if isinstance(schema, list):
        return [_without_dialect(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {k: v if k in LITERALS else _without_dialect(v) for k, v in schema.items() if k != "$schema"}


def matches(pattern: str, text: str) -> bool:
    """Whether RE2 finds `pattern` in `text`. Raises ArrowInvalid for a pattern that it does not know."""
    return bool(pc.match_substring_regex(pa.scalar(text.encode("utf-8", "replace").decode()), pattern).as_py())


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    import jsonschema

    if validator.is_type(instance, "string") and not matches(pattern, instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
    for pattern, subschema in patterns.items() if validator.is_type(instance, "object") else ():
        for name, value in instance.items():
            if matches(pattern, name):
                yield from validator.descend(value, subschema, path=name, schema_path=pattern)


def _additional_properties(base: Any) -> Any:
    """The keyword of jsonschema, which sees the properties that match a pattern as if the schema named them."""

    def additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[Any]:
        patterns = schema.get("patternProperties")
        if patterns and validator.is_type(instance, "object"):
            names = [name for name in instance if any(matches(pattern, name) for pattern in patterns)]
            schema = {"properties": {**dict.fromkeys(names, True), **schema.get("properties", {})}}
        yield from base(validator, allowed, instance, schema) or ()

    return additional_properties


def _unique_items(validator: Any, is_unique: bool, instance: Any, schema: Any) -> Iterator[Any]:
    import jsonschema

    if is_unique and validator.is_type(instance, "array"):
        keys = {_key(item) for item in instance}
        if len(keys) < len(instance):
            yield jsonschema.ValidationError(f"{instance!r} has non-unique elements")


def _key(value: Any) -> Any:
    """A hashable form, equal for values that JSON Schema calls equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, bool):
        return "boolean", value
    if isinstance(value, list):
        return "array", tuple(map(_key, value))
    if isinstance(value, dict):
        return "object", frozenset((name, _key(each)) for name, each in value.items())
    return "", value
