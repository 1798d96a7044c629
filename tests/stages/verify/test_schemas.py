"""Validators with bounded time: the verdicts of jsonschema, no pattern that backtracks, no comparison of all pairs."""

import json
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.spec import build
from gristmill.stages.verify.json_schema import JsonSchema, JsonSchemaSpec
from gristmill.stages.verify.schemas import check_schema, pattern_identity, validator
from tests.profiles import scaled

VALUES = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 1.0, 2.5, "", "a", "ab", "a1"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "a1", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
SCHEMAS: list[Any] = [
    {"uniqueItems": True},
    {"items": {"uniqueItems": True}},
    {"pattern": "^a[0-9]*$"},
    {"patternProperties": {"^a": {"type": "integer"}, "[0-9]$": {"minimum": 1}}},
    {"properties": {"b": {}}, "patternProperties": {"^a": {}}, "additionalProperties": False},
    {"patternProperties": {"^a": {}}, "additionalProperties": {"type": "string"}},
    {"additionalProperties": False, "properties": {"a": {"pattern": "b"}}},
    {"$schema": "http://json-schema.org/draft-07/schema#", "items": {"$ref": "#"}, "pattern": "a"},
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_verdicts_are_those_of_jsonschema(schema: Any) -> None:
    plain = jsonschema.validators.validator_for(schema)(schema)
    check_schema(schema)
    bounded = validator(schema)

    @settings(max_examples=scaled(400))
    @given(VALUES)
    def same(value: Any) -> None:
        value = json.loads(json.dumps(value))
        assert bounded.is_valid(value) == plain.is_valid(value)

    same()


@pytest.mark.parametrize("pattern", ["^(a+)+$", "(a|a)*$", "(a*)*b", r"^(\w+\s?)*$"])
@pytest.mark.parametrize("place", ["pattern", "patternProperties", "additionalProperties", "ref"])
def test_a_pattern_takes_linear_time_wherever_it_stands(pattern: str, place: str) -> None:
    text = "a" * 20_000 + "!"
    schema: Any = {"pattern": pattern}
    value: Any = text
    if place == "ref":
        schema = {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": pattern, "items": {"$ref": "#"}}
        value = [[text]]
    elif place != "pattern":
        schema = {"patternProperties": {pattern: {}}, **({} if place == "patternProperties" else {place: False})}
        value = {text: 1}
    start = time.process_time()
    list(validator(schema).iter_errors(value))
    assert time.process_time() - start < 5


def test_many_objects_are_compared_by_a_hash() -> None:
    start = time.process_time()
    assert validator({"uniqueItems": True}).is_valid([{"a": n} for n in range(100_000)])
    assert time.process_time() - start < 10


@pytest.mark.parametrize("pattern", ["^(?=a)b", r"(a)\1", "(?<!a)b"])
def test_a_pattern_that_has_no_bound_is_refused(pattern: str) -> None:
    spec = build(JsonSchemaSpec, {"schema": {"properties": {"a": {"pattern": pattern}}}}, "stages[0]")
    with pytest.raises(UserError, match="RE2, which has neither look-around nor back-references"):
        JsonSchema(spec).check()
    with pytest.raises(ValueError, match="unevaluatedProperties cannot stand beside patternProperties"):
        check_schema({"patternProperties": {"a": {}}, "unevaluatedProperties": False})


def test_only_schemas_with_patterns_have_another_identity() -> None:
    assert pattern_identity({"properties": {"pattern": {"type": "string"}}, "const": {"pattern": "a"}}) == {}
    assert pattern_identity({"items": [{"patternProperties": {"^a": {}}}]}) == {"patterns": "re2"}
