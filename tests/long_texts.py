"""Texts that take a slow search long, and a measure of how CPU time grows with their length.

An attack is a head and a unit that is repeated after it. Attacks are general (runs of a character, pairs, openings
without an end) or made from a regular expression: the beginnings of its matches, with what its repeats take.
"""

import re
import re._constants as ops  # type: ignore[import-untyped]
import re._parser as parser  # type: ignore[import-untyped]
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Attack(NamedTuple):
    """A text of any length: `head`, then `unit` again and again, then a character that no pattern expects."""

    head: str
    unit: str

    def text(self, num_chars: int) -> str:
        return f"{self.head}{self.unit * max(1, (num_chars - len(self.head)) // len(self.unit))}\x01"


CHARACTERS = (
    *"` \n\t\r<>{}[]()\"'\\$#*-_.,:;@/+=|~%!?&^1aZé\U0001f600\x00\u0301\u00a0½",
    "ß",
    "\u2028",
    "\x1c",
)
PAIRS = (
    *(
        "ab",
        "a ",
        "a\n",
        "1 ",
        "1\n",
        "A1",
        "éa",
        "` ",
        "```\n",
        "```json\n",
        "```python\n",
        "<a",
        "</a>",
        "\n ",
        "\n\n",
    ),
    *("- \n", "- ", "1. ", "1) ", "# ", "####", "#### 1\n", "[[", "{}", '{"a":', '{"a":[', "[1,", '"a",', "\\frac{"),
    *("\\boxed{", "\\(", "\\)", "$$", "$a", "**a", "*a*", "a@", "a@b.co ", "1.1.1.", "1.1.1.1 ", "0-0-", "1-", "1,111"),
    *("+1 ", "+44 20 7946 0958 ", "4539 ", "::", "a:", "http://", "://a:", "://", "Step 1:\n", "step 1 ", "Answer: "),
    *("answer is ", "Q: A: ", "Question: ", "task 1: ", "**task 1: ", "1. 1. ", "assert f(1)\n", "assert f;", "def f"),
    *("def test_a():\n assert f\n", "x = 1;", "x.", "(", "if a:\n", "gl", "sk-", "eyJ", "eyJa.", "//", "key=", "aws "),
    *(
        "-----BEGIN RSA PRIVATE KEY-----",
        "AKIA2E0A8F3B244C9986",
        "xoxb-1-",
        "DE89",
        "http://a.b/",
        "sorry ",
        "END ",
        "...",
    ),
)
OPENINGS = (
    *(("```", "`"), ("```\n", " "), ("```json\n", "\n"), ("```python\n", "`a"), ("```python\n", "assert f(1)\n")),
    *(("password", " "), ("key", " "), ("task", " "), ("task ", "1"), ("answer", " "), ("answer is", " ")),
    *(("####", " "), ("user", " "), ("{", "}")),
    *(("exercise", " "), ("exercise ", "1"), ("**", "a"), ('"', "a"), ("{", " "), ('{"score":', "1")),
    *(('{"score": "', "\\"), ('{"score": "', "a")),
    *(('{"score":', "["), ('{"label": ', "{"), ("```python\nassert f(", "-"), ("```python\nassert f", ".a")),
    *(("```python\nassert f", "+1"), ("```python\nx = f\nassert f(1)", ";assert f(2)"), ("//", "/:_authToken= ")),
)  # fmt: skip
GENERAL = (
    *(Attack("", unit) for unit in (*CHARACTERS, *PAIRS)),
    *(Attack(head, unit) for head, unit in OPENINGS),
)
CATEGORIES = {
    ops.CATEGORY_DIGIT: "1", ops.CATEGORY_SPACE: " ", ops.CATEGORY_WORD: "a",
    ops.CATEGORY_NOT_DIGIT: "a", ops.CATEGORY_NOT_SPACE: "a", ops.CATEGORY_NOT_WORD: "-",
}  # fmt: skip
REPEATS = (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT)
MANY = 8  # repetitions from which a repeat is attacked
MAX_ATTACKS = 240  # of one pattern


def attacks_on(pattern: re.Pattern[str]) -> list[Attack]:
    """Attacks on a pattern: its literal pieces again and again, and each repeat after the beginning of a match."""
    tree = parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)
    pieces: dict[str, None] = {}
    attacks: dict[Attack, None] = {}
    for head, bodies in _repeats(tree, ""):
        for body in bodies:
            attacks |= {Attack(head, body): None, Attack("", body): None, Attack("", head + body): None}
    for piece in _pieces(tree):
        pieces[piece] = None
    attacks |= {Attack("", piece): None for piece in [*pieces, _sample(tree), _sample(tree, 2)] if piece}
    short = sorted(pieces, key=len)[:12]
    attacks |= {Attack("", one + other): None for one in short for other in short if one + other}
    return [attack for attack in attacks if attack.unit][:MAX_ATTACKS]


def _members(items: Any) -> list[str]:
    """Some characters of a class."""
    characters, is_negated = list[str](), False
    for op, value in items:
        is_negated |= op is ops.NEGATE
        if op is ops.LITERAL:
            characters.append(chr(value))
        elif op is ops.RANGE:
            characters.append(chr(value[0]))
        elif op is ops.CATEGORY:
            characters.append(CATEGORIES[value])
    return [c for c in "a1 -<`" if c not in characters][:3] if is_negated else list(dict.fromkeys(characters))[:5]


def _inner(op: Any, value: Any) -> list[Any]:
    """The sequences inside an element of a pattern."""
    if op in REPEATS:
        return [value[2]]
    if op is ops.SUBPATTERN:
        return [value[3]]
    if op is ops.ATOMIC_GROUP:
        return [value]
    if op is ops.BRANCH:
        return list(value[1])
    return [value[1]] if op in (ops.ASSERT, ops.ASSERT_NOT) else []


def _sample(tree: Any, num: int = 1) -> str:
    """A text that the pattern matches, more or less; repeats are taken `num` times where they may be."""
    text = ""
    for op, value in tree:
        if op is ops.LITERAL:
            text += chr(value)
        elif op is ops.IN:
            text += (_members(value) or ["a"])[0]
        elif op in (ops.ANY, ops.NOT_LITERAL):
            text += "a"
        elif op in REPEATS:
            text += _sample(value[2], num) * max(value[0], min(num, value[1]))
        elif op not in (ops.ASSERT, ops.ASSERT_NOT) and (inner := _inner(op, value)):
            text += _sample(inner[0], num)
    return text


def _repeats(tree: Any, head: str) -> Iterator[tuple[str, list[str]]]:
    """(text before, texts of one repetition) of each repeat that has no small bound."""
    elements = list(tree)
    for at, (op, value) in enumerate(elements):
        before = head + _sample(elements[:at])
        if op in REPEATS and value[1] > MANY:
            body = list(value[2])
            is_class = len(body) == 1 and body[0][0] is ops.IN
            yield before, _members(body[0][1]) if is_class else [_sample(body) or "a"]
        for inner in _inner(op, value):
            yield from _repeats(inner, before)


def _pieces(tree: Any) -> Iterator[str]:
    """The literal texts in a pattern, and a character of each class."""
    run = ""
    for op, value in tree:
        if op is ops.LITERAL:
            run += chr(value)
            continue
        yield run
        run = ""
        if op is ops.IN:
            yield from _members(value)
        for inner in _inner(op, value):
            yield from _pieces(inner)
    yield run


class Sizes(NamedTuple):
    """Lengths of texts, and the CPU time below which its growth is not judged, because it is noise."""

    chars: tuple[int, ...]
    least_s: float


SHORT = Sizes((40_000,), 0.1)  # a quadratic search of the simplest kind takes 0.2 s on a fast core
LONG = Sizes((16_000, 1_000_000), 0.4)
GROWTH = 24.0  # of the time over eight times the length: linear is 8, quadratic 64
SECONDS_PER_MB = 10.0
PATIENCE = 4.0  # times the limit of a call, after which it is stopped


class TooSlowError(Exception):
    """A call that is stopped. Regular expressions and loops of Python can be."""


def slowness(
    call: Callable[[str], object], attack: Attack, sizes: Sizes, seconds_per_mb: float = SECONDS_PER_MB
) -> str | None:
    """What is wrong with the CPU time of `call` on texts of an attack; None if it grows with the length alone."""
    for num_chars in sizes.chars:
        limit_s = sizes.least_s + seconds_per_mb * num_chars / 1e6
        for _ in range(2):  # a busy machine may have slowed the first measurement
            time_s = _cpu_s(call, attack.text(num_chars), PATIENCE * limit_s)
            if time_s <= sizes.least_s:
                break
            eighth_s = _cpu_s(call, attack.text(num_chars // 8), PATIENCE * limit_s)
            if time_s <= min(limit_s, GROWTH * eighth_s):
                break
        else:
            return f"{attack}: {time_s:.2f} s for {num_chars} characters, {eighth_s:.4f} s for an eighth of them"
    return None


def _cpu_s(call: Callable[[str], object], text: str, patience_s: float) -> float:
    """CPU seconds of this process for `call(text)`; it is stopped once they exceed `patience_s`."""

    def stop(number: int, frame: object) -> None:
        raise TooSlowError

    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, patience_s)
    start = time.process_time()
    try:
        call(text)
    except TooSlowError:
        pass
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
    return time.process_time() - start
