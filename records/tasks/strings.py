"""String machines: rewriting, finite automata and ciphers."""

from string import ascii_lowercase

from gristmill.records.functions.draws import Draws
from gristmill.records.tasks.contract import WORDS, Task, TaskFamily, listed

ROOMS = ("kitchen", "library", "garden", "cellar", "attic", "tower", "hall", "studio", "workshop", "stable")


class Rewriting(TaskFamily):
    """Strings under rewriting rules, applied to the leftmost match."""

    name = "rewriting"
    about = "a string after steps of a rewriting system"
    dial = "number of steps: level + 1"
    form = "string of capital letters"

    def task(self, level: int, draws: Draws) -> Task:
        steps = level + 1
        letters = draws.sample("ABCDEFGH", 3)
        while True:  # a start and rules that last for all steps and leave at least four letters
            text = start = "".join(draws.choice(letters) for _ in range(draws.between(5, 7)))
            rules = dict[str, str]()
            while len(rules) < 3:
                rules["".join(draws.choice(letters) for _ in range(2))] = "".join(
                    draws.choice(letters) for _ in range(draws.between(1, 3))
                )
            is_alive = True
            for _ in range(steps):
                after = rewrite(text, rules)
                is_alive = is_alive and after != text and len(after) <= 14
                text = after
            if is_alive and len(text) >= 4:
                break
        lines = [f"{place}. {old} -> {new}" for place, (old, new) in enumerate(rules.items(), 1)]
        intro = draws.choice(
            (
                f"Apply these rewriting rules to the string {start}:",
                f"A machine holds the string {start} and changes it by these rules:",
                f"Start with the string {start} and use these replacement rules:",
            )
        )
        how = draws.choice(
            (
                "In each step, take the first rule in the list whose left side occurs in the string, and replace the "
                "leftmost occurrence by the right side.",
                "Each step uses the topmost rule whose left side can be found in the string, and replaces only its "
                "leftmost occurrence.",
            )
        )
        question = draws.choice(
            (f"What is the string after {steps} steps?", f"What does the string look like after {steps} steps?")
        )
        form = "Answer with the letters of the string, without spaces."
        return Task("\n".join([intro, *lines, f"{how} {question} {form}"]), text, steps)


class Automaton(TaskFamily):
    """Finite automata, as a robot that moves between rooms on signals."""

    name = "automaton"
    about = "the state of a finite automaton after it reads a word"
    dial = "letters of the word: 3 × level + 2; rooms: 3 to 6"
    form = "name of a room"

    def task(self, level: int, draws: Draws) -> Task:
        num_letters, size = 3 * level + 2, 3 + (level + 1) // 3
        rooms = draws.sample(ROOMS, size)
        word = [draws.choice("LR") for _ in range(num_letters)]
        moves = {(room, sign): target for room in rooms for sign, target in zip("LR", draws.sample(rooms, 2))}
        lines = [
            f"In the {room}, {draws.choice(('L leads', 'L takes it'))} to the {moves[room, 'L']} and R to the "
            f"{moves[room, 'R']}."
            for room in rooms
        ]
        place = first = draws.choice(rooms)
        for sign in word:
            place = moves[place, sign]
        intro = draws.choice(
            (
                f"A robot starts in the {first} and obeys the signals L and R.",
                f"A robot moves between {size} rooms by the signals L and R. It starts in the {first}.",
            )
        )
        question = draws.choice(
            (
                f"It receives the signals {''.join(word)}, from left to right. In which room does it end?",
                f"Where is it after the signals {''.join(word)}, read from left to right?",
            )
        )
        form = f"Answer with one of {listed(sorted(rooms), 'or')}."
        return Task(f"{intro} {' '.join(lines)} {question} {form}", place, num_letters)


class Ciphers(TaskFamily):
    """Words under a chain of shifts, reversals and rotations of letters."""

    name = "ciphers"
    about = "a word after a chain of letter operations, or the word that the chain was applied to"
    dial = "number of operations: level"
    form = "lowercase letters"

    def task(self, level: int, draws: Draws) -> Task:
        word = draws.choice(WORDS)
        text, steps = word, list[str]()
        last: int | None = None
        for _ in range(level):
            kind = draws.choice([k for k in range(4) if k != last or k == 3])
            last = kind
            text, step = self._changed(text, kind, draws)
            steps.append(f"{len(steps) + 1}. {step}")
        is_back = draws.chance(1, 3)
        shown, answer = (text, word) if is_back else (word, text)
        if is_back:
            intro = draws.choice(
                (
                    f"A word was changed by these steps, in this order, and became {shown!r}.",
                    f"Someone encoded a word with these steps, one after another, and got {shown!r}.",
                )
            )
            question = draws.choice(("What was the word?", "Which word was it?"))
        else:
            intro = draws.choice(
                (
                    f"Encode the word {shown!r} with these steps, in this order.",
                    f"Change the word {shown!r} by the following steps, one after another.",
                    f"Take the word {shown!r} and carry out these steps in order.",
                )
            )
            question = draws.choice(("What do you get?", "What is the result?"))
        form = draws.choice(("Answer with lowercase letters only.", "Answer in lowercase letters, without quotes."))
        return Task("\n".join([intro.replace("'", '"'), *steps, f"{question} {form}"]), answer, level)

    def _changed(self, text: str, kind: int, draws: Draws) -> tuple[str, str]:
        if kind == 0:
            return text[::-1], "Reverse the order of the letters."
        if kind == 1:
            number = draws.between(1, 3)
            count = ("letter", "two letters", "three letters")[number - 1]
            return text[number:] + text[:number], f"Move the first {count} to the end."
        if kind == 2:
            swapped = "".join(text[at : at + 2][::-1] for at in range(0, len(text), 2))
            return swapped, "Swap the letters in each pair: first and second, third and fourth, and so on."
        number = draws.between(1, 9)
        back = draws.chance(1, 2)
        way = (
            "before it in the alphabet, continuing with z before a"
            if back
            else "after it in the alphabet, continuing with a after z"
        )
        places = f"{number} place{'s' if number > 1 else ''}"
        return shifted(text, -number if back else number), f"Replace each letter by the one {places} {way}."


class RunLength(TaskFamily):
    """Run-length codes with repeated groups."""

    name = "run_length"
    about = "the string that a run-length code stands for"
    dial = "number of counts in the code: level + 2"
    form = "letters, without spaces"

    def task(self, level: int, draws: Draws) -> Task:
        size = level + 2
        letters = draws.sample(ascii_lowercase, 5)
        while True:
            code, text = self._code(size, letters, draws)
            if 6 <= len(text) <= 160:
                break
        has_groups = "(" in code
        rule = draws.choice(
            (
                "A number says how often the letter after it is repeated.",
                "Each number tells how many times the next letter occurs.",
            )
        )
        groups = " A number before parentheses repeats everything inside them." if has_groups else ""
        question = draws.choice(
            (f"Decode the run-length code {code}.", f"Expand {code}.", f"Which string does the code {code} stand for?")
        )
        return Task(f"{question} {rule}{groups} Answer with the letters of the string, without spaces.", text, size)

    def _code(self, size: int, letters: list[str], draws: Draws) -> tuple[str, str]:
        """A code with `size` counts, and what it stands for."""
        code, text = "", ""
        while size:
            if size > 2 and draws.chance(1, 3):
                number, inner = draws.between(2, 3), draws.between(2, size - 1)
                part, whole = self._code(inner, letters, draws)
                code, text, size = f"{code}{number}({part})", text + whole * number, size - 1 - inner
            else:
                number, letter = draws.between(1, 6), draws.choice([each for each in letters if each != text[-1:]])
                code, text, size = f"{code}{number}{letter}", text + letter * number, size - 1
        return code, text


def rewrite(text: str, rules: dict[str, str]) -> str:
    """The text after one step; the same text if no rule applies."""
    for old, new in rules.items():
        if old in text:
            return text.replace(old, new, 1)
    return text


def shifted(text: str, number: int) -> str:
    """Lowercase letters moved along the alphabet, round its end."""
    return "".join(ascii_lowercase[(ascii_lowercase.index(letter) + number) % 26] for letter in text)
