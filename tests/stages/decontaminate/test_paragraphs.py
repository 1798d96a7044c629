"""The parts of a row that decontaminate_embedding compares: those of a plain count of words, in linear time."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.records.words import num_words
from gristmill.stages.decontaminate.embedding import MAX_WRAP_WIDTH, MIN_WORDS, paragraphs
from tests.long_texts import GENERAL, LONG, slowness
from tests.profiles import scaled

PIECES = ("a ", "bb ", "\n", "\n\n", "\r\n", "\x1c", "\u2028", "\x0b", " ", "c" * 130, " x y z a b c d e f g", "是我们")


def plain_paragraphs(text: str) -> list[tuple[int, int]]:
    stops, place = list[int](), 0
    for line in text.splitlines(keepends=True):
        is_long_line = len(line) > MAX_WRAP_WIDTH
        if is_long_line:
            stops.append(place)
        place += len(line)
        if is_long_line or not line.strip():
            stops.append(place)
    parts, start = list[tuple[int, int]](), 0
    for stop in [*stops, len(text)]:
        if num_words(text[start:stop]) >= MIN_WORDS:
            parts.append((start, stop))
            start = stop
    if start < len(text):
        parts.append((parts.pop()[0] if parts else 0, len(text)))
    return parts


@settings(max_examples=scaled(3000))
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_parts_are_those_of_the_plain_form(text: str) -> None:
    assert paragraphs(text) == plain_paragraphs(text)


def test_time_grows_with_the_text_alone() -> None:
    attacks = [attack for attack in GENERAL if "\n" in attack.unit or attack.unit in (" ", "\x1c", "a ")]
    assert [slowness(paragraphs, attack, LONG) for attack in attacks] == [None] * len(attacks)
