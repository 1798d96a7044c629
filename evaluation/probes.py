"""Small tests of a language model: which of a few sentences does it find likeliest?

`cloze_items` takes sentences of a text and puts three other words in the place of one. `agreement_items` makes pairs of
sentences that differ in the form of a verb, after the minimal pairs of BLiMP (Warstadt et al. 2020). Both are drawn
from literals: the same texts give the same items.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gristmill.evaluation.draws import stream

REVISION = 1  # raised when the same texts give other items
SENTENCE = re.compile(r"(?:(?<=[.!?]\s)|(?<=\n)|^)[A-Z][^.!?\n]{0,160}+(?:\n[^.!?\n]{1,160}+){0,4}[.!?](?=\s|$)")
WORD = re.compile(r"(?<!\w)[^\W\d_]+(?:['’][^\W\d_]+)*(?!\w)")
MIN_WORDS, MAX_WORDS = 6, 20  # of a sentence
MIN_CHARS = 4  # of a word that is replaced
MIN_SENTENCES = 3  # that hold a word before it is replaced, or replaces another
NUM_OTHERS, NEAR = 3, 24  # distractors, drawn from so many words of about the same frequency
NOUNS = "dog teacher river child farmer engine letter bird doctor window story king student ship garden worker".split()
VERBS = [
    ("sleeps", "sleep"), ("waits", "wait"), ("falls", "fall"), ("moves", "move"), ("grows", "grow"), ("works", "work"),
    ("is here", "are here"), ("was lost", "were lost"), ("has gone", "have gone"), ("does nothing", "do nothing"),
]  # fmt: skip
PLURALS = {"child": "children"}
NEAR_PHRASES = ("", "near the {other} ", "that the {other} saw ")


@dataclass(frozen=True)
class Item:
    """Sentences of which the first is right."""

    options: tuple[str, ...]


def cloze_items(texts: Sequence[str], num: int, seed: int = 0) -> list[Item]:
    """At most `num` sentences of the texts, each with a word replaced by three others of about its frequency.

    Sentences have 6 to 20 words and end in a full stop. Texts of scripts without white space give none.
    """
    sentences = list(dict.fromkeys(" ".join(match[0].split()) for text in texts for match in SENTENCE.finditer(text)))
    words = [WORD.findall(sentence) for sentence in sentences]
    frequency = Counter(word for in_sentence in words for word in set(in_sentence))
    ranked = sorted(
        (w for w, n in frequency.items() if n >= MIN_SENTENCES and len(w) >= MIN_CHARS and w.islower()),
        key=lambda word: (-frequency[word], word),
    )
    ranks = {word: at for at, word in enumerate(ranked)}
    random = stream(seed, "cloze")
    items: list[Item] = []
    for number in random.permutation(len(sentences)):
        if len(items) == num:
            break
        sentence, in_sentence = sentences[number], words[number]
        targets = [word for word in in_sentence[1:] if word in ranks and in_sentence.count(word) == 1]
        if not MIN_WORDS <= len(in_sentence) <= MAX_WORDS or not targets:
            continue
        target = targets[int(random.integers(len(targets)))]
        first = max(0, min(ranks[target] - NEAR // 2, len(ranked) - NEAR))
        near = [word for word in ranked[first : first + NEAR] if word not in in_sentence]
        if len(near) < NUM_OTHERS:
            continue
        others = [near[at] for at in random.permutation(len(near))[:NUM_OTHERS]]
        place = re.compile(rf"\b{re.escape(target)}\b")
        items.append(Item((sentence, *(place.sub(other, sentence, count=1) for other in others))))
    return items


def agreement_items(num: int, seed: int = 0) -> list[Item]:
    """`num` pairs of English sentences: the verb agrees with its subject in the first and not in the second."""
    random = stream(seed, "agreement")
    items: dict[Item, None] = {}
    while len(items) < num:
        subject, other = (NOUNS[at] for at in random.permutation(len(NOUNS))[:2])
        verb = VERBS[int(random.integers(len(VERBS)))]
        phrase = NEAR_PHRASES[int(random.integers(len(NEAR_PHRASES)))]
        is_plural, is_other_plural = (bool(at) for at in random.integers(2, size=2))
        between = phrase.format(other=_noun(other, is_other_plural))
        right, wrong = (f"The {_noun(subject, is_plural)} {between}{form}." for form in verb[:: -1 if is_plural else 1])
        items[Item((right, wrong))] = None
    return list(items)


def _noun(noun: str, is_plural: bool) -> str:
    return PLURALS.get(noun, f"{noun}s") if is_plural else noun


def accuracy(scores: Sequence[float], items: Sequence[Item]) -> float:
    """Share of items whose first option has the highest score; `scores` are those of all options, in order."""
    at, num_right = 0, 0
    for item in items:
        first, *others = scores[at : at + len(item.options)]
        at += len(item.options)
        num_right += first > max(others)
    return num_right / len(items)


def unseen(items: Sequence[Item], texts: Sequence[str]) -> list[Item]:
    """The items whose right sentence occurs in none of the texts, in any spacing."""
    whole = "\n".join(" ".join(text.split()) for text in texts)
    return [item for item in items if item.options[0] not in whole]
