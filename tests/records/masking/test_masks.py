"""Trees of literals without their secrets: for people, and for fingerprints."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.ids import fingerprint
from gristmill.records.masking.masks import MASK, covered, masked, masked_setting, masked_text, remember
from gristmill.records.spec import convert
from tests.records.masking.test_keys import INNOCENT, SECRETS

SECRET = "Xk9-vT4qpLw2" + "zR7sYd"
KEYS = [key for key in SECRETS if "." not in key]
FREE_NAMES = st.sampled_from(["engine", "options", "headers", "env", "runtime_env", "default_headers", "a", "0"])
PLAIN = st.one_of(
    st.integers(-(2**53), 2**53),
    st.booleans(),
    st.none(),
    st.text("aZ é{}[]|<>.,-_ 09", max_size=8),
    st.sampled_from(["auto", "cuda:0"]),
)


@st.composite
def trees(draw: st.DrawFn, value: Any = SECRET) -> Any:
    """A tree with a secret under a secret key, at any depth, among innocent values."""
    tree: Any = {draw(st.sampled_from(KEYS)): draw(st.sampled_from([value, [value, value], {"nested": value}]))}
    if isinstance(next(iter(tree.values())), dict):
        tree = {draw(st.sampled_from(["credentials", "secrets"])): {"nested": value, "more": [value]}}
    for _ in range(draw(st.integers(0, 4))):
        others = draw(st.dictionaries(st.sampled_from([k for k in INNOCENT if "." not in k]), PLAIN, max_size=3))
        tree = {**others, draw(FREE_NAMES): (draw(st.sampled_from(["table", "list"])) == "table" and tree) or [tree]}
    return tree


@given(trees())
def test_a_secret_shows_at_no_depth_and_a_rotated_one_is_the_same_recipe(tree: Any) -> None:
    before = copy.deepcopy(tree)
    assert SECRET not in json.dumps(masked(tree))
    assert SECRET not in json.dumps(covered(tree))
    rotated = json.loads(json.dumps(tree).replace(SECRET, "another-" + SECRET[::-1]))
    assert fingerprint(covered(rotated)) == fingerprint(covered(tree))
    assert covered(masked(tree)) == covered(masked(rotated))
    assert tree == before, "the recipe itself keeps its secrets"


@given(st.dictionaries(st.sampled_from(INNOCENT), st.one_of(PLAIN, st.lists(PLAIN, max_size=2)), min_size=1))
def test_innocent_keys_are_untouched(table: dict[str, Any]) -> None:
    tree = {"generator": {"engine": table, "sampling": table}, "prompt": "Write {text}: password, token = secret"}
    assert masked(tree) == tree and covered(tree) == tree
    assert fingerprint(covered(tree)) == fingerprint(tree)


def test_a_prompt_is_content() -> None:
    tree = {"password": "correct horse", "template": "Why is correct horse battery staple a good password?"}
    assert masked(tree)["template"] == tree["template"]
    quoting = {"template": "Explain why hf_abcdefghijklmnop1234 must not be published."}
    assert masked(quoting)["template"] == f"Explain why {MASK} must not be published."
    assert covered(quoting) == quoting, "another prompt is another recipe"


def test_values_that_are_no_secrets_under_their_keys() -> None:
    schema = {"properties": {"password": {"type": "string"}, "api_key": {"type": "string"}}, "required": ["password"]}
    for tree in (schema, {"token": "<|endoftext|>"}, {"use_token": True, "signature": None, "secret": ""}):
        assert masked(tree) == tree and covered(tree) == tree


def test_environments_and_headers_are_masked_as_a_whole_but_are_identity() -> None:
    tree = {"env": {"MODE": "fast", "HF_TOKEN": SECRET}, "headers": {"X-Team": "blue", "Accept": "*/*"}}
    assert masked(tree) == {"env": {"MODE": MASK, "HF_TOKEN": MASK}, "headers": {"X-Team": MASK, "Accept": "*/*"}}
    assert covered(tree) == {"env": {"MODE": "fast"}, "headers": tree["headers"]}


def test_the_value_of_a_secret_key_is_masked_elsewhere_too() -> None:
    tree = {"engine": {"api_key": SECRET}, "url": f"https://host/{SECRET}/v1", "notes": [SECRET]}
    assert SECRET not in json.dumps(masked(tree))


def test_messages_mask_the_secrets_of_a_recipe_and_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    remember({"engine": {"auth_token": SECRET + "1"}})
    monkeypatch.setenv("SOME_SECRET", "from-the-environment")
    text = masked_text(f"403 for {SECRET}1 and from-the-environment")
    assert text == f"403 for {MASK} and {MASK}"
    assert str(UserError(f"lot 3: {SECRET}1 was refused")) == f"lot 3: {MASK} was refused"
    with pytest.raises(UserError) as error:
        convert("short", int, "generator.engine.api_key")
    assert "short" not in str(error.value) and MASK in str(error.value)


def test_a_printed_setting_shows_no_secret() -> None:
    assert masked_setting(f"generator.engine.api_key={SECRET}") == f"generator.engine.api_key={MASK}"
    assert masked_setting("limits.asks=100") == "limits.asks=100"
    assert SECRET not in masked_setting(f"generator.url=https://a:{SECRET}@host")
    assert SECRET not in masked_setting(f'generator.engine={{api_key="{SECRET}"}}')
