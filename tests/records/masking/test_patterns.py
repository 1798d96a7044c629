"""Secrets of known forms go from any text; prose and innocent addresses stay as they are."""

import importlib
import pydoc_data.topics

import pytest

from gristmill.records.masking.patterns import MASK, in_message, in_text, is_secret

WORD = "Zq7" + "aB3kLm9XyT2wQ5vN"  # a part of every secret below
SECRETS = [
    f"https://bot:{WORD}@host.example/x",
    f"https://bot:{WORD}/slash@host.example",
    f"https://bot:p@{WORD}@host.example",
    f"https://{WORD}@github.com/a/b",
    f"redis://:{WORD}@cache:6379/0",
    f"mongodb+srv://app:{WORD}@db/rows",
    f"ray://user:{WORD}@head:10001",
    f"s3://KEYID:{WORD}@bucket/prefix",
    f"s3://KEYID:{WORD}/with+slash@bucket/prefix",
    f"s3://KEYID:{WORD}",
    f"s3://{WORD}@bucket",
    f"Bearer {WORD}",
    f"Authorization: Bearer {WORD}",
    f"hf_{WORD}",
    f"sk-{WORD}",
    f"sk-ant-api03-{WORD}",
    f"ghp_{WORD}",
    f"glpat-{WORD}",
    f"xoxb-12345-{WORD}",
    f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{WORD}",
    f"https://bucket.host/x?X-Amz-Signature={WORD}&X-Amz-Expires=60",
    f"https://account.host/c?sv=2024&sig={WORD}",
    f"https://host/v1?access_token={WORD}",
    f"DefaultEndpointsProtocol=https;AccountName=x;AccountKey={WORD}==;EndpointSuffix=y",
    f"https://hooks.slack.com/services/T0/B0/{WORD}",
    f"-----BEGIN RSA PRIVATE KEY-----\n{WORD * 4}\n-----END RSA PRIVATE KEY-----",
    f"-----BEGIN PRIVATE KEY-----\\n{WORD * 4}",
]
INNOCENT = [
    "Write two sentences about {text}.",
    "Bearer of good news, internationalizations are basic understandings.",
    "Basic understanding of the Authorization header: explain Bearer tokens.",
    "The password: never share it. A token = one word; secret = hidden.",
    "https://medium.com/@user/post?page=2&max_tokens=5",
    "https://host:8080/@name and me@host.example",
    "s3://bucket/prefix/a:b@c.parquet",
    "git@github.com:a/b.git ssh://git@host/x",
    "from sk-learn-contrib-imbalanced-data import x; hf_text_generation_inference",
    "-----BEGIN PRIVATE KEY----- is how a key begins",
    "eyJ is the beginning of a token",
    "2024-11-30T12:00:00 ::1 fe80::1%eth0 a::b",
]
MESSAGES = [
    f"error: unrecognized arguments: --sett generator.engine.api_key={WORD}",
    f"--set a.password='{WORD} two words'",
    f"refused {{'api_key': '{WORD}', \"aws_secret_access_key\": \"{WORD}\"}}",
    f"password: {WORD}",
    f"Spec(name='x', auth_token='{WORD}', n=3)",
    f"x=y=token={WORD}",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_of_a_known_form_is_masked_wherever_it_stands(text: str) -> None:
    for whole in (text, f"see {text} there", f'"{text}"', f"a\n{text}\nb", f"({text})"):
        assert WORD not in in_text(whole) and MASK in in_text(whole)
        assert in_message(in_message(whole)) == in_message(whole)
    assert is_secret(text)


@pytest.mark.parametrize("text", INNOCENT)
def test_prose_stays_as_it_is(text: str) -> None:
    assert in_text(text) == text and not is_secret(text)


@pytest.mark.parametrize("text", MESSAGES)
def test_a_message_shows_no_value_of_a_secret_key(text: str) -> None:
    assert WORD not in in_message(text) and MASK in in_message(text)
    assert in_text(text) == text, "such a text may be a prompt"


def test_messages_about_other_keys_stay_as_they_are() -> None:
    for text in ("limits.asks=100, max_tokens=5 and eos_token='</s>'", "reject = pii:secret", "write it as key=value"):
        assert in_message(text) == text


def test_the_documentation_of_python_holds_no_secret() -> None:
    texts = list(pydoc_data.topics.topics.values())
    assert len(texts) > 50 and [t for t in texts if in_text(t) != t] == []


@pytest.mark.parametrize(
    ("plugin", "secret"),
    [
        ("aws.AWSKeyDetector", "AKIA" + "QWERTYUIOPASDFGH"),
        ("basic_auth.BasicAuthDetector", f"https://me:{WORD}@host"),
        ("github_token.GitHubTokenDetector", "ghp_" + "a1B2c3D4" * 4 + "e5F6"),
        ("jwt.JwtTokenDetector", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"),
        ("slack.SlackDetector", "xoxb-123456789012-abcdefABCDEF"),
        ("stripe.StripeDetector", "sk_live_" + "a1B2c3D4" * 3),
        ("npm.NpmDetector", "//registry.example/:_authToken=npm_" + "a1B2c3D4" * 4 + "e5F6"),
    ],
)
def test_what_detect_secrets_finds_is_masked(plugin: str, secret: str) -> None:
    module, _, name = plugin.partition(".")
    detector = getattr(importlib.import_module(f"detect_secrets.plugins.{module}"), name)()
    assert detector.analyze_line(filename="f", line=secret, line_number=1)
    assert not detector.analyze_line(filename="f", line=in_text(secret), line_number=1)
