"""Every metric against a slow reference in plain Python, and the rules against texts made to break them."""

import re
import unicodedata
from collections import Counter
from pydoc_data.topics import topics
from typing import Any

import pyarrow as pa
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.normal_form import folded
from gristmill.records.spec import build
from gristmill.records.words import num_words
from gristmill.records.words import words as words_of
from gristmill.stages.filters.datatrove_rules import split_words
from gristmill.stages.filters.rules import RULES, SETS, Rules, RulesSpec
from tests.profiles import scaled

SPACE = " \t\n\r\x0b\x0c"
STOP_WORDS = RulesSpec().stop_words
PHRASES = {
    "lorem_ipsum": ["lorem ipsum"],
    "javascript": ["javascript"],
    "policy": ["terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"],
}


OF_WORDS = [  # metrics that are 0 for a text without a word
    "mean_word_length", "symbol_ratio", "bullet_lines", "ellipsis_lines", "alpha_words", "stop_words", "dup_lines",
    "dup_line_chars", "dup_paragraphs", "dup_paragraph_chars", "line_punct", "short_lines", "newline_ratio",
]  # fmt: skip


def lower(text: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in text)


TERMINAL = regex.compile(r"[\p{Sentence_Terminal}\u2026\u17d4\u17d5\u17da\u0f0d-\u0f11\u037e\uff0e]")
CLOSING = regex.compile(r"[\p{Pe}\p{Pf}\p{Pi}\"')\]}*_]")
QUOTES = regex.compile(r"[\p{Pf}\p{Pi}\"'」』﹂﹄｣“‘〞〟]")
ALPHABETIC = regex.compile(r"\p{Alphabetic}")
BULLETS = "-*·•‣⁃∙■□▪▫▶▸►◆◇○●◦✓✔➢➤・･"


def letter(char: str) -> bool:
    return bool(words_of("x" + char) != ["x"] or unicodedata.category(char)[0] in "LMN")


def ends_sentence(word: str) -> bool:
    while word and CLOSING.match(word[-1]):
        word = word[:-1]
    return bool(word and TERMINAL.match(word[-1]))


def inner_stops(word: str) -> int:
    """Ends of sentences inside a run, of scripts that put no space behind them."""
    number, is_open = 0, False
    for char in word:
        is_mark = bool(TERMINAL.match(char) or CLOSING.match(char))
        number += is_open and not is_mark
        is_stop = bool(TERMINAL.match(char)) and not char.isascii() and not "\u2000" <= char < "\u2070"
        is_open = is_stop or (is_open and is_mark and (char.isascii() or bool(CLOSING.match(char))))
    return number


def core(word: str) -> str:
    form = folded(word)
    places = [at for at, char in enumerate(form) if letter(char)]
    return form[places[0] : places[-1] + 1] if places else ""


def duplicates(blocks: list[list[str]]) -> tuple[int, int]:
    """(blocks, their characters) that have occurred before."""
    seen: set[tuple[str, ...]] = set()
    number = chars = 0
    for block in blocks:
        if tuple(block) in seen:
            number, chars = number + 1, chars + len("".join(block))
        seen.add(tuple(block))
    return number, chars


def sixths(run: str) -> int:
    """Length of a run in sixths of a word."""
    singles = [round(6 * num_words(folded(char)[:1])) for char in run if letter(char)]
    return max(6, sum(size for size in singles if size < 6))


def reference(text: str) -> dict[str, float]:
    """All metrics, as their definitions say."""
    words = [w for w in re.split(f"[{SPACE}]+", text) if w]
    stripped = [line.strip(SPACE) for line in text.split("\n")]
    lines = [line for line in stripped if line]
    split = [[w for w in re.split(f"[{SPACE}]+", line) if w] for line in stripped]
    paragraphs: list[list[str]] = [[]]
    for line in split:
        if line:
            paragraphs[-1] += line
        elif paragraphs[-1]:
            paragraphs.append([])
    paragraphs = [p for p in paragraphs if p]
    answer: dict[str, float] = dict.fromkeys(OF_WORDS, 0.0)
    length = answer["num_words"] = sum(map(sixths, words)) / 6
    answer["num_sentences"] = sum(map(ends_sentence, words)) + bool(words and not ends_sentence(words[-1]))
    answer["num_sentences"] += sum(map(inner_stops, words))
    answer["curly_brackets"] = text.count("{")
    for name, phrases in PHRASES.items():
        found = [m for p in phrases for m in re.finditer(re.escape(p), lower(text))]
        answer[name] = sum(m.start() == 0 or not letter(text[m.start() - 1]) for m in found)
    total = len("".join(words))
    for n in range(2, 11):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        counts = Counter(grams)
        if n < 5:
            top = max(((c, len("".join(g))) for g, c in counts.items() if c > 1), default=(0, 0))
            answer[f"top_{n}gram"] = top[0] * top[1] / total if total else 0.0
        else:
            covered, seen = set[int](), set[tuple[str, ...]]()
            for i, gram in enumerate(grams):
                if gram in seen:
                    covered |= set(range(i, i + n))
                seen.add(gram)
            answer[f"dup_{n}gram"] = sum(len(words[i]) for i in covered) / total if total else 0.0
    if not words:
        return answer
    answer["mean_word_length"] = total / length
    answer["symbol_ratio"] = max(text.count("#"), text.count("...") + text.count("…")) / length
    answer["bullet_lines"] = sum(line[0] in BULLETS for line in lines) / len(lines)
    answer["ellipsis_lines"] = sum(line.endswith(("...", "…")) for line in lines) / len(lines)
    answer["alpha_words"] = sum(any(ALPHABETIC.match(c) for c in w) for w in words) / len(words)
    answer["stop_words"] = len({core(w) for w in words} & set(STOP_WORDS))
    dup_lines, line_chars = duplicates([line for line in split if line])
    dup_paragraphs, paragraph_chars = duplicates(paragraphs)
    answer["dup_lines"], answer["dup_line_chars"] = dup_lines / len(lines), line_chars / total
    answer["dup_paragraphs"] = dup_paragraphs / len(paragraphs)
    answer["dup_paragraph_chars"] = paragraph_chars / total
    answer["line_punct"] = sum(bool(TERMINAL.match(line[-1]) or QUOTES.match(line[-1])) for line in lines) / len(lines)
    answer["short_lines"] = sum(len(line) < 30 for line in lines) / len(lines)
    answer["newline_ratio"] = text.count("\n") / length
    return answer


@pytest.fixture(scope="module")
def every_set() -> Rules:
    made = Rules(RulesSpec(sets=SETS))
    made.open()
    return made


def agree(stage: Rules, texts: list[str]) -> None:
    metrics = stage.metrics(pa.array(texts, pa.string()))
    for row, text in enumerate(texts):
        expected = reference(text)
        assert set(expected) == set(metrics)
        for name, values in metrics.items():
            assert values[row] == pytest.approx(expected[name], abs=1e-12), (name, text)


PIECES = """a a b The the, (of) be. to and?" x1 12 # ... … ….. .... - * • ◦ é 日本。 “no.” 'n' { lorem ipsum JavaScript
 terms of use privacy policy cookies uses use ” ’"""
PIECE = st.sampled_from([*PIECES.split(), "\u00a0", ""])
GAP = st.sampled_from([" ", " ", " ", "\n", "\n", "\n\n", " \n \n", "\t", "", "\r\n"])
MADE = st.lists(st.tuples(PIECE, GAP), max_size=60).map(lambda pairs: "".join(p + g for p, g in pairs))
ASSIGNED = st.characters(exclude_categories=["Cs", "Cn", "Co"])
OTHER = st.one_of(st.text(ASSIGNED, max_size=60), st.text("a है।।」」。.「。！がสวั字x\u0301.?’؟» 🎉→", max_size=30))
FEW = st.lists(st.sampled_from(["a ", "b ", "cc\n", "a\n\n"]), max_size=60).map("".join)


@settings(max_examples=scaled(400), deadline=None)
@given(st.lists(st.one_of(MADE, FEW, OTHER), max_size=4))
def test_every_metric_agrees_with_its_definition(every_set: Rules, texts: list[str]) -> None:
    agree(every_set, texts)


def test_every_metric_agrees_on_real_text(every_set: Rules) -> None:
    texts = [topics[name][:8000] for name in sorted(topics)]
    agree(every_set, [*texts, "\n".join(texts[:3] * 2)])


PROSE = (
    "The mill stands by the river, and the river turns its wheel. People come with their grain in the morning and"
    " leave with flour before noon, when the sun is over the roof. Nobody remembers who built it. Some say a widow did"
    " it to feed her sons; others think that monks had it first. It has burned down twice, yet each time the village"
    " raised the walls again."
)
DIFFERENT = [f"Line {i} is about thing {i * 7} of list {i * 3} and is no other." for i in range(12)]
BROKEN = {
    "gopher_min_words": "The few words of a short text that have no more.",
    "gopher_min_word_length": PROSE + " a b c d" * 200,
    "gopher_max_word_length": PROSE + " internationalisation-and-so-forth" * 40,
    "gopher_symbol_ratio": PROSE + " #" * 20,
    "gopher_bullet_lines": "\n".join(f"- {line}" for line in DIFFERENT),
    "gopher_ellipsis_lines": "\n".join(f"{line}.." for line in DIFFERENT),
    "gopher_alpha_words": PROSE + " 1234" * 30,
    "gopher_stop_words": " ".join(f"Nothing{i} matters{i} here{i}." for i in range(20)),
    "gopher_dup_lines": "\n".join([*DIFFERENT, *["Stop."] * 8]),
    "gopher_dup_paragraphs": "\n\n".join(["\n".join(DIFFERENT), "Stop.", "Stop."]),
    "gopher_dup_line_chars": "\n".join([PROSE, PROSE, *DIFFERENT[:4]]),
    "gopher_top_2gram": PROSE + " water wheel and" * 20,
    "gopher_dup_5gram": f"{PROSE} {PROSE}",
    "fineweb_line_punct": PROSE.replace(".", ",").replace("roof,", "roof,\n") + " end",
    "fineweb_short_lines": PROSE.replace(" ", "\n").replace("\n", " ", 30),
    "fineweb_newlines": PROSE.replace(". ", ".\n\n\n\n\n\n\n\n"),
    "c4_lorem_ipsum": PROSE + " Lorem ipsum.",
    "c4_curly_bracket": PROSE + " {",
    "c4_javascript": PROSE + " Turn on Javascript.",
    "c4_policy": PROSE + " Read our Privacy Policy.",
    "c4_min_sentences": PROSE.replace(".", ","),
}


def rejects(table: dict[str, Any], *texts: str) -> list[dict[str, Any]]:
    made = Rules(build(RulesSpec, table, "stages[0]"))
    made.open()
    columns = {"text": pa.array(texts), "reject": pa.nulls(len(texts), pa.string())}
    return made.run(pa.RecordBatch.from_pydict(columns)).to_pylist()


def test_good_prose_passes_every_rule_and_the_first_broken_rule_is_the_reason() -> None:
    good, bad = rejects({"sets": list(SETS)}, PROSE, "{ " * 10)
    assert (good["reject"], good["rule_value"], good["num_words"]) == (None, None, len(PROSE.split()))
    assert (bad["reject"], bad["rule_value"], bad["num_words"]) == ("rules:gopher_min_words", 10, 10)


@pytest.mark.parametrize("rule", BROKEN)
def test_a_text_made_to_break_a_rule_names_it_and_its_value(rule: str) -> None:
    others = [name for name in RULES if RULES[name].set == RULES[rule].set and name != rule]
    good, bad = rejects({"sets": [RULES[rule].set], "skip": others}, PROSE, BROKEN[rule])
    assert good["reject"] is None and bad["reject"] == f"rules:{rule}"
    assert bad["rule_value"] == pytest.approx(reference(BROKEN[rule])[RULES[rule].metric])


def test_a_rule_can_be_loosened_or_skipped() -> None:
    for table, expected in (
        ({}, "rules:gopher_min_words"),
        ({"limits": {"gopher_min_words": 5}}, None),
        ({"limits": {"gopher_min_words": 7}}, "rules:gopher_min_words"),
        ({"skip": ["gopher_min_words"]}, None),
        ({"skip": ["gopher_min_words"], "stop_words": ["row"]}, "rules:gopher_stop_words"),
        ({"sets": ["gopher_repetition"]}, None),
    ):
        table = {"sets": ["gopher_quality"], **table}
        assert rejects(table, "The short text of a row.")[0]["reject"] == expected, table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"sets": ["gopher"]}, "no set 'gopher'"),
        ({"skip": ["gopher_min_word"]}, "did you mean 'gopher_min_words'"),
        ({"limits": {"c4_policy": 1}}, "not in sets"),
        ({"skip": ["gopher_min_words"], "limits": {"gopher_min_words": 1}}, "both in limits and in skip"),
        ({"sets": []}, "no rule is left"),
        ({"stop_words": ["two words"]}, "one lower-case word"),
    ],
)
def test_a_senseless_spec_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        build(RulesSpec, table, "stages[0]")


PAGES = {
    "Hindi": "यह एक लंबा वाक्य है।\nऔर यह दूसरा वाक्य भी है।",
    "Arabic": "هذه جملة طويلة نوعا ما.\nفهل هذا سؤال آخر؟",
    "Urdu": "یہ ایک لمبا جملہ ہے۔\nیہ دوسرا جملہ ہے۔",
    "Chinese": "这是一个句子。\n这也是一个句子！",
    "Japanese": "これは文です。\n「これも文です」",
    "Armenian": "Սա նախադասություն է։\nՍա էլ է։",
    "Amharic": "ይህ ዓረፍተ ነገር ነው።\nይህም ነው።",
    "Khmer": "នេះជាប្រយោគ។\nនេះក៏ដូចគ្នា។",
    "Burmese": "ဒါက ဝါကျတစ်ခုပါ။\nဒါလည်းပါ။",
    "Tibetan": "འདི་ནི་ཚིག་གྲུབ་ཅིག་རེད།\nའདི་ཡང་རེད།",
    "Greek": "Αυτή είναι μια πρόταση.\nΕίναι αυτή ερώτηση\u037e",
    "German": "Er sagt „gut“.\nSie sagt: „Nein“",
}


@pytest.mark.parametrize("language", PAGES)
def test_lines_end_and_words_are_words_in_every_script(language: str) -> None:
    limits = {"sets": ["gopher_quality", "fineweb"], "limits": {"gopher_min_words": 1, "gopher_min_word_length": 1}}
    skip = ["gopher_max_word_length", "gopher_stop_words", "fineweb_short_lines"]  # rules of English prose
    good, no_ends = rejects({**limits, "skip": skip}, PAGES[language], re.sub(r"\W+$", "", PAGES[language], flags=re.M))
    assert good["reject"] is None
    assert no_ends["reject"] == "rules:fineweb_line_punct" or language in ("Khmer", "Burmese", "Tibetan")


def test_signs_are_no_letters() -> None:
    table = {"sets": ["gopher_quality"], "limits": {"gopher_min_words": 1, "gopher_min_word_length": 1}}
    table["skip"] = ["gopher_stop_words"]
    for sign in "•→🎉∑–":
        assert rejects(table, f"word {sign} word {sign}{sign}")[0]["reject"] == "rules:gopher_alpha_words", sign
    assert rejects(table, "слово 字 가 है Ⓐ")[0]["reject"] is None


def test_stop_words_are_found_in_quotes_and_in_any_script() -> None:
    table = {"sets": ["gopher_quality"], "limits": {"gopher_min_words": 1, "gopher_min_word_length": 1}}
    table |= {"stop_words": ["और", "über", "не"]}
    for text in ("यह «और» वह ÜBER", "यह और वह über", "“НЕ” u\u0308ber"):
        assert rejects(table, text)[0]["reject"] is None
    assert rejects(table, "औरत überall")[0]["reject"] == "rules:gopher_stop_words"


# What datatrove 0.10.1 with spaCy 3.8 makes of each text.
SPLIT = {
    "Don't say \"hello-world\" (U.S.), it's well-known...": (
        ["Do", "n't", "say", '"', "hello", "-", "world", '"', "(", "U.S.", ")", ",", "it", "'s", "well", "-", "known"]
        + ["..."]
    ),
    "3.5% of $20, and/or http://x.org/y?z=1 the dog's. end.Start x=y": (
        ["3.5", "%", "of", "$", "20", ",", "and/or", "http://x.org/y?z=1", "the", "dog", "'s", ".", "end", ".", "Start"]
        + ["x", "=", "y"]
    ),
    "a 32-bit value, `name`.": ["a", "32", "-", "bit", "value", ",", "`", "name", "`", "."],
}


@pytest.mark.parametrize("text", SPLIT)
def test_words_of_datatrove(text: str) -> None:
    assert split_words(text) == SPLIT[text]


def test_datatrove_counts_marks_as_words_and_knows_its_own_thresholds() -> None:
    quotes = " ".join(f'"{word}",' for word in PROSE.split())  # of 4 words a run, 3 are signs
    for words, reject in (("spaces", None), ("datatrove", "rules:gopher_alpha_words")):
        assert rejects({"sets": ["gopher_quality"], "words": words}, quotes)[0]["reject"] == reject
    twice = "\n".join([*DIFFERENT, DIFFERENT[0]])
    table = {"sets": ["fineweb"], "skip": ["fineweb_short_lines"]}
    assert [rejects({**table, "words": w}, twice)[0]["reject"] for w in ("spaces", "datatrove")] == [
        None,
        "rules:fineweb_dup_line_chars",
    ]
    empty, good = rejects({"words": "datatrove"}, "", PROSE)
    assert (empty["reject"], good["reject"]) == ("rules:gopher_min_words", None)
