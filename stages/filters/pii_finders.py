"""Finders for personal data and secrets: one function a kind, each yields [start, end) in characters."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Literal

from gristmill.stages.filters.pii_numbers import Span, addresses, cards, ibans, quads

Kind = Literal["secret", "card", "iban", "email", "phone", "ip"]
# The gravest first: of two that overlap the graver counts, and a row is rejected for its gravest kind.
KINDS: tuple[Kind, ...] = ("secret", "card", "iban", "email", "phone", "ip")

EMAIL = re.compile(
    r"(?<![\w.+\-/])[A-Za-z0-9](?:[A-Za-z0-9._%+\-]{0,62}[A-Za-z0-9_+\-])?"
    r"@((?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,13})(?![\w\-(@]|\.\w)"
)
RESERVED_DOMAINS = re.compile(r"(?:^|\.)(?:example\.(?:com|org|net|edu)|example|invalid|test|localhost|local)$")

PHONE_LIKE = re.compile(r"(?<![\w.])(?:\+|\(?\d)[\d ().\-/\u00a0]{6,24}\d(?![\w]|\.\d)")
PART = re.compile(r"[\w\-]$")  # before a piece of a longer name: aix-6107-1415-32
DECIMAL = re.compile(r"\d+|\+?\d*\.\d*")  # plain numbers
FICTITIOUS = re.compile(r"555[ .\-]?01\d\d$")  # reserved for films and documentation in North America

# Modules and classes of detect-secrets. Its guesses by entropy and by variable name are left out: they call much
# prose and code a secret; so are plugins for firms whose patterns are words.
PLUGINS = (
    "aws.AWSKeyDetector azure_storage_key.AzureStorageKeyDetector basic_auth.BasicAuthDetector "
    "discord.DiscordBotTokenDetector github_token.GitHubTokenDetector gitlab_token.GitLabTokenDetector "
    "ibm_cloud_iam.IbmCloudIamDetector ibm_cos_hmac.IbmCosHmacDetector jwt.JwtTokenDetector "
    "mailchimp.MailchimpDetector npm.NpmDetector openai.OpenAIDetector private_key.PrivateKeyDetector "
    "pypi_token.PypiTokenDetector sendgrid.SendGridDetector slack.SlackDetector softlayer.SoftlayerDetector "
    "square_oauth.SquareOAuthDetector stripe.StripeDetector telegram_token.TelegramBotTokenDetector "
    "twilio.TwilioKeyDetector"
).split()
# A line without any of these holds no secret of the plugins; most lines are skipped by it.
MAY_HOLD = re.compile(
    r"AKIA|ASIA|A3T|ABIA|ACCA|(?i:aws|key|pwd|password|pass|token)|://|gh[pousr]_|gl[a-z]+-|GR1348941|eyJ|-us\d|sk-|pypi-|"
    r"SG\.|xox|sq0csp-|[rs]k_live_|\d{8}:|AC[a-z0-9]{30}|SK[a-z0-9]{30}|[MNO][\w\-]{23,25}\.|PRIVATE|PuTTY"
)
KEY_BODY = re.compile(r"^[A-Za-z0-9+/=]{40,}\s*$", re.MULTILINE)
KEY_END = re.compile(r"-----END [A-Z0-9 ]+-----")
MAX_KEY_CHARS = 8000
PLACEHOLDER = re.compile(r"EXAMPLE|x{8}|X{8}|\*{4}|<[^>]*>|(.)\1{11}")
TOKEN = re.compile(r"[\w\-]*")  # extends a match, because some patterns stop within a token
MAX_LINE_CHARS = 20_000  # a longer line is searched in overlapping pieces
OVERLAP_CHARS = 500


def emails(text: str, reserved: bool) -> Iterator[Span]:
    """E-mail addresses; without `reserved` not those of domains for documentation (RFC 2606), and no git@host."""
    for match in EMAIL.finditer(text) if "@" in text else ():
        local, domain = match[0].partition("@")[0], match[1]
        if len(local) == 1 and domain.find(".") == 1:
            continue  # for example A@B.inverse, a product of matrices
        if reserved or not (RESERVED_DOMAINS.search(domain.lower()) or local == "git"):
            yield match.span()


def phones(text: str, reserved: bool, regions: Sequence[str]) -> Iterator[Span]:
    """Numbers that phonenumbers calls valid: with + and country code anywhere, and in the national form of `regions`.

    Plain digits do not count, because any number of the right length would. IP addresses do not count either.
    """
    if not PHONE_LIKE.search(text):
        return
    from phonenumbers import Leniency, PhoneNumberMatcher

    quad_spans = quads(text)
    for region in (*regions, *(() if regions else (None,))):
        for match in PhoneNumberMatcher(text, region, leniency=Leniency.VALID):
            number_text = match.raw_string
            if DECIMAL.fullmatch(number_text):
                continue
            if PART.search(text, max(0, match.start - 1), match.start):
                continue
            if any(match.start < end and start < match.end for start, end in quad_spans):
                continue
            if reserved or not FICTITIOUS.search(number_text):
                yield match.start, match.end


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[re.Pattern[str], Callable[[str], bool] | None, bool]]:
    """(pattern, test of a match or None, whether it matches the header of a private key) of every plugin."""
    patterns = []
    for path in PLUGINS:
        module, _, name = path.partition(".")
        plugin = getattr(import_module(f"detect_secrets.plugins.{module}"), name)()
        valid = getattr(plugin, "is_formally_valid", None)
        patterns += [(pattern, valid, module == "private_key") for pattern in plugin.denylist]
    return patterns


def secrets(text: str, reserved: bool) -> Iterator[Span]:
    """Keys and tokens of known forms, credentials in addresses, private keys with their bodies.

    Without `reserved`, placeholders do not count (EXAMPLE, xxxxxxxx, one repeated character).
    """
    for start, line in _lines(text):
        if not MAY_HOLD.search(line):
            continue
        for pattern, is_valid, is_header in _patterns():
            for match in pattern.finditer(line):
                token = match[0].strip(" \t\"'=:")
                at = start + match.start() + match[0].index(token)
                if is_header:
                    if (end := _key_end(text, at)) is not None:
                        yield at, end
                elif (is_valid is None or is_valid(token)) and (reserved or not PLACEHOLDER.search(token)):
                    rest = TOKEN.match(text, at + len(token)) if token[-1:] not in "@" else None
                    yield at, rest.end() if rest else at + len(token)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    at = 0
    for line in text.splitlines(keepends=True):
        for first in range(0, len(line), MAX_LINE_CHARS - OVERLAP_CHARS):
            yield at + first, line[first : first + MAX_LINE_CHARS]
        at += len(line)


def _key_end(text: str, header: int) -> int | None:
    """End of the private key whose header is at `header`; None for a header without a body, as in manuals."""
    window = text[header : header + MAX_KEY_CHARS]
    end = KEY_END.search(window)
    bodies = list(KEY_BODY.finditer(window, 0, end.start() if end else len(window)))
    if not bodies:
        return None
    return header + (end.end() if end else bodies[-1].end())


def find(text: str, kinds: Sequence[Kind], reserved: bool, regions: Sequence[str]) -> list[tuple[Kind, int, int]]:
    """(kind, start, end) of all matches, ordered by place, without overlaps."""
    finders: dict[Kind, Callable[[], Iterator[Span]]] = {
        "secret": lambda: secrets(text, reserved),
        "card": lambda: cards(text, reserved),
        "iban": lambda: ibans(text, reserved),
        "email": lambda: emails(text, reserved),
        "phone": lambda: phones(text, reserved, regions),
        "ip": lambda: addresses(text, reserved),
    }
    spans: list[tuple[Kind, int, int]] = []
    for kind in KINDS:
        if kind in kinds:
            for start, end in sorted(set(finders[kind]()), key=lambda span: (span[0], -span[1])):
                if all(end <= s or e <= start for _, s, e in spans):
                    spans.append((kind, start, end))
    return sorted(spans, key=lambda match: match[1:])
