"""Finders for personal data and secrets: one function a kind, each yields [start, end) in characters."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from gristmill.stages.filters.pii_numbers import Span, addresses, cards, ibans, quads
from gristmill.stages.filters.pii_secrets import secrets

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

    quad_spans = quads(text)  # in order, without overlaps
    quad_starts = [start for start, _ in quad_spans]
    for region in (*regions, *(() if regions else (None,))):
        for match in PhoneNumberMatcher(text, region, leniency=Leniency.VALID):
            number_text = match.raw_string
            if DECIMAL.fullmatch(number_text):
                continue
            if PART.search(text, max(0, match.start - 1), match.start):
                continue
            place = bisect_right(quad_starts, match.end - 1)  # the quads before it begin before the end of the number
            if place and quad_spans[place - 1][1] > match.start:
                continue
            if reserved or not FICTITIOUS.search(number_text):
                yield match.start, match.end


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
            spans = _merge(spans, kind, sorted(set(finders[kind]()), key=lambda span: (span[0], -span[1])))
    return spans


def _merge(spans: list[tuple[Kind, int, int]], kind: Kind, more: list[Span]) -> list[tuple[Kind, int, int]]:
    """`spans`, ordered and without overlaps, and those of `more` in their order that overlap none before them."""
    merged: list[tuple[Kind, int, int]] = []
    place, last_end = 0, 0  # last_end: of the spans in `merged`
    for start, end in more:
        while place < len(spans) and spans[place][1] < start:
            merged.append(spans[place])
            last_end = spans[place][2]
            place += 1
        is_free = last_end <= start and (place == len(spans) or end <= spans[place][1])
        if is_free:
            merged.append((kind, start, end))
            last_end = end
    return [*merged, *spans[place:]]
