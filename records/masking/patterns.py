"""Texts that are secrets whatever their key: keys of services, JWTs, private keys, passwords in addresses.

Each pattern has a form of its own, so ordinary prose has no match; there are no guesses by entropy. `in_text` is safe
for prompts. `in_message` also masks assignments ("api_key=..."), and is for log lines and error messages.
"""

import base64
import binascii
import re
from collections.abc import Callable

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


PATTERNS: tuple[tuple[re.Pattern[str], Replacement], ...] = tuple(
    (re.compile(pattern, flags), replacement)
    for pattern, flags, replacement in (
        # A private key: its header with its body, up to the end or as far as it reads as base64.
        (
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
            r"(?:[\s\S]{0,8000}?-----END [A-Z0-9 ]+-----|(?:\\[rn]|[A-Za-z0-9+/=\s]){40,})",
            0,
            MASK,
        ),
        # Keys in an address of a bucket: they may hold slashes, and no name of a bucket has a colon or an at sign.
        (r"\b((?:s3[an]?|gs|gcs|r2|az|abfss?|wasbs?)://)[^\s/@:\"'<>]*:[^\s\"'<>]*@", re.IGNORECASE, rf"\1{MASK}@"),
        (r"\b(s3[an]?://)(?=[^\s/@:\"'<>]*:)[^\s\"'<>]*[^\s\"'<>:.,;]", re.IGNORECASE, rf"\1{MASK}"),
        (r"\b((?:s3[an]?|gs|gcs|r2)://)[^\s/@\"'<>]+@", re.IGNORECASE, rf"\1{MASK}@"),
        # user:password@ in any other address; a password with a slash is told from a port by its form.
        (r"\b([a-z][a-z0-9+.\-]{0,30}://)[^\s/?#@:\"'<>]*:[^\s/?#\"'<>]*@", re.IGNORECASE, rf"\1{MASK}@"),
        (
            r"\b([a-z][a-z0-9+.\-]{0,30}://)[^\s/?#@:\"'<>]+:(?!\d*(?:[/?#\s]|$))[^\s\"'<>]*@",
            re.IGNORECASE,
            rf"\1{MASK}@",
        ),
        (r"\b(https?://)[^\s/?#@:\"'<>]{16,}@", re.IGNORECASE, rf"\1{MASK}@"),
        (r"([?&;])([\w.\-]{1,60})=([^&#;\s\"'<>]+)", 0, _parameter),
        (r"\b(https://(?:hooks\.slack\.com/(?:services|workflows)|discord(?:app)?\.com/api/webhooks)/)[\w/\-]+", 0,
         rf"\1{MASK}"),
        (r"\b((?:AccountKey|SharedAccessKey|SharedAccessSignature)=)[^;\s\"']+", re.IGNORECASE, rf"\1{MASK}"),
        (r"(\bAuthorization[\"']?\s*[:=]\s*[\"']?(?:Bearer|Basic|Token|Digest|ApiKey|AWS4-HMAC-SHA256)\s+)[^\s\"',;]+",
         re.IGNORECASE, rf"\1{MASK}"),
        (r"\b(Bearer\s+)([A-Za-z0-9._~+/\-]{16,}=*)", re.IGNORECASE, _bearer),
        (r"\b(Basic\s+)([A-Za-z0-9+/]{8,}={0,2})", re.IGNORECASE, _basic),
        (r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]*){1,3}", 0, MASK),
        (r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b", 0, MASK),
        (r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}", 0, MASK),
        (r"\b(?:gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{20,})", 0, MASK),
        (r"\b(?:sk|nvapi|glpat|gldt|glrt|glptt|pypi|dop_v1|shpat)-[A-Za-z0-9_\-]{16,}", 0, _with_run),
        (r"\b(?:[rs]k_(?:live|test)|npm|whsec|r8|gsk|tgp_v1|pplx|xai)_[A-Za-z0-9]{16,}", 0, _with_run),
        (r"\bAIza[A-Za-z0-9_\-]{30,}|\bya29\.[A-Za-z0-9_\-]{20,}|\bSG\.[\w\-]{16,}\.[\w\-]{16,}", 0, MASK),
        (r"\bxox[abeoprs]-[A-Za-z0-9\-]{10,}|\bxapp-\d-[A-Za-z0-9\-]{10,}", 0, MASK),
    )
)  # fmt: skip
# A text without any of these has no match; nearly all texts are skipped by it.
MAY_MATCH = re.compile(
    r"://|[?&;][\w.\-]{1,60}=|-----BEGIN|AccountKey|SharedAccess|authorization|bearer|basic|eyJ|AKIA|ASIA|ABIA|ACCA|hf_|"
    r"api_org_|gh[pousr]_|github_pat_|(?:sk|nvapi|gl\w+|pypi|dop_v1|shpat)-|"
    r"(?:k_live|k_test|npm|whsec|r8|gsk|tgp_v1|pplx|xai)_|"
    r"AIza|ya29|SG\.|xox|xapp",
    re.IGNORECASE,
)
WHOLE = re.compile(
    r"(?:Authorization:\s*)?(?:Bearer|Basic|Token|Digest|ApiKey)\s+\S{4,}", re.IGNORECASE
)  # the value of a header

PASSWORD = re.compile(r"[a-z][a-z0-9+.\-]*://[^\s:]*:([^\s]+)@[^\s@]*$", re.IGNORECASE)  # of a whole address

# `name = value` and `"name": "value"` in messages; a value in quotes may hold blanks.
ASSIGNED = re.compile(r"([A-Za-z][\w.\-]*)(?:\[\d+\])?[\"']?\s*(?:=|:(?=\s*[\"']))\s*")
VALUE = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s\"',;&)\]}]+")
NO_VALUE = frozenset({"", MASK, "None", "null", "True", "False", "true", "false"})
UNQUOTED = re.compile(
    r"\b((?:[\w\-]*(?:password|passwd|api[_-]?key|secret[_-]?key|access[_-]?key)|authorization)\s*:\s+)"
    r"((?:(?:bearer|basic|token)\s+)?[^\s,;\"']+)",
    re.IGNORECASE,
)


def in_text(text: str) -> str:
    """`text` with every secret of a known form replaced by `MASK`."""
    if not MAY_MATCH.search(text):
        return text
    for pattern, replacement in PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def is_secret(text: str) -> bool:
    """Whether `text` is a secret as a whole, or an address with one: a setting, not prose that quotes one."""
    stripped = text.strip()
    if WHOLE.fullmatch(stripped):
        return True
    rest = in_text(stripped)
    return rest == MASK or (rest != stripped and not re.search(r"\s", stripped))


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
    text = _without_assigned(text) if "=" in text or ":" in text else text
    return UNQUOTED.sub(rf"\1{MASK}", text) if ":" in text else text


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
