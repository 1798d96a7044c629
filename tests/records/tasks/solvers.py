"""Solvers that know only the text of a task, by brute force or another algorithm than the family uses."""

import re
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations, permutations, product
from typing import Any

import numpy as np


def numbers(text: str) -> list[int]:
    return [int(each) for each in re.findall(r"-?\d+", text)]


def brackets(values: Any) -> str:
    return f"[{', '.join(str(value) for value in values)}]"


def arithmetic(text: str) -> str:
    expression = max(re.findall(r"[\d(][\d+×() -]*[\d)]", text), key=len)
    return str(eval(expression.replace("×", "*")))


def equations(text: str) -> str:
    left, right = re.findall(r"(?:: |if |does |satisfies )([^=]*) = (-?\d+)", text)[-1]
    letter = re.findall("[a-z]", left)[0]
    code = re.sub(r"(\d)([(a-z])", r"\1*\2", left)
    answers = [x for x in range(-20, 21) if eval(code, {letter: x}) == int(right)]
    assert len(answers) == 1, text
    return str(answers[0])


def systems(text: str) -> str:
    lines = [line.split(" = ") for line in text.split("\n") if " = " in line]
    letters = re.findall(r"values of ([a-z, ]+?) in", text)[0].split(", ")
    rows = []
    for left, _ in lines:
        terms = re.findall(r"([+-]?) ?(\d*)([a-z])", left)
        found = {letter: int(f"{sign}{number or 1}") for sign, number, letter in terms}
        rows.append([found.get(letter, 0) for letter in letters])
    solution = np.linalg.solve(np.array(rows, float), [float(right) for _, right in lines])
    return brackets(round(x) for x in solution)


def polynomials(text: str) -> str:
    whole = np.array([1], object)
    for slope, sign, offset in re.findall(r"\((\d*)x ([+-]) (\d+)\)", text):
        whole = np.convolve(whole, np.array([int(slope or 1), int(sign + offset)], object))
    if "ifferentiate" in text or "derivative" in text:
        whole = [c * (len(whole) - 1 - at) for at, c in enumerate(whole[:-1])]
    return brackets(whole)


def number_theory(text: str) -> str:
    found = [number for number in numbers(text) if number]
    if "common divisor" in text or ("divides" in text and " and " in text.split("?")[0].split(".")[0]):
        one, other = found[:2]
        while other:
            one, other = other, one % other
        return str(one)
    if "multiple" in text or "smallest number" in text:
        multiples = (times * max(found[:2]) for times in range(1, 10**4))
        return str(next(multiple for multiple in multiples if multiple % min(found[:2]) == 0))
    if "^" in text:
        rest = 1
        for _ in range(found[1]):
            rest = rest * found[0] % found[2]
        return str(rest)
    primes, rest, prime = list[int](), found[0], 2
    while rest > 1:
        while rest % prime == 0:
            primes.append(prime)
            rest //= prime
        prime += 1
    if "prime" in text:
        return str(max(primes))
    return str(np.prod([primes.count(prime) + 1 for prime in set(primes)]))


def bases(text: str) -> str:
    question = text.split(" Answer")[0].split(" Give")[0].split(" A ")[0]
    words = question.replace("base-", "base ")
    named = [int(base) for base in re.findall(r"base (\d+)", words)]
    digits = next(w.strip(".?,") for w in reversed(words.split()) if re.fullmatch(r"[0-9A-F]{4,}[.?,]?", w))
    target, base = named if question.startswith("What") else named[::-1]
    value, written = int(digits, base), ""
    for power in reversed(range(60)):
        written += str(value // target**power)
        value %= target**power
    return written.lstrip("0")


def probability(text: str) -> str:
    found = numbers(text)
    if "sided" in text or "sides each" in text:
        number, sides, total = found[0], found[1], numbers(text.split(" Answer")[0].split(" Give")[0])[-1]
        test = {"exactly": int.__eq__, "at least": int.__ge__, "at most": int.__le__}
        compare = next(function for words, function in test.items() if words in text)
        sums = np.zeros(1, object) + 1
        for _ in range(number):
            sums = np.convolve(sums, np.array([0] + [1] * sides, object))
        answer = Fraction(sum(int(n) for at, n in enumerate(sums) if compare(at, total)), sides**number)
    else:
        bag = [
            color
            for count, color in re.findall(r"(\d+) (red|blue|green|white|black|yellow)", text)
            for _ in range(int(count))
        ]
        number = int(
            re.findall(r"(?:draw|take|If) (\d+)|(\d+) balls are taken", text)[0][0]
            or re.findall(r"(\d+) balls are taken", text)[0]
        )
        color = re.findall(r"(?:are|is|one) (red|blue|green|white|black|yellow)", text.split("balls. ")[1])[0]
        draws = list(combinations(bag, number))
        is_good = any if "at least" in text else all
        answer = Fraction(sum(is_good(each == color for each in draw) for draw in draws), len(draws))
    return f"{answer.numerator}/{answer.denominator}"


def truth_tables(text: str) -> str:
    formula = text.split("\n")[1]
    letters = sorted(set(re.findall(r"\b[pqrst]\b", formula)))
    code = re.sub(r"not ([pqrst])", r"(not \1)", formula).replace("->", "<=").replace("xor", "!=")
    rows = product([False, True], repeat=len(letters))
    return str(sum(bool(eval(code, dict(zip(letters, row)))) for row in rows))


def knights(text: str) -> str:
    lines = re.findall(r'^(\w+) says: "(.*)"$', text, re.M)
    people = sorted(
        {
            name
            for line in re.findall(r"(?:You meet|people:) ([^.\n]*)\.", text)[-1:]
            for name in re.findall(r"[A-Z]\w+", line)
        }
    )
    forms: list[tuple[str, Callable[[bool, bool], bool]]] = [
        (r"(\w+) is a knave\.", lambda a, _: not a), (r"(\w+) is a knight\.", lambda a, _: a),
        (r"(\w+) and (\w+) are both knights\.", lambda a, b: a and b),
        (r"At least one of (\w+) and (\w+) is a knave\.", lambda a, b: not (a and b)),
        (r"(\w+) and (\w+) are of the same kind\.", lambda a, b: a == b),
        (r"Exactly one of (\w+) and (\w+) is a knight\.", lambda a, b: a != b),
        (r"If (\w+) is a knight, then (\w+) is a knave\.", lambda a, b: not a or not b),
        (r"Neither (\w+) nor (\w+) is a knight\.", lambda a, b: not a and not b),
    ]  # fmt: skip
    solutions = []
    for truths in product([False, True], repeat=len(people)):
        is_knight = dict(zip(people, truths))

        def holds(statement: str, is_knight: dict[str, bool] = is_knight) -> bool:
            match, test = next((m, test) for form, test in forms if (m := re.fullmatch(form, statement)))
            names = match.groups()
            return test(is_knight[names[0]], is_knight[names[-1]])

        if all(holds(statement) == is_knight[speaker] for speaker, statement in lines):
            solutions.append([name for name in people if is_knight[name]])
    assert len(solutions) == 1, text
    return brackets(solutions[0])


def comparisons(text: str) -> str:
    above = re.findall(r"(\w+) is (?:taller|older|faster|heavier) than (\w+)\.", text)
    above += [(b, a) for a, b in re.findall(r"(\w+) is (?:shorter|younger|slower|lighter) than (\w+)\.", text)]
    people = sorted({name for pair in above for name in pair})
    orders = [o for o in permutations(people) if all(o.index(a) < o.index(b) for a, b in above)]
    assert len(orders) == 1, text
    question = text[text.rindex(". ", 0, text.rindex("?")) :]
    return orders[0][int(re.findall(r"(?:number|place) (\d+)", question)[0]) - 1]


def sets(text: str) -> str:
    held = {name: set(numbers(inside)) for name, inside in re.findall(r"^(\w+) = \{(.*)\}$", text, re.M)}
    for result, words in re.findall(r"^(R\d+) is (.*)\.$", text, re.M):
        one, other = (held[name] for name in re.findall(r"\b(?:[A-G]|[RS]\d+)\b", words))
        held[result] = {
            x for x in one | other
            if (words.startswith("the union")
                or (words.startswith("the inter") and x in one and x in other)
                or (words.startswith("the symm") and (x in one) != (x in other))
                or (not words.startswith("the") and x in one and x not in other))
        }  # fmt: skip
    last = held[re.findall(r"(R\d+)", text)[-1]]
    return str(len(last) if "How many" in text else sum(last))


def route(text: str) -> str:
    roads = re.findall(r"^(\w+) - (\w+): (\d+) km$", text, re.M)
    towns = sorted({town for a, b, _ in roads for town in (a, b)})
    length = {(a, b): 0 if a == b else 10**9 for a in towns for b in towns}
    for a, b, km in roads:
        length[a, b] = length[b, a] = min(length[a, b], int(km))
    for middle in towns:
        for a in towns:
            for b in towns:
                length[a, b] = min(length[a, b], length[a, middle] + length[middle, b])
    return str(length[re.findall(r"from (\w+) to (\w+)", text)[-1]])


def task_order(text: str) -> str:
    pairs = re.findall(r"^(\w+) must be built before (\w+)\.$", text, re.M)
    first = text.split("\n")[0]
    names = re.findall(r"[a-z]+", first.split("modules", 1)[1] if ":" not in first else first.split(":")[1])
    names = sorted(
        set(names) - {"and", "which", "are", "built", "one", "after", "another", "have", "to", "be", "at", "a", "time"}
    )
    for order in permutations(names):  # in alphabetical order
        if all(order.index(a) < order.index(b) for a, b in pairs):
            return brackets(order)
    raise AssertionError(text)


def friend_groups(text: str) -> str:
    people = re.findall(r"[A-Z]\w+", text.split(": ")[1].split(".")[0])
    pairs = re.findall(r"(\w+) and (\w+) (?:are friends|know each other|are connected)", text)
    groups = [{person} for person in people]
    for a, b in pairs:
        joined = [group for group in groups if a in group or b in group]
        groups = [group for group in groups if group not in joined] + [set().union(*joined)]
    if match := re.search(r"group of (\w+)|group that (\w+) belongs", text):
        return str(next(len(group) for group in groups if (match[1] or match[2]) in group))
    return str(len(groups))


def map_colors(text: str) -> str:
    pairs = re.findall(r"(\w+) borders (\w+)", text)
    names = sorted({name for pair in pairs for name in pair})
    for number in range(1, len(names) + 1):
        for colors in product(range(number), repeat=len(names)):
            colored = dict(zip(names, colors))
            if all(colored[a] != colored[b] for a, b in pairs):
                return str(number)
    raise AssertionError(text)


def grid(text: str, signs: str) -> list[str]:
    return [line for line in text.split("\n") if set(line) <= set(signs) and len(line) > 2]


def grid_path(text: str) -> str:
    rows = grid(text, "SG#.")
    cells = {(r, c): sign for r, row in enumerate(rows) for c, sign in enumerate(row) if sign != "#"}
    steps = {cell: 0 if sign == "S" else 10**6 for cell, sign in cells.items()}
    for _ in cells:
        for r, c in cells:
            near = [steps.get(other, 10**6) + 1 for other in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1))]
            steps[r, c] = min(steps[r, c], *near)
    goal = next(steps[cell] for cell, sign in cells.items() if sign == "G")
    return str(goal if goal < 10**6 else -1)


def islands(text: str) -> str:
    land = {(r, c): (r, c) for r, row in enumerate(grid(text, "#.")) for c, sign in enumerate(row) if sign == "#"}
    for _ in land:
        for (r, c), mark in land.items():
            land[r, c] = min(
                [mark, *(land[other] for other in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)) if other in land)]
            )
    marks = list(land.values())
    return str(len(set(marks)) if "How many islands" in text else max(marks.count(mark) for mark in marks))


def grid_turns(text: str) -> str:
    cells = np.array([line.split() for line in text.split("\n") if re.fullmatch(r"[A-Z]( [A-Z])+", line)])
    for step in re.findall(r"^\d+\. (.*)\.$", text, re.M):
        if "90" in step:
            cells = np.rot90(cells, 1 if "counter" in step else -1)
        elif "180" in step:
            cells = np.rot90(cells, 2)
        else:
            cells = np.fliplr(cells) if "left" in step else np.flipud(cells) if "upside" in step else cells.T
    order = ("first", "second", "third", "fourth", "fifth")
    return "".join(cells[order.index(re.findall(r"the (\w+) row (?:of the result|from the top)", text)[0])])


def life(text: str) -> str:
    board = np.array([[sign == "#" for sign in row] for row in grid(text, "#.")], int)
    for _ in range(int(re.findall(r"(\d+) steps?", text)[0])):
        wide = np.pad(board, 1)
        near = sum(
            np.roll(np.roll(wide, down, 0), right, 1) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right
        )[1:-1, 1:-1]
        board = ((near == 3) | ((board == 1) & (near == 2))).astype(int)
    return str(board.sum())


def rewriting(text: str) -> str:
    rules = re.findall(r"^\d+\. (\w+) -> (\w+)$", text, re.M)
    now = re.findall(r"string ([A-H]+)", text)[0]
    for _ in range(int(re.findall(r"after (\d+) steps", text)[0])):
        old, new = next((old, new) for old, new in rules if re.search(old, now))
        now = re.sub(old, new, now, count=1)
    return now


def automaton(text: str) -> str:
    moves = {
        room: (left, right)
        for room, left, right in re.findall(r"In the (\w+), L \w+(?: it)? to the (\w+) and R to the (\w+)\.", text)
    }
    room = re.findall(r"starts in the (\w+)", text)[0]
    for sign in re.findall(r"signals ([LR]{4,})", text)[0]:
        room = moves[room]["LR".index(sign)]
    return room


def ciphers(text: str) -> str:
    def encoded(word: str) -> str:
        for step in re.findall(r"^\d+\. (.*)$", text, re.M):
            if step.startswith("Reverse"):
                word = "".join(reversed(word))
            elif step.startswith("Move"):
                number = {"letter": 1, "two": 2, "three": 3}[re.findall(r"first (\w+)", step)[0]]
                for _ in range(number):
                    word = word[1:] + word[0]
            elif step.startswith("Swap"):
                word = re.sub(r"(.)(.)", r"\2\1", word)
            else:
                number = numbers(step)[0] * (-1 if "before" in step else 1)
                word = "".join(chr((ord(letter) - 97 + number) % 26 + 97) for letter in word)
        return word

    shown = re.findall(r'"([a-z]+)"', text)[0]
    if not re.match(r"A word|Someone", text):
        return encoded(shown)
    from gristmill.records.tasks.contract import WORDS

    words = [word for word in WORDS if encoded(word) == shown]
    assert len(words) == 1
    return words[0]


def run_length(text: str) -> str:
    code = re.findall(r"(?:code|Expand) (\d[0-9a-z()]+)", text)[0]
    while "(" in code:  # the innermost group first
        code = re.sub(r"(\d)\(([^()]*)\)", lambda group: group[2] * int(group[1]), code)
    return re.sub(r"(\d)([a-z])", lambda run: run[2] * int(run[1]), code)


def latin_square(text: str) -> str:
    rows = [line.split() for line in text.split("\n") if re.fullmatch(r"[\d_]( [\d_])+", line)]
    side = len(rows)
    fits = [
        [p for p in permutations(range(1, side + 1)) if all(s in ("_", str(v)) for s, v in zip(row, p))] for row in rows
    ]
    wholes: list[tuple[Any, ...]] = [()]
    for choices in fits:
        wholes = [(*w, p) for w in wholes for p in choices if not any(a == b for row in w for a, b in zip(row, p))]
    assert len(wholes) == 1, text
    order = ("first", "second", "third", "fourth", "fifth", "sixth")
    number = re.findall(r"(first|second|third|fourth|fifth|sixth) row", text)[-1]
    return brackets(wholes[0][order.index(number)])


def sorting(text: str) -> str:
    first = text.split(": ")[1].split(". Items")[0]
    items = [item.split(" (")[0] for item in first.split(", ")]
    shown = {item.split(" (")[0]: numbers(item.split("(")[1])[0] for item in first.split(", ") if "(" in item}
    keys: dict[str, Callable[[str], int]] = {
        "their value": int, "their absolute value": lambda n: abs(int(n)), "their last digit": lambda n: int(n[-1]),
        "sum of their digits": lambda n: sum(int(d) for d in n if d != "-"),
        "distance from 500": lambda n: max(int(n) - 500, 500 - int(n)),
        "number of letters": len, "last letter": lambda w: ord(w[-1]), "second letter": lambda w: ord(w[1]),
        "number of vowels": lambda w: len(re.findall("[aeiou]", w)),
    }  # fmt: skip
    head = text.split(": ")[0]
    key = (lambda item: shown[item]) if shown else next(function for words, function in keys.items() if words in head)
    sign = -1 if "highest" in head or "descending" in head else 1
    ranks = [(sign * key(item), place, item) for place, item in enumerate(items)]
    return brackets(item for _, _, item in sorted(ranks))


def letters(text: str) -> str:
    question = text[: text.index("?")] if "?" in text else text[: text.index(". ")]
    shown = (
        question.rsplit(":", 1)[-1] if ":" in question else re.split(r" in the words | in (?=[a-z]+,)", question)[-1]
    )
    words = re.findall(r"[a-z]+", shown)
    if match := re.search(r"letter ([a-z])\b", text):
        return str(sum(letter == match[1] for word in words for letter in word))
    return str(sum(letter in "aeiou" or "vowels" not in text for word in words for letter in word))


def units(text: str) -> str:
    sizes = {
        "millimeters": "1/1000", "centimeters": "1/100", "meters": "1", "kilometers": "1000", "seconds": "1",
        "minutes": "60", "hours": "3600", "days": "86400", "weeks": "604800", "grams": "1", "kilograms": "1000",
        "tonnes": "1000000", "milliliters": "1/1000", "centiliters": "1/100", "liters": "1", "hectoliters": "100",
        "inches": "1", "feet": "12", "yards": "36", "miles": "63360", "ounces": "1", "pounds": "16", "stones": "224",
    }  # fmt: skip
    question = text.split("?")[0].split(". ")[0]
    total = sum(int(number) * Fraction(sizes[unit]) for number, unit in re.findall(r"(\d+) (\w+)", question))
    unit = next(u for u in re.findall(r"How many (\w+)|sum to (\w+)| in (?!total)(\w+)$", question)[-1] if u)
    return str(total / Fraction(sizes[unit]))


def calendar(text: str) -> str:
    months = "January February March April May June July August September October November December".split()
    lengths = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

    def next_day(day: int, month: int, year: int) -> tuple[int, int, int]:
        is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        if day < lengths[month] + (month == 1 and is_leap):
            return day + 1, month, year
        return (1, month + 1, year) if month < 11 else (1, 0, year + 1)

    question = re.split(r" (?:Answer|Give|Your|State) ", text)[0]
    dates = [(int(d), months.index(m), int(y)) for d, m, y in re.findall(r"(\d+) ([A-Z][a-z]+) (\d{4})", question)]
    if len(dates) == 2:
        start, goal = sorted(dates, key=lambda date: date[::-1])
        count = 0
        while start != goal:
            start, count = next_day(*start), count + 1
        return str(count)
    days = int(re.findall(r"(\d+) days", question)[0])
    weekdays = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    if match := re.search("|".join(weekdays), question):
        return weekdays[(weekdays.index(match[0]) + days) % 7]
    date = dates[0]
    for _ in range(days):
        date = next_day(*date)
    return f"{date[0]} {months[date[1]]} {date[2]}"
