"""A Bayesian network of attributes with at most one parent each: ancestral sampling, one row per call.

Pairs of values may be marked as impossible. An attribute is then drawn among the values that fit all earlier ones, so
no persona holds such a pair; where none fits, the persona is drawn again.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from gristmill.records.errors import UserError
from gristmill.records.functions.draws import Draws
from gristmill.records.spec import nearest

MAX_TRIES = 1000
NUM_DIGITS = 4  # of the width of a range, to which its numbers are rounded
SCALE = 1 << 40  # weights of a parent's value sum to about this, as integers
SPAN = re.compile(r"(-?\d+)-(-?\d+)")
HOLE = re.compile(r"\{([^{}]+)\}")
EIGHT = re.compile(r"\b([Aa]) (?=(?:8\d*|1[18])\b)")  # numbers that begin with a vowel sound

Number = int | float
Value = str | tuple[Number, Number]  # a category, or a range of numbers, both ends included


@dataclass(frozen=True)
class Attribute:
    """An attribute and its shares given the value of its parent.

    weights: cumulative integers for each value of the parent, or one list without a parent. phrases: what stands in
    the sentence instead of a value. numbers: for some ranges the numbers to draw from, with cumulative weights; of
    another range each number is as likely.
    """

    name: str
    values: tuple[Value, ...]
    parent: int | None  # place of an earlier attribute
    weights: tuple[tuple[int, ...], ...]
    phrases: Mapping[str, str]
    numbers: Mapping[int, tuple[tuple[Number, ...], tuple[int, ...]]] = field(default_factory=dict)

    def draw(self, place: int, draws: Draws) -> str | Number:
        """The value at a place; of a range one of its numbers."""
        value = self.values[place]
        if isinstance(value, str):
            return value
        if place in self.numbers:
            numbers, weights = self.numbers[place]
            return numbers[draws.weighted(weights)]
        return number_in(value, draws)

    @property
    def texts(self) -> list[str]:
        """The values as a file of marginals writes them."""
        return [value if isinstance(value, str) else f"{value[0]}-{value[1]}" for value in self.values]

    def has(self, text: str) -> bool:
        """Whether a text is a category, or a number that is drawn of a range."""
        if text in self.values:
            return True
        for place, value in enumerate(self.values):
            if isinstance(value, str):
                continue
            if place in self.numbers:
                if text in map(str, self.numbers[place][0]):
                    return True
                continue
            number_type = int if isinstance(value[0], int) and isinstance(value[1], int) else float
            try:
                number = number_type(text)
            except ValueError:
                continue
            if str(number) == text and value[0] <= number <= value[1]:
                return True
        return False


class Network:
    """Attributes in an order in which parents come first.

    impossible: for a pair of places (earlier, later) the values of the earlier one, each with the values of the later
    one that never come with it.
    """

    def __init__(
        self,
        about: str,
        attributes: Sequence[Attribute],
        impossible: Mapping[tuple[int, int], Mapping[int, frozenset[int]]],
        personas: Sequence[str],
    ) -> None:
        self.about, self.attributes, self.personas = about, tuple(attributes), tuple(personas)
        self.impossible = {pair: dict(values) for pair, values in impossible.items()}
        self.remedy = ""  # what to do where no persona is possible
        names = [attribute.name for attribute in attributes]
        for text in personas:
            check_sentence(text, names)

    def literals(self) -> Any:
        """Everything that decides rows, for a fingerprint."""
        attributes = [
            [a.name, list(a.values), a.parent, [list(w) for w in a.weights], dict(a.phrases), sorted(a.numbers.items())]
            for a in self.attributes
        ]
        pairs = [
            [*pair, [[value, sorted(others)] for value, others in sorted(values.items())]]
            for pair, values in sorted(self.impossible.items())
        ]
        return {"attributes": attributes, "impossible": pairs, "personas": list(self.personas)}

    def sample(self, draws: Draws) -> list[int]:
        """The place of a value for each attribute. Raises UserError when no persona is possible."""
        for _ in range(MAX_TRIES):
            places: list[int] = []
            for number, attribute in enumerate(self.attributes):
                weights: Sequence[int] = attribute.weights[0 if attribute.parent is None else places[attribute.parent]]
                if banned := self._banned(number, places):
                    weights = _without(weights, banned)
                if not weights[-1]:
                    break
                places.append(draws.weighted(weights))
            else:
                return places
        raise UserError(f"source (personas): {MAX_TRIES} draws gave no possible combination of values{self.remedy}")

    def _banned(self, number: int, places: Sequence[int]) -> set[int]:
        """Values of an attribute that never come with those of earlier ones."""
        banned: set[int] = set()
        for earlier, place in enumerate(places):
            if (pairs := self.impossible.get((earlier, number))) is not None:
                banned |= pairs.get(place, frozenset())
        return banned

    def row(self, draws: Draws) -> dict[str, Any]:
        """The attributes of a persona and its sentence, in the column "persona"."""
        row: dict[str, Any] = {}
        for attribute, place in zip(self.attributes, self.sample(draws)):
            row[attribute.name] = attribute.draw(place, draws)
        return row | {"persona": self.sentence(row, draws.choice(self.personas))}

    def sentence(self, row: Mapping[str, Any], text: str) -> str:
        """The sentence of a row by a template whose holes are names of attributes."""
        phrases = {a.name: a.phrases.get(str(row[a.name]), str(row[a.name])) for a in self.attributes}
        return EIGHT.sub(r"\1n ", HOLE.sub(lambda hole: phrases[hole[1]], text))


def cumulative(weights: Sequence[float]) -> tuple[int, ...]:
    """Weights as cumulative integers; all 0 where every weight is."""
    parts = list(accumulate(weights))
    total = parts[-1]  # `sum` rounds in another way since Python 3.12
    return tuple(round(part * SCALE / total) if total else 0 for part in parts)


def _without(weights: Sequence[int], places: set[int]) -> list[int]:
    single = [0 if at in places else weight - (weights[at - 1] if at else 0) for at, weight in enumerate(weights)]
    return list(accumulate(single))


def number_in(span: tuple[Number, Number], draws: Draws) -> Number:
    """A number of a range, each as likely: of whole ends a whole one, else with NUM_DIGITS digits of the width."""
    low, high = span
    if isinstance(low, int) and isinstance(high, int):
        return draws.between(low, high)
    width = high - low
    if not width:
        return low
    places = max(0, NUM_DIGITS - 1 - int(f"{width:e}".partition("e")[2]))
    step = 10.0**-places
    number = round(low + width * draws.below(1 << 32) / ((1 << 32) - 1), places)
    if number < low:
        number = round(number + step, places)
    elif number > high:
        number = round(number - step, places)
    return min(max(number, low), high)


def check_phrases(attribute: Attribute, phrases: Iterable[str], where: str) -> None:
    """Raise UserError for a phrase of a value that the attribute never has; a range has numbers as values."""
    for value in phrases:
        if attribute.has(value):
            continue
        if all(isinstance(each, str) for each in attribute.values):
            raise UserError(f"{where}: no value '{value}'{nearest(value, attribute.texts)}")
        raise UserError(f"{where}: '{value}' is no number of its ranges ({', '.join(attribute.texts[:9])})")


def check_sentence(text: str, names: Sequence[str]) -> None:
    """Raise UserError for a template with a hole that names no attribute, or without any."""
    holes = HOLE.findall(text)
    for hole in holes:
        if hole not in names:
            raise UserError(f"source (personas): persona {text[:60]!r}: no attribute '{hole}'{nearest(hole, names)}")
    if not holes:
        raise UserError(f"source (personas): persona {text[:60]!r} names no attribute, such as {{{names[0]}}}")
