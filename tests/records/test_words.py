"""Words and normal forms of many scripts: what is one text, what is not, and that Unicode's own equivalences hold."""

import hashlib
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gristmill.records.normal_form import normal_form, tables
from gristmill.records.scripts import SIGNS
from gristmill.records.words import NO_KEY, num_tokens, num_words, text_key, tokens, words
from tests.profiles import scaled

TEXTS = st.one_of(
    st.text(max_size=80), st.text("aİiIıßς\u0301\u0323\u0307각ᄀ\u1161が々กิ้ไि क्षﬁ½…“’–\u00ad\u200d_", max_size=40)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don’t don't DON T", ["don", "t"] * 3),
        ("naïve Straße ÜBER", ["naïve", "strasse", "über"]),
        ("我们的。我", ["我", "们", "的", "我"]),
        ("テスト，が ok", ["テ", "ス", "ト", "が", "ok"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("สวัสดี ๒๕", ["ส", "วั", "ส", "ดี", "๒๕"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("a—b…c→d\u00a0e\u3000f_g", list("abcdefg")),
        ("ok🎉🎉x •", ["ok", "x"]),
        ("tiếng Việt", ["tiếng", "việt"]),
        ("זה „צה״ל”", ["זה", "צה", "ל"]),
        ("мʼята м’ята м'ята", ["м", "ята"] * 3),
        ("١٢ كتاب، ܫܠܡܐ", ["١٢", "كتاب", "ܫܠܡܐ"]),
        ("ሰላም። வணக்கம்!", ["ሰላም", "வணக்கம்"]),
        ("\u0301 x", ["x"]),
        ("∑ ∫ √ ∞ ≤ !!!", []),
    ],
)
def test_words_in_many_scripts(text: str, expected: list[str]) -> None:
    assert words(text) == [unicodedata.normalize("NFKD", word) for word in expected]


SAME = [
    ("“don’t” – he said…", '"don\'t" - he said...'),
    ("ＦＵＬＬ ｗｉｄｔｈ　１２", "full width 12"),
    ("ﬁne oﬃce", "fine office"),
    ("résumé", "RE\u0301SUME\u0301"),
    ("Straße", "STRASSE"),
    ("ΌΣΟΣ", "όσος"),
    ("İSTANBUL ılık", "istanbul ILIK"),
    ("i̇", "I"),
    ("so\u00adft\u200bly \ufeffx\ufe0f", "softly x"),
    ("کِتَابٌ", "کتاب"),
    ("العـــربية", "العربية"),
    ("שָׁלוֹם", "שלום"),
    ("각", "\u1100\u1161\u11a8"),
    ("ﾃｽﾄ ｶﾞ", "テスト ガ"),
    ("x²", "x2"),
    ("ệ", "e\u0302\u0323"),
    ("क़", "\u0915\u093c"),
    ("a \n\t b\u2028c", "a b c"),
    ("１９９０年", "1990年"),
]
DIFFERENT = [
    *[("ma", "má"), ("mã", "mạ"), ("が", "か"), ("कि", "की"), ("résumé", "resume"), ("año", "ano"), ("!!!", "???")],
    *[("∑ ∫", "→ ⇒"), ("a", ""), ("!", ""), ("один", "одна"), ("กา", "กำ"), ("é!", "é?"), ("2", "٢"), ("😀", "😡")],
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_variants_of_a_text_have_one_normal_form(one: str, other: str) -> None:
    assert normal_form(one) == normal_form(other)
    assert words(one) == words(other) and tokens(one) == tokens(other) and text_key(one) == text_key(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_other_texts_have_other_keys(one: str, other: str) -> None:
    assert text_key(one) != text_key(other)


@settings(max_examples=scaled(300), deadline=None)
@given(TEXTS)
@example("\u0130\u0323 i\u0307\u0323 \u1e1b\u0323")
def test_equivalent_texts_have_one_normal_form(text: str) -> None:
    form = normal_form(text)
    assert normal_form(form) == form
    for kind in ("NFC", "NFD", "NFKC", "NFKD"):
        assert normal_form(unicodedata.normalize(kind, text)) == form  # type: ignore[arg-type]
    if "\u0345" not in unicodedata.normalize("NFD", text):  # see scripts/unicode_tables.py
        assert normal_form(text.casefold()) == form
    parts = words(text)
    assert words(" ".join(parts)) == parts == [token for token in tokens(text.replace("_", " ")) if words(token)]
    assert num_tokens(text) == len(tokens(text)) and num_words(text) <= len(parts)


def test_lengths_hold_in_any_language() -> None:
    sizes = {
        "eight words of plain English are eight words": 8,
        "这是一个十二个字的中文句子": 13 / 1.5,
        "ประเทศไทย": 9 / 3,
    }
    assert {text: num_words(text) for text in sizes} == pytest.approx(sizes)
    assert num_words("") == num_words("!?") == 0
    assert [text_key(text) for text in (None, "", " \n", "\u200b")] == [NO_KEY] * 4


def test_the_tables_are_read_only() -> None:
    assert not any(array.flags.writeable for array in tables())


@pytest.mark.nightly
@pytest.mark.skipif(unicodedata.unidata_version != "14.0.0", reason="the tables are those of Unicode 14.0")
def test_the_tables_are_those_of_unicode() -> None:
    import numpy as np

    from scripts.unicode_tables import FILE
    from scripts.unicode_tables import tables as written

    with np.load(FILE) as stored:
        assert {n: stored[n].tolist() for n in stored} == {n: a.tolist() for n, a in written().items()}


def test_signs_of_scripts_without_spaces_are_those_of_unicode_14() -> None:
    """They decide bytes, so they are the same under any Python."""
    assert hashlib.sha256("".join(sorted(SIGNS)).encode()).hexdigest()[:16] == "736415b7457d4a24"
    if unicodedata.unidata_version == "14.0.0":
        marks = [chr(code) for code in range(0x0E00, 0x17FF) if unicodedata.category(chr(code))[0] == "M"]
        assert set(marks) <= set(SIGNS)
