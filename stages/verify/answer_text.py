r"""Final answers as text: finds them in a model's output, normalises them, and compares them by text and plain numbers.

Numbers are exact fractions, not floats: 1/2, 0.5, 50/100 and \frac12 are equal, and two different integers never are.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

Rule = Literal["boxed", "hash", "phrase", "number", "whole"]
TextVerdict = Literal["right", "wrong", "unreadable"]
MAX_CHARS = 500  # algebra does not read a longer answer
MAX_FORMAT_CHARS = 4 * MAX_CHARS  # a longer answer is compared without normalisation
NUM_CACHED = 16384
MAX_PLAIN_CHARS, MAX_EXPONENT = 80, 300
NUM_DIGITS = 6  # fewest significant digits of a decimal that counts as the rounded form of a number

BRACE = re.compile(r"(\\(?:boxed|fbox)\s*\{)|[{}]")
HASH = re.compile(r"####[ \t]*(\S[^\n]*)")
PHRASE = re.compile(r"\banswers?[ \t*_]*(?:is|are|:|=)[ \t*_]*+:?[ \t*_]*+(?=\S)", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
NUMBER = re.compile(r"(?<![\w.])[+\-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?%?(?![\w])")

LOOKALIKES = str.maketrans(
    {"−": "-", "–": "-", "\u00a0": " ", "\u202f": " ", "π": r"\pi ", "∞": r"\infty ", "⁄": "/", "×": r"\times "}
)
VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4"}
VULGAR_SIGN = re.compile(r"(?:(?<=(\d))|(?<=(\^)))?([½⅓⅔¼¾])(?=(\d))?")
WRAPPERS = tuple(
    re.compile(p, re.DOTALL)
    for p in (
        r"\$\$(.*)\$\$", r"\$([^$]*)\$", r"\\\((.*)\\\)", r"\\\[(.*)\\\]", r"\*\*(.*)\*\*", r"`([^`]*)`",
        r"\\(?:boxed|fbox)\{([^{}]*)\}",
    )
)  # fmt: skip
WORDY = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
SPACING = re.compile(r"\\(?:left|right|displaystyle|,|;|:|!|quad|qquad)(?![A-Za-z])|\\ |~")
FRACTION = re.compile(r"\\[dtc]frac(?![A-Za-z])")
PI, INFINITY = re.compile(r"(?<![\\A-Za-z])pi(?![A-Za-z])"), re.compile(r"(?<![\\A-Za-z])inf(?:inity)?(?![A-Za-z])")
CURRENCY = re.compile(r"^([+-]?)\s*(?:\\?\$|€|£|¥)\s*(?=[\d.])")

DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?"
INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
# Digits with spaces between them are one number in two cases only: groups of three, and a whole number with a fraction.
SPACED_INTEGER = re.compile(r"(?<![\w.,])(?<!\d )[1-9]\d{0,2}(?: \d{3})+(?!\d| \d)")
MIXED_PLAIN = re.compile(rf"(?<![\w.,/^}}])(?<!\d )({INTEGER}) (\d+) ?/ ?(\d+)(?![\w/]|[.,]\d| \d)")
MIXED_NUMBER = re.compile(rf"([+-]?)({INTEGER})\\frac\{{(\d+)\}}\{{(\d+)\}}(%?)")
LOOSE = re.compile(
    r"(?<=\\times) | (?=[+\-*/^%{}\\])|(?<=[+\-*/^%{}]) |(?<=\\cdot) "
)  # spaces that separate no numbers
BETWEEN_DIGITS = re.compile(r"(?<!\d) | (?!\d)")
PLAIN = re.compile(rf"([+-]?)({DIGITS})(%?)")
RATIO = re.compile(
    rf"([+-]?)({INTEGER})/({INTEGER})|([+-]?)\\frac\{{([+-]?{INTEGER})\}}\{{({INTEGER})\}}|([+-]?)\\frac(\d)(\d)"
)
POWER = re.compile(rf"([+-]?)(?:({DIGITS})(?:[eE]|(?:\\times|\\cdot|\*)10\^)|10\^)\{{?([+-]?\d{{1,3}})\}}?")
QUANTITY = re.compile(rf"([+-]?{DIGITS}%?)\s*([A-Za-z][A-Za-z ]*)")
COMMAND = re.compile(r"\\(?:begin|end)\s*\{[a-zA-Z]+\*?\}|\\[A-Za-z]+")
WORD = re.compile(r"[^\W\d_]{4,}")
FUNCTIONS = frozenset("sqrt frac sinh cosh tanh asin acos atan arcsin arccos arctan".split())
RUN = re.compile(r"(?=[0-9]*[A-Za-z])[A-Za-z0-9]+")  # letters and digits in a row
CAPITALS, DIGIT_AFTER_LETTER = re.compile(r"[A-Z]{2,}"), re.compile(r"[A-Za-z]\d")
FUNCTION = re.compile(r"ln|log|exp|sqrt|sin|cos|tan|sec|csc|cot|pi", re.IGNORECASE)
SHORT_WORDS = frozenset("yes no on odd any all one two six ten none true even".split())


@dataclass(frozen=True)
class Number:
    """An exact value; for a number written with a point, its `places` after the point and its significant digits."""

    value: Fraction
    places: int | None = None
    num_digits: int = 0
    is_percent: bool = False


def extract(text: str | None, rules: Sequence[Rule]) -> str | None:
    r"""The answer by the first rule that finds one; each rule takes its last match. None if no rule finds one.

    boxed: the last \boxed{...} with balanced braces. hash: what follows the last "####" on its line (GSM8K). phrase:
    what follows "answer is" or "answer:", up to the end of the sentence or line. number: the last number, fraction or
    percentage. whole: the whole text.
    """
    for rule in rules if text else ():
        answer = RULES[rule](text or "").strip()
        if answer:
            return answer
    return None


def _box_content(text: str) -> str:
    last, answer = -1, ""
    starts: list[int | None] = []  # where the content of a box begins; None for other braces
    for match in BRACE.finditer(text):
        if match[0] != "}":
            starts.append(match.end() if match[1] else None)
        elif starts and (start := starts.pop()) is not None and start > last:
            last, answer = start, text[start : match.start()]
    return answer


def _last(pattern: re.Pattern[str], text: str, group: int) -> str:
    answer = ""
    for match in pattern.finditer(text):
        answer = match[group]
    return answer


def _phrase(text: str) -> str:
    starts = [match.end() for match in PHRASE.finditer(text)]
    if not starts:
        return ""
    line = text[starts[-1] :].partition("\n")[0]
    end = SENTENCE_END.search(line)
    return (line[: end.start()] if end else line).strip("*_ \t")


RULES = {
    "boxed": _box_content,
    "hash": lambda text: _last(HASH, text, 1),
    "phrase": _phrase,
    "number": lambda text: _last(NUMBER, text, 0),
    "whole": lambda text: text,
}


def normal(answer: str) -> str:
    r"""`answer` without mere formatting: wrappers, spacing commands, a final full stop, a currency sign.

    "1 234" becomes "1234"; "3 1/2" and "3½" become "3\frac{1}{2}". Text beyond MAX_FORMAT_CHARS is cut off.
    """
    return _normal(answer) if len(answer) <= MAX_CHARS else _strip_format(answer[:MAX_FORMAT_CHARS])


def _vulgar(match: re.Match[str]) -> str:
    digit, power, sign, next_digit = match.groups()
    plain = VULGAR[sign]
    return f"{{{plain}}}" if power else f"{' ' if digit else ''}{plain}{' ' if next_digit else ''}"


def _strip_format(answer: str) -> str:
    text = VULGAR_SIGN.sub(_vulgar, answer.translate(LOOKALIKES))
    while True:
        bare = text.strip().rstrip(".,;:!").strip()
        for pattern in WRAPPERS:
            if match := pattern.fullmatch(bare):
                bare = match[1].strip()
        if bare == text:
            break
        text = bare
    text = SPACING.sub(" ", WORDY.sub(r" \1 ", text))
    text = FRACTION.sub(r"\\frac", text).replace(r"\%", "%").replace("{,}", ",").replace("**", "^")
    text = INFINITY.sub(r"\\infty ", PI.sub(r"\\pi ", CURRENCY.sub(r"\1", text)))
    text = MIXED_PLAIN.sub(r"\1\\frac{\2}{\3}", " ".join(text.split()))
    return SPACED_INTEGER.sub(lambda match: match[0].replace(" ", ""), text)


_normal = lru_cache(maxsize=NUM_CACHED)(_strip_format)


def number_of(answer: str) -> Number | None:
    """The number that `answer` is (integer, decimal, percentage, fraction, mixed, power of ten); None for other text.

    Two numbers are not one: digits are joined over a space only in groups of three.
    """
    return _number_of(answer) if len(answer) <= MAX_CHARS else None


@lru_cache(maxsize=NUM_CACHED)
def _number_of(answer: str) -> Number | None:
    text = LOOSE.sub("", normal(answer))
    if not text or len(text) > MAX_PLAIN_CHARS or not any(c.isdigit() for c in text) or not text.isascii():
        return None
    if match := PLAIN.fullmatch(text):
        sign, digits, percent = match[1], match[2].replace(",", ""), match[3]
        value = Fraction(f"{sign}{digits}")
        if "." not in digits:
            return Number(value, is_percent=bool(percent))
        significant = digits.replace(".", "").lstrip("0")
        return Number(value, len(digits.partition(".")[2]), len(significant), bool(percent))
    if (match := MIXED_NUMBER.fullmatch(text)) and int(match[3]) < int(match[4]):  # otherwise it may be a product
        value = int(match[2].replace(",", "")) + Fraction(int(match[3]), int(match[4]))
        return Number(-value if match[1] == "-" else value, is_percent=bool(match[5]))
    if match := RATIO.fullmatch(text):
        sign, above, below = (g for g in match.groups() if g is not None)
        if not (low := int(below.replace(",", ""))):
            return None
        value = Fraction(int(above.replace(",", "")), low)
        return Number(-value if sign == "-" else value)
    if (match := POWER.fullmatch(text)) and match[2] != "" and abs(int(match[3])) <= MAX_EXPONENT:
        return Number(Fraction(match[1] + (match[2] or "1").replace(",", "")) * Fraction(10) ** int(match[3]))
    return None


def same_number(one: Number, other: Number) -> bool:
    """Whether two numbers are equal, or one is a decimal of at least six digits and the other one rounded.

    50% equals 50 and 0.5.
    """
    if one.is_percent != other.is_percent:
        percent, plain = (one, other) if one.is_percent else (other, one)
        return plain.value in (percent.value, percent.value / 100)
    return one.value == other.value or _rounds(one, other) or _rounds(other, one)


def _rounds(short: Number, other: Number) -> bool:
    if short.places is None or short.num_digits < NUM_DIGITS:
        return False
    return abs(short.value - other.value) * 2 * 10**short.places <= 1


def key(answer: str) -> str:
    """A key of the answer.

    Answers with the same key are equal numbers, or equal text but for formatting and the case of words.
    """
    if len(answer) > MAX_FORMAT_CHARS:
        return answer
    number = number_of(answer)
    if number is not None:
        return f"{number.value}{'%' if number.is_percent else ''}"
    text = normal(answer)
    if is_prose(text):
        return text.casefold()
    text = BETWEEN_DIGITS.sub("", text)
    return text[1:-1] if len(text) == 3 and text[0] == "(" and text[2] == ")" and text[1].isalpha() else text


def is_prose(text: str) -> bool:
    """Whether a text has words. Algebra would read them as products of letters, and equate "listen" with "silent"."""
    bare = COMMAND.sub(" ", text)
    words = [w for w in WORD.findall(bare) if w.casefold() not in FUNCTIONS]
    return bool(words) or bare.strip().casefold() in SHORT_WORDS


def compare(answer: str, reference: str) -> TextVerdict | None:
    """The verdict by text and plain numbers; None if only algebra can decide. Symmetric."""
    if key(answer) == key(reference):
        return "right"
    one, other = number_of(answer), number_of(reference)
    if one is not None and other is not None:
        return "right" if same_number(one, other) else "wrong"
    if max(len(answer), len(reference)) > MAX_CHARS:
        return "unreadable"
    (value, unit), (other_value, other_unit) = _quantity(answer), _quantity(reference)
    if value is not None and other_value is not None and (not unit or not other_unit or unit == other_unit):
        return "right" if same_number(value, other_value) else "wrong"
    if is_prose(normal(answer)) or is_prose(normal(reference)):
        return "wrong"
    return _compare_runs(normal(answer), normal(reference))


def _compare_runs(one: str, other: str) -> TextVerdict | None:
    """The verdict on two runs of letters and digits, such as "AB" and "3a2b", of which one is a word and no product.

    None for others, such as "xy" and "yx".
    """
    if not (RUN.fullmatch(one) and RUN.fullmatch(other)) or FUNCTION.search(one + " " + other):
        return None
    if not (_is_word(one) or _is_word(other)):
        return None
    return "right" if one.casefold() == other.casefold() else "wrong"


def _is_word(run: str) -> bool:
    """Whether letters and digits in a row are no product: capitals, a digit after a letter, or a letter twice."""
    repeats = run.isalpha() and run.islower() and len(set(run)) < len(run)
    return repeats or bool(CAPITALS.fullmatch(run) or DIGIT_AFTER_LETTER.search(run))


def _quantity(answer: str) -> tuple[Number | None, str]:
    """(number, unit) of an answer such as "72 clips".

    The unit of a bare number is "", the number of other text None.
    """
    number = number_of(answer)
    if number is None and (match := QUANTITY.fullmatch(normal(answer))) and is_prose(match[2]):
        return number_of(match[1]), match[2].strip().casefold()
    return number, ""
