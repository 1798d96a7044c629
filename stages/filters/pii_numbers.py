"""Finders for numbers of a fixed form: payment cards (ISO/IEC 7812), accounts (ISO 13616), IP addresses."""

import ipaddress
import re
from collections.abc import Iterator

Span = tuple[int, int]  # [start, end) in characters

CARD = re.compile(r"(?<![\w.\-])(?<!\d,)\d(?:[ -]?\d){12,18}(?![\w\-]|[.,]\d)")
CARD_GROUPS = re.compile(r"\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{4}([ -])\d{6}\2\d{4,5}")
# First digits and lengths of Visa, Mastercard, American Express, Discover, Diners, JCB and UnionPay.
ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"
    r"|3[47]\d{13}"
    r"|(?:6011|65\d\d|64[4-9]\d)\d{12,15}"
    r"|(?:30[0-5]|36\d|3[89]\d)\d{11,16}"
    r"|35(?:2[89]|[3-8]\d)\d{12,15}"
    r"|62\d{14,17}"
)
BARE_LENGTHS = (15, 16)  # a number without separators and of another length is usually not a card
# From the documentation of payment firms.
TEST_CARDS = frozenset(
    "4111111111111111 4242424242424242 4012888888881881 4000056655665556 5555555555554444 5105105105105100 "
    "5200828282828210 378282246310005 371449635398431 6011111111111117 6011000990139424 30569309025904 "
    "38520000023237 3530111333300000 3566002020360505".split()
)

IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2} ?[A-Z0-9]")
IBAN_LENGTHS = dict(
    (word[:2], int(word[2:]))
    for word in (
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 "
        "FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 "
        "LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SD18 "
        "SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20"
    ).split()
)

IPV4 = re.compile(r"(?:(?<=://)|(?<![\w.\-/]))(?:\d{1,3}\.){3}\d{1,3}(?![\w\-]|\.\w)")
# Also in paths and names, where it is not an address of a person.
QUAD = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\w)")
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
VERSION = re.compile(r"(?:version|ver\.?|release|v|section|§)\s*$", re.IGNORECASE)
MIN_LONG_GROUPS = 2  # groups of at least three hexadecimal digits; this leaves out "::1" and times of day


def cards(text: str, reserved: bool) -> Iterator[Span]:
    """Numbers of payment cards; without `reserved` not those of test cards."""
    for match in CARD.finditer(text):
        digits = match[0].replace(" ", "").replace("-", "")
        if not CARD_GROUPS.fullmatch(match[0]) or not ISSUERS.fullmatch(digits) or not luhn(digits):
            continue
        if match[0] == digits and len(digits) not in BARE_LENGTHS:
            continue
        if reserved or digits not in TEST_CARDS:
            yield match.span()


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    doubled = sum(sum(divmod(2 * int(d), 10)) for d in digits[-2::-2])
    return (doubled + sum(int(d) for d in digits[-1::-2])) % 10 == 0


def ibans(text: str, reserved: bool) -> Iterator[Span]:
    """International bank account numbers. `reserved` changes nothing: no accounts are reserved for documentation."""
    for match in IBAN.finditer(text):
        start = match.start()
        length = IBAN_LENGTHS.get(text[start : start + 2])
        if length is None:
            continue
        end, account = start, ""
        while len(account) < length and end < len(text):
            if text[end].isascii() and text[end].isalnum():
                account += text[end].upper()
            elif text[end] != " " or text[end - 1] == " ":
                break
            end += 1
        is_whole = len(account) == length and not text[end : end + 1].isalnum()
        if is_whole and int("".join(str(int(c, 36)) for c in account[4:] + account[:4])) % 97 == 1:
            yield start, end


def addresses(text: str, reserved: bool) -> Iterator[Span]:
    """Public IP addresses; with `reserved` also private ones and those for documentation."""
    if text.count(".") >= 3:
        for match in IPV4.finditer(text):
            if _is_address(match[0], reserved) and not VERSION.search(text, max(0, match.start() - 12), match.start()):
                yield match.span()
    if text.count(":") >= 2:
        for match in IPV6.finditer(text):
            num_long = sum(len(group) >= 3 for group in match[0].split(":"))
            if num_long >= MIN_LONG_GROUPS and _is_address(match[0], reserved):
                yield match.span()


def quads(text: str) -> list[Span]:
    """Addresses of four numbers, public or not; some of them are also valid phone numbers."""
    return [m.span() for m in QUAD.finditer(text) if _is_address(m[0], True)] if text.count(".") >= 3 else []


def _is_address(text: str, reserved: bool) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return reserved or (address.is_global and not address.is_multicast)
