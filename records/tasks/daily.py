"""Everyday tasks: dates, units, letters in words, and sorting."""

from datetime import date, timedelta

from gristmill.records.functions.draws import Draws
from gristmill.records.tasks.contract import NAMES, WHOLE_NUMBER, WORDS, Task, TaskFamily, bracketed, listed

MONTHS = (
    "January February March April May June July August September October November December"
).split()  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class Calendar(TaskFamily):
    """Dates of the Gregorian calendar: days between, days after, and days of the week."""

    name = "calendar"
    about = "the days between two dates, or the date or weekday some days after one"
    dial = "days that are bridged: 20 × 2^level at least, under twice as many"
    form = "whole number, weekday, or date such as 5 March 2024"

    def task(self, level: int, draws: Draws) -> Task:
        days = draws.between(20 << level, (40 << level) - 1)
        first = date(1900, 1, 1) + timedelta(days=draws.below(55_000))  # to 2050
        last = first + timedelta(days=days)
        kind = draws.below(3)
        if kind == 0:
            text = draws.choice(
                (
                    "How many days are there from {} to {}?",
                    "How many days after {} is {}?",
                    "{} is how many days before {}?",
                )
            )
            question, answer = text.format(in_words(first), in_words(last)), str(days)
            form = draws.choice(WHOLE_NUMBER)
        elif kind == 1:
            text = draws.choice(
                (
                    "{first} is a {weekday}. Which day of the week is it {days} days later?",
                    "If {first} falls on a {weekday}, what weekday comes {days} days after it?",
                )
            )
            question = text.format(first=in_words(first), weekday=WEEKDAYS[first.weekday()], days=days)
            answer, form = WEEKDAYS[last.weekday()], "Answer with the name of the weekday alone."
        else:
            text = draws.choice(
                ("Which date is {days} days after {first}?", "What is the date {days} days after {first}?")
            )
            question, answer = text.format(days=days, first=in_words(first)), in_words(last)
            form = "Answer with day, month and year, such as 5 March 2024."
        return Task(f"{question} {form}", answer, days)


class Units(TaskFamily):
    """Sums of quantities in several units, in whole numbers of one unit."""

    name = "units"
    about = "a sum of lengths, times, weights or volumes in one unit"
    dial = "number of quantities: level + 1"
    form = "whole number of the unit asked for"

    SORTS = (
        (("seconds", 1), ("minutes", 60), ("hours", 3600)),
        (("millimeters", 1), ("centimeters", 10), ("meters", 1000), ("kilometers", 1_000_000)),
        (("seconds", 1), ("minutes", 60), ("hours", 3600), ("days", 86_400), ("weeks", 604_800)),
        (("grams", 1), ("kilograms", 1000), ("tonnes", 1_000_000)),
        (("milliliters", 1), ("centiliters", 10), ("liters", 1000), ("hectoliters", 100_000)),
        (("inches", 1), ("feet", 12), ("yards", 36), ("miles", 63_360)),
    )

    def task(self, level: int, draws: Draws) -> Task:
        size = level + 1
        units = draws.choice(self.SORTS)
        unit, base = units[draws.below(2)]
        larger = [each for each in units if each[1] >= base]
        parts = [(draws.between(2, 60), *draws.choice(larger)) for _ in range(size)]
        total = sum(number * factor for number, _, factor in parts) // base
        amounts = listed([f"{number} {name}" for number, name, _ in parts])
        text = draws.choice(
            (
                f"How many {unit} are {amounts} in total?",
                f"Add up {amounts}, and convert the sum to {unit}.",
                f"What is the sum of {amounts}, in {unit}?",
            )
        )
        return Task(f"{text} {draws.choice(WHOLE_NUMBER)}", str(total), size)


class Letters(TaskFamily):
    """Letters in lists of words."""

    name = "letters"
    about = "how often a letter, or a vowel, occurs in words"
    dial = "number of words: 2 × level + 1"
    form = "whole number"

    def task(self, level: int, draws: Draws) -> Task:
        size = 2 * level + 1
        words = draws.sample(WORDS, size)
        shown = ", ".join(words)
        joined = "".join(words)
        kind = draws.below(4)
        if kind < 2:
            letter = draws.choice(sorted(set(joined)) if kind else "aeinorst")
            text = draws.choice(
                (
                    f"How many times does the letter {letter} occur in these words: {shown}?",
                    f"Count the letter {letter} in the following words: {shown}.",
                    f"How often can you find the letter {letter} in {shown}?",
                )
            )
            answer = joined.count(letter)
        elif kind == 2:
            text = draws.choice(
                (
                    f"How many vowels (a, e, i, o, u) are there in these words: {shown}?",
                    f"Count the vowels a, e, i, o and u in the words {shown}.",
                )
            )
            answer = sum(joined.count(vowel) for vowel in "aeiou")
        else:
            text = draws.choice(
                (
                    f"How many letters do these words have in total: {shown}?",
                    f"What is the total number of letters in the words {shown}?",
                )
            )
            answer = len(joined)
        return Task(f"{text} {draws.choice(WHOLE_NUMBER)}", str(answer), size)


class Sorting(TaskFamily):
    """Numbers, words and people, sorted by a stated key with stated ties."""

    name = "sorting"
    about = "items sorted by a stated key"
    dial = "number of items: 2 × level + 2"
    form = "list of the items"

    def task(self, level: int, draws: Draws) -> Task:
        size = 2 * level + 2
        items, key, by, sort = draws.choice((self._numbers, self._words, self._people))(size, draws)
        is_down = draws.chance(1, 3)
        order = sorted(items, key=lambda item: -key[item] if is_down else key[item])
        direction = draws.choice(("highest first", "in descending order")) if is_down else draws.choice(
            ("lowest first", "in ascending order")
        )  # fmt: skip
        shown = ", ".join(f"{item} ({by[item]})" if by else str(item) for item in items)
        text = draws.choice(
            (
                f"Sort these {sort[0]} by {sort[1]}, {direction}: {shown}.",
                f"Put the following {sort[0]} in order of {sort[1]}, {direction}: {shown}.",
                f"Arrange these {sort[0]} by {sort[1]}, {direction}: {shown}.",
            )
        )
        ties = "Items that are equal in this keep the order in which they are listed here."
        what = "the names alone" if by else "all of them"
        form = f"Answer with a list of {what} in square brackets, with a comma and a space between items."
        return Task(f"{text} {ties} {form}", bracketed(order), size)

    def _numbers(self, size: int, draws: Draws) -> tuple[list, dict, dict, tuple[str, str]]:
        numbers = draws.sample(range(-99, 1000), size)
        keys = (
            ("their value", lambda n: n),
            ("their absolute value", abs),
            ("their last digit", lambda n: abs(n) % 10),
            ("the sum of their digits", lambda n: sum(map(int, str(abs(n))))),
            ("their distance from 500", lambda n: abs(n - 500)),
        )
        name, key = draws.choice(keys)
        return numbers, {n: key(n) for n in numbers}, {}, ("numbers", name)

    def _words(self, size: int, draws: Draws) -> tuple[list, dict, dict, tuple[str, str]]:
        words = draws.sample(WORDS, size)
        keys = (
            ("their number of letters", len),
            ("the place of their last letter in the alphabet", lambda w: ord(w[-1])),
            ("the place of their second letter in the alphabet", lambda w: ord(w[1])),
            ("their number of vowels (a, e, i, o, u)", lambda w: sum(map(w.count, "aeiou"))),
        )
        name, key = draws.choice(keys)
        return words, {w: key(w) for w in words}, {}, ("words", name)

    def _people(self, size: int, draws: Draws) -> tuple[list, dict, dict, tuple[str, str]]:
        people = draws.sample(NAMES, size)
        what, unit, low, high = draws.choice(
            (
                ("age", "years", 5, 90),
                ("height", "cm", 120, 205),
                ("score", "points", 0, 100),
                ("distance", "km", 1, 99),
            )
        )
        values = {name: draws.between(low, high) for name in people}
        return people, values, {name: f"{value} {unit}" for name, value in values.items()}, ("people", what)


def in_words(day: date) -> str:
    """A date such as 5 March 2024."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"
