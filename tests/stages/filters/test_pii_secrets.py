"""The forms of detect-secrets' patterns that are linear find the matches of the patterns."""

import re
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.stages.filters.pii_finders import KINDS, _merge
from gristmill.stages.filters.pii_secrets import IN_RUNS, MAY_HOLD, NPM, PLACEHOLDER, SLOW_SIGN, finder_of
from tests.profiles import scaled

HEX, KEY = "0123456789abcdef", "a1B2c3D4e5F6g7H8i9J0"
PIECES: dict[str, tuple[str, ...]] = {
    "jwt": ("eyJ", "eyJhbGciOi", ".", "-", "_", "=", "a", " ", "+", "/", "\n"),
    "openai": ("sk-", KEY, "T3BlbkFJ", "-", "_", "a", " ", ".", "sk-" + KEY + "T3BlbkFJ" + KEY),
    "npm": ("//", "/", ":_authToken=", "/:_authToken=", "npm_", "a", " ", HEX * 2 + "-0-1", "registry", "\t", "="),
    "ibm_cloud_iam": ("ibm", "_", "iam", "api", "key", "password", " ", "   ", "=", ":", "=>", ":=", "::", '"', "[",
                      "]", "'", HEX * 2 + HEX[:12], "a"),
    "ibm_cos_hmac": ("ibm", "cos", "hmac", "secret", "access", "key", "_", "-", " ", "  ", "=", ":", "=>", '"',
                     HEX * 3),
    "softlayer": ("softlayer", "sl", "_", "api", "key", " ", "  ", "=", ":", "=>", "::", '"', HEX * 4, "a"),
}  # fmt: skip


def patterns_of(module: str, name: str) -> list[re.Pattern[str]]:
    plugin: Any = getattr(import_module(f"detect_secrets.plugins.{module}"), name)()
    return list(plugin.denylist)


MODULES = {
    "jwt": "JwtTokenDetector",
    "openai": "OpenAIDetector",
    "npm": "NpmDetector",
    "ibm_cloud_iam": "IbmCloudIamDetector",
    "ibm_cos_hmac": "IbmCosHmacDetector",
    "softlayer": "SoftlayerDetector",
}


@pytest.mark.parametrize("module", MODULES)
def test_a_finder_finds_what_the_pattern_finds(module: str) -> None:
    finders = [(pattern, finder_of(module, pattern)) for pattern in patterns_of(module, MODULES[module])]

    @settings(max_examples=scaled(2000))
    @given(st.lists(st.sampled_from(PIECES[module]), max_size=12).map("".join))
    def same(line: str) -> None:
        for pattern, finder in finders:
            assert list(finder(line)) == [match.span() for match in pattern.finditer(line)]

    same()


def test_the_slow_patterns_of_the_package_are_those_that_are_replaced() -> None:
    assert [p.pattern for p in patterns_of("npm", "NpmDetector")] == [NPM]
    for module, (slow, *_) in IN_RUNS.items():
        assert [p.pattern for p in patterns_of(module, MODULES[module])] == [slow]
    for module in ("ibm_cloud_iam", "ibm_cos_hmac", "softlayer"):
        assert SLOW_SIGN in patterns_of(module, MODULES[module])[0].pattern


@settings(max_examples=scaled(1000))
@given(
    st.lists(st.sampled_from(["<", ">", "a", "EXAMPLE", "x" * 8, "*" * 4, "b" * 12, "b", "\n"]), max_size=10).map(
        "".join
    )
)
def test_placeholders_are_those_of_the_plain_expression(token: str) -> None:
    plain = re.search(r"EXAMPLE|x{8}|X{8}|\*{4}|<[^>]*>|(.)\1{11}", token)
    assert bool(PLACEHOLDER.search(token)) == bool(plain)


@pytest.mark.parametrize("prefix", "glpat gldt glft glsoat glrt glcbt glimt glptt glagent gloas".split())
def test_a_line_with_a_token_of_gitlab_is_read(prefix: str) -> None:
    assert MAY_HOLD.search(f"{prefix}-")


SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6)), max_size=8)


@settings(max_examples=scaled(1000))
@given(st.lists(SPANS, min_size=1, max_size=4))
def test_spans_are_merged_as_if_each_was_compared_with_all(kinds: list[list[tuple[int, int]]]) -> None:
    merged: list[Any] = []
    plain: list[Any] = []
    for kind, starts in zip(KINDS, kinds):
        spans = sorted({(start, start + size) for start, size in starts}, key=lambda span: (span[0], -span[1]))
        merged = _merge(merged, kind, spans)
        for start, end in spans:
            if all(end <= s or e <= start for _, s, e in plain):
                plain.append((kind, start, end))
    assert merged == sorted(plain, key=lambda match: match[1:])
