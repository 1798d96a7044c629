"""Texts that are secrets whatever their key: keys of services, JWTs, private keys, passwords in addresses.

Each pattern has a form of its own, so ordinary prose has no match; there are no guesses by entropy. `in_text` is safe
for prompts. `in_message` also masks assignments ("api_key=..."), and is for log lines and error messages.
"""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass

from gristmill.records.masking.keys import is_secret_key

MASK = "***"

Replacement = str | Callable[[re.Match[str]], str]


def _with_run(match: re.Match[str]) -> str:
    """Masks a token that has a long run of letters and digits; names in kebab-case have none."""
    return MASK if re.search(r"[A-Za-z0-9]{16}", match[0]) else match[0]


def _basic(match: re.Match[str]) -> str:
    """Masks what follows "Basic" if it is `user:password` in base64."""
    try:
        is_pair = ":" in base64.b64decode(match[2] + "=" * (-len(match[2]) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        is_pair = False
    return f"{match[1]}{MASK}" if is_pair else match[0]


def _parameter(match: re.Match[str]) -> str:
    is_secret = is_secret_key(match[2]) or match[2].lower() in ("sig", "x-amz-credential", "x-goog-credential")
    return f"{match[1]}{match[2]}={MASK}" if is_secret else match[0]


def _bearer(match: re.Match[str]) -> str:
    return f"{match[1]}{MASK}" if re.search(r"\d", match[2]) else match[0]


@dataclass(frozen=True)
class Form:
    """A form of a secret, searched only in texts that hold one of `marks` in lower case."""

    marks: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: Replacement

    def masked(self, text: str, lower: str) -> str:
        for mark in self.marks:  # much faster than a search for all of them
            if mark in lower:
                return self.pattern.sub(self.replacement, text)
        return text


def _form(marks: str, pattern: str, replacement: Replacement = MASK, flags: int = 0) -> Form:
    return Form(tuple(marks.split()), re.compile(pattern, flags), replacement)


# Keys in the address of a bucket may hold slashes; no name of a bucket has a colon or an at sign.
BUCKETS = (
    _form(
        "://",
        r"\b((?:s3[an]?|gs|gcs|r2|az|abfss?|wasbs?)://)[^\s/@:\"'<>]*:[^\s\"'<>]*@",
        rf"\1{MASK}@",
        re.IGNORECASE,
    ),
    _form(
        "s3:// s3a:// s3n://",
        r"\b(s3[an]?://)(?=[^\s/@:\"'<>]*:)[^\s\"'<>]*[^\s\"'<>:.,;]",
        rf"\1{MASK}",
        re.IGNORECASE,
    ),
    _form("://", r"\b((?:s3[an]?|gs|gcs|r2)://)[^\s/@\"'<>]+@", rf"\1{MASK}@", re.IGNORECASE),
)
# user:password@ in any other address; a password with a slash is told from a port by its form.
ADDRESSES = (
    _form("://", r"(?<![a-z0-9])([a-z][a-z0-9+.\-]{0,30}://)[^\s/?#@:\"'<>]*:[^\s/?#\"'<>]*@", rf"\1{MASK}@", re.I),
    _form(
        "://",
        r"(?<![a-z0-9])([a-z][a-z0-9+.\-]{0,30}://)[^\s/?#@:\"'<>]+:(?!\d*(?:[/?#\s]|$))[^\s\"'<>]*@",
        rf"\1{MASK}@",
        re.I,
    ),
    _form("http", r"\b(https?://)[^\s/?#@:\"'<>]{16,}@", rf"\1{MASK}@", re.I),
)
FORMS = (
    # A private key: its header with its body, up to the end or as far as it reads as base64.
    _form(
        "-----begin",
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
        r"(?:[\s\S]{0,8000}?-----END [A-Z0-9 ]+-----|(?:\\[rn]|[A-Za-z0-9+/=\s]){40,})",
    ),
    _form("? & ;", r"([?&;])([\w.\-]{1,60})=([^&#;\s\"'<>]+)", _parameter),
    _form("hooks.slack.com/", r"(https://hooks\.slack\.com/(?:services|workflows)/)[\w/\-]+", rf"\1{MASK}"),
    _form("/api/webhooks/", r"(https://(?:\w+\.)?discord(?:app)?\.com/api/webhooks/)[\w/\-]+", rf"\1{MASK}"),
    _form(
        "accountkey= sharedaccess",
        r"\b((?:AccountKey|SharedAccessKey|SharedAccessSignature)=)[^;\s\"']+",
        rf"\1{MASK}",
        re.I,
    ),
    _form(
        "authorization",
        r"(\bAuthorization[\"']?\s*[:=]\s*[\"']?(?:Bearer|Basic|Token|Digest|ApiKey|AWS4-HMAC-SHA256)\s+)[^\s\"',;]+",
        rf"\1{MASK}",
        re.I,
    ),
    _form("bearer", r"\b(Bearer\s+)([A-Za-z0-9._~+/\-]{16,}=*)", _bearer, re.I),
    _form("basic", r"\b(Basic\s+)([A-Za-z0-9+/]{8,}={0,2})", _basic, re.I),
    _form("eyj", r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]*){1,3}"),
    _form("akia asia abia acca", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"),
    _form("hf_ api_org_", r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}"),
    _form("ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", r"\b(?:gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{20,})"),
    _form(
        "sk- nvapi- glpat- gldt- glrt- glptt- pypi- dop_v1- shpat-",
        r"\b(?:sk|nvapi|glpat|gldt|glrt|glptt|pypi|dop_v1|shpat)-[A-Za-z0-9_\-]{16,}",
        _with_run,
    ),
    _form(
        "k_live_ k_test_ npm_ whsec_ r8_ gsk_ tgp_v1_ pplx_ xai_",
        r"\b(?:[rs]k_(?:live|test)|npm|whsec|r8|gsk|tgp_v1|pplx|xai)_[A-Za-z0-9]{16,}",
        _with_run,
    ),
    _form("aiza ya29. sg.", r"\bAIza[\w\-]{30,}|\bya29\.[\w\-]{20,}|\bSG\.[\w\-]{16,}\.[\w\-]{16,}"),
    _form("xox xapp-", r"\bxox[abeoprs]-[A-Za-z0-9\-]{10,}|\bxapp-\d-[A-Za-z0-9\-]{10,}"),
)
WHOLE = re.compile(
    r"(?:Authorization:\s*)?(?:Bearer|Basic|Token|Digest|ApiKey)\s+\S{4,}", re.IGNORECASE
)  # the value of a header

PASSWORD = re.compile(r"[a-z][a-z0-9+.\-]*://[^\s:]*:([^\s]+)@[^\s@]*$", re.IGNORECASE)  # of a whole address

# `name = value` and `"name": "value"` in messages; a value in quotes may hold blanks.
ASSIGNED = re.compile(r"(?<![\w.\-])([\w.\-]++)(?:\[\d+\])?[\"']?\s*(?:=|:(?=\s*[\"']))\s*")
VALUE = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s\"',;&)\]}]+")
NO_VALUE = frozenset({"", MASK, "None", "null", "True", "False", "true", "false"})
UNQUOTED = re.compile(
    r"(?<![\w\-])((?:[\w\-]*(?:password|passwd|api[_-]?key|secret[_-]?key|access[_-]?key)|authorization)\s*:\s+)"
    r"((?:(?:bearer|basic|token)\s+)?[^\s,;\"']+)",
    re.IGNORECASE,
)


def in_text(text: str) -> str:
    """`text` with every secret of a known form replaced by `MASK`."""
    lower = text.lower()
    for form in FORMS:
        text = form.masked(text, lower)
    if "://" in text and ("@" in text or "s3" in lower):
        for form in (*BUCKETS, *ADDRESSES):
            text = form.masked(text, lower)
    return text


def is_secret(text: str) -> bool:
    """Whether `text` is a secret as a whole, or an address with one: a setting, not prose that quotes one."""
    stripped = text.strip()
    if WHOLE.fullmatch(stripped):
        return True
    is_word = not re.search(r"\s", stripped)
    if not is_word and not stripped.startswith("-----BEGIN "):
        return False
    rest = in_text(stripped)
    return rest == MASK or (is_word and rest != stripped)


def parts_of(text: str) -> list[str]:
    """What is secret in a text that is a secret as a whole: the password of an address, the token of a header."""
    stripped = text.strip()
    if address := PASSWORD.match(stripped):
        return [address[1]]
    if WHOLE.fullmatch(stripped):
        return [stripped.split()[-1]]
    return [text] if in_text(stripped) == MASK else []


def in_message(text: str) -> str:
    """`text` as `in_text` gives it, and with the values of assignments to secret keys replaced."""
    text = in_text(text)
    if "=" in text or (":" in text and ("'" in text or '"' in text)):
        text = _without_assigned(text)
    if ":" in text and ("key" in (lower := text.lower()) or "pass" in lower or "authorization" in lower):
        text = UNQUOTED.sub(rf"\1{MASK}", text)
    return text


def _without_assigned(text: str) -> str:
    """`text` with the values of secret keys replaced. The value of another key may hold an assignment itself."""
    parts, end, begin = [], 0, 0
    while assigned := ASSIGNED.search(text, begin):
        begin = assigned.end()
        value = VALUE.match(text, begin) if is_secret_key(assigned[1]) else None
        if value is None or value[0].strip("\"'") in NO_VALUE:
            continue
        quote = value[0][0] if value[0][0] in "\"'" else ""
        parts += [text[end:begin], quote, MASK, quote]
        begin = end = value.end()
    return "".join([*parts, text[end:]])
