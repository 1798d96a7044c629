"""Long documents: chunks in any script, rewritings that go on, megadocs, and texts across two documents."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.generators.text.chunks import chunks, first_words, last_words, most_chunks, num_words
from gristmill.generators.text.contract import Ask
from gristmill.records.errors import UserError
from gristmill.records.pairs import PairSource, PairsSpec, partners_of
from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.spec import literals
from gristmill.stages.verify.fidelity import Fidelity, FidelitySpec
from tests.generators.text.script import cut_off, method_of, refusal, told
from tests.profiles import scaled

PROSE = st.lists(
    st.sampled_from(
        ["the tide", " ", "\n", "\n\n", ". ", "月の満ち欠け", "。", "ภาษาไทย", "हिन्दी। ", "Ärger! ", "\t", "x" * 40]
    ),
    max_size=60,
).map("".join)
SENTENCES = {
    "English": "The moon pulls at the sea. Twice a day it rises! Who knows why? ",
    "Chinese": "月亮吸引海水。潮水每天涨两次！谁知道为什么？",
    "Hindi": "चाँद समुद्र को खींचता है। दिन में दो बार ज्वार आता है। ",
    "Arabic": "القمر يجذب البحر. هل يرتفع مرتين في اليوم؟ ",
}


@given(PROSE, st.integers(1, 30))
@settings(max_examples=scaled(150))
def test_chunks_join_to_the_text_and_hold_no_more_words_than_allowed(text: str, size: int) -> None:
    parts = chunks(text, size)
    assert "".join(parts) == text and all(num_words(part) <= size for part in parts)
    assert len(parts) == 1 or all(part.strip() for part in parts)
    assert len(parts) <= most_chunks(num_words(text), size)
    assert num_words(first_words(text, size)) == min(size, num_words(text)) and text.startswith(first_words(text, size))
    assert text.endswith(last_words(text, size)) and num_words(last_words(text, size)) <= size


CUT = {"annotate": {"labels": ["a", "b"]}, "cross_document": {"other": "text"}, "rephrase": {"styles": ["faq"]}}


@pytest.mark.parametrize("text, start", [("月亮吸引海水", "月亮吸"), ("a b\n c d", "a b\n c"), ("กี่น้ำทะเล", "กี่น้ำ")])
@pytest.mark.parametrize(
    "kind", ["annotate", "backtranslate", "cross_document", "megadoc", "paraphrase", "rephrase", "translate"]
)
def test_every_method_cuts_documents_alike(kind: str, text: str, start: str) -> None:
    table = {**CUT.get(kind, {}), "max_words": 3}
    _, engine, _ = told(kind, table, {"text": text}, {"": "An answer of some words."})
    assert start in str(engine.asked[0]) and text not in str(engine.asked[0])


@pytest.mark.parametrize("script", SENTENCES)
def test_chunks_end_where_sentences_end(script: str) -> None:
    text = SENTENCES[script] * 12
    parts = chunks(text, 2 * num_words(SENTENCES[script]))
    assert 6 <= len(parts) <= 8 and all(part.strip()[-1] in ".!?。！？।؟" for part in parts)
    sizes = [num_words(part) for part in parts]
    assert min(sizes) * 2 > max(sizes), "no chunk is a short rest"


def test_a_thai_text_is_cut_at_its_phrases_and_no_letter_loses_its_sign() -> None:
    phrase = "ดวงจันทร์ดึงดูดน้ำทะเล"
    assert all(part.strip().endswith("เล") for part in chunks(f"{phrase} " * 8, 40))
    assert all(part.startswith(("ก", "น")) for part in chunks("กี่น้ำ" * 50, 7))


def test_a_document_of_one_chunk_is_asked_for_as_it_is_without_chunks() -> None:
    fields, script = {"text": " The moon pulls.\n\nThe sea rises. \n"}, {"": "It pulls."}
    plain, engine, _ = told("rephrase", {}, fields, script)
    chunked, same, _ = told("rephrase", {"chunk_words": 50}, fields, script)
    assert same.asked == engine.asked and same.seeds == engine.seeds
    assert chunked == {**plain, "original": fields["text"], "parts": chunked["parts"]}
    assert "chunk_words" not in literals(method_of("rephrase", {}).spec), "so old outputs stay resumable"


def test_each_chunk_is_shown_the_end_of_the_rewriting_before_it() -> None:
    document = "\n\n".join(f"Paragraph {number} tells of the moon and of the sea." for number in range(6))
    answers = ["First comes the moon. Then the sea rises.", "The shore is wet. Crabs walk.", "All is calm."]
    table = {"styles": ["tutorial"], "chunk_words": 20, "context_words": 5}
    row, engine, session = told("rephrase", table, {"text": document}, answers)
    assert row["text"] == "\n\n".join(answers) and row["original"] == document and session.calls == 3
    assert "part 2 of 3" in engine.asked[1] and "\n\nThen the sea rises.\n\n" in engine.asked[1]
    assert "First comes" not in engine.asked[1] and "longer one" not in engine.asked[0]
    assert [row["text"][p["text_start"] : p["text_end"]] for p in row["parts"]] == answers
    assert "".join(document[p["original_start"] : p["original_end"]] for p in row["parts"]) == document
    assert all(f"Paragraph {number}" in engine.asked[number // 2] for number in range(6))


@pytest.mark.parametrize("last, reason", [(cut_off(), "cut_chunk"), (" ", "empty_chunk")])
def test_a_chunk_that_is_lost_refuses_the_row(last, reason) -> None:
    assert refusal("rephrase", {"chunk_words": 3}, {"text": "a b c d e f"}, ["Fine.", last]) == reason


@pytest.mark.parametrize(
    "kind, table",
    [
        ("rephrase", {"chunk_words": -1}),
        ("rephrase", {"context_words": 9}),
        ("rephrase", {"chunk_words": 9, "continuation": "Go on."}),
        ("megadoc", {"rephrases": 1}),
        ("megadoc", {"styles": ["ode"]}),
        ("cross_document", {"forms": ["ode"]}),
        ("cross_document", {"templates": {"qa": "{document}"}}),
    ],
)
def test_settings_that_do_not_fit_are_refused(kind: str, table: dict[str, object]) -> None:
    with pytest.raises(UserError):
        method_of(kind, table)


def test_a_megadoc_holds_each_rewriting_once_and_uses_all_styles_equally() -> None:
    answers = ["One.", "Two.", "ONE.", cut_off(), "The moon pulls.", "Three."]
    table = {"rephrases": 6, "separator": "\n***\n", "original": "last"}
    row, engine, session = told("megadoc", table, {"text": "The moon pulls."}, answers)
    assert row["text"] == "One.\n***\nTwo.\n***\nThree.\n***\nThe moon pulls." and session.calls == 6
    assert row["styles"][-1] == "original" and len(set(row["styles"][:2])) == 2
    assert [row["text"][p["text_start"] : p["text_end"]] for p in row["parts"]] == row["text"].split("\n***\n")
    assert len(set(engine.asked[:4])) == 4 and engine.asked[4:] == engine.asked[:2]
    assert refusal("megadoc", {}, {"text": "The moon."}, {"": "The same."}) == "few_rephrases"
    orders = {
        told("megadoc", {}, {"text": "x"}, [str(n) for n in range(8)], seed)[0]["styles"][0] for seed in range(40)
    }
    assert len(orders) == 4, "the order of the styles is drawn"


def items(*rows: dict[str, object]) -> list[tuple[str, str]]:
    return [(str(row.get("id", at)), json.dumps(row)) for at, row in enumerate(rows)]


def test_rows_are_related_by_links_in_the_three_ways_of_the_paper() -> None:
    rows = items(
        {"id": "a", "links": ["b"]},  # names b
        {"id": "b", "links": ["a", "e"]},  # both name each other
        {"id": "c", "links": ["e"]},  # names e, as b does
        {"id": "d", "links": []},
    )
    assert partners_of(rows, PairsSpec(link="links")) == [[1], [0, 2], [1], []]
    by_value = items({"topic": "sea"}, {"topic": 4}, {"topic": "sea"}, {"topic": None}, {"topic": 4}, {"topic": "sea"})
    assert partners_of(by_value, PairsSpec(link="topic")) == [[2, 5], [4], [5, 0], [], [1], [0, 2]]


@pytest.mark.parametrize(
    "texts",
    [
        [
            "Kepler measured ellipses of Mars",
            "a cake of flour",
            "ellipses that Kepler drew, of Mars",
            "flour: a cake of",
        ],
        ["开普勒测量火星轨道", "面粉做的蛋糕食谱", "火星轨道由开普勒测量", "蛋糕食谱要面粉做的"],
    ],
)
def test_rows_are_related_by_rare_words_of_any_script(texts: list[str]) -> None:
    rows = items(*({"text": text} for text in texts))
    assert partners_of(rows, PairsSpec()) == [[2], [3], [0], [1]]


def test_partners_are_the_same_wherever_a_run_begins_and_samples_take_turns() -> None:
    rows = [{"text": f"row {n}", "topic": n % 3} for n in range(20)]
    source = open_source(SourceSpec(items=tuple(rows), samples=2))
    pairs = PairSource(source, PairsSpec(link="topic", within=8))
    whole = pairs.ask_rows(0, 40, 20)
    assert [PairSource(source, pairs.spec).ask_rows(at, at + 5, 20) for at in range(0, 40, 5)] == [
        whole[at : at + 5] for at in range(0, 40, 5)
    ]
    first, second = ([json.loads(text) for _, text in whole[at : at + 20]] for at in (0, 20))
    alone = [row for row in first if "other" not in row]
    assert [row["text"] for row in alone] == ["row 17", "row 18"], "their block holds no other of their topic"
    paired = [(a, b) for a, b in zip(first, second) if "other" in a]
    assert all(a["other"]["topic"] == a["topic"] and a["other"]["text"] != a["text"] for a, _ in paired)
    assert any(a["other"] != b["other"] for a, b in paired)


def test_a_text_across_two_documents_names_both() -> None:
    fields = {"text": "The moon pulls.", "other": {"text": "The sea rises."}, "other_source_id": "sea"}
    row, engine, _ = told("cross_document", {}, fields, {"First document:\nThe moon pulls.*The sea rises.": "Q and A"})
    assert row == {"form": "qa", "other_source_id": "sea", "text": "Q and A"} and len(engine.asked) == 1
    assert refusal("cross_document", {}, {"text": "The moon pulls."}, {"": "?"}) == "no_partner"


def test_a_column_of_the_source_is_no_partner() -> None:
    own = {"other": {"text": "The sea rises."}, "other_source_id": "sea"}
    rows = tuple({"text": text, "topic": text[0], **own} for text in ("a moon", "bread", "a tide"))
    source = PairSource(open_source(SourceSpec(items=rows)), PairsSpec(link="topic"))
    asks = [json.loads(text) for _, text in source.ask_rows(0, 3, 3)]
    assert refusal("cross_document", {}, asks[1], {"": "?"}) == "no_partner"
    assert refusal("cross_document", {}, {"text": "The moon.", "other": own["other"]}, {"": "?"}) == "no_partner"
    row, _, _ = told("cross_document", {}, asks[0], {"a moon.*a tide": "Q and A"})
    assert row["other_source_id"] == source.source.rows(2, 3)[0][0]


@pytest.mark.parametrize("original", ["none", "first", "last"])
def test_what_a_megadoc_teaches_are_its_rewritings(original: str) -> None:
    templates = {"original": "As it is: {document}", "b": "In short: {document}"}
    table = {"styles": list(templates), "templates": templates, "rephrases": 2, "original": original}
    row, _, _ = told("megadoc", table, {"text": "The moon pulls."}, ["One.\n\nMore.", "Two."])
    method = method_of("megadoc", table)
    assert method.kept_texts(Ask("id", 7, {}), row) == ["One.\n\nMore.", "Two."]


def test_what_a_rewriting_by_chunks_teaches_are_its_chunks() -> None:
    table, answers = {"chunk_words": 3}, ["One.\n\nMore.", "Two."]
    row, _, _ = told("rephrase", table, {"text": "a b c d e f"}, answers)
    assert method_of("rephrase", table).kept_texts(Ask("id", 7, {}), row) == answers
    assert method_of("rephrase", {}).kept_texts(Ask("id", 7, {}), {"text": "It."}) == ["It."]


@pytest.mark.parametrize("parts", ["", "parts"])
def test_fidelity_rejects_what_speaks_of_something_else(parts: str) -> None:
    moon, bread = (
        "The moon pulls at the sea, so the tide rises twice a day.",
        "Knead the dough, let the bread rise and bake it.",
    )
    same = "Twice a day the tide rises, because the sea is pulled by the moon."
    ends = [(0, len(moon), 0, len(same)), (len(moon), len(moon + bread), len(same), len(same + same))]
    names = ("original_start", "original_end", "text_start", "text_end")
    rows = pa.RecordBatch.from_pylist(
        [
            {"original": moon, "text": same, "parts": [dict(zip(names, ends[0]))]},
            {"original": moon + bread, "text": same + same, "parts": [dict(zip(names, end)) for end in ends]},
        ]
    )
    stage = Fidelity(FidelitySpec(parts=parts))
    stage.open()
    findings = stage.find(rows)
    scores = findings.columns["fidelity_similarity"].to_pylist()
    assert findings.reasons is not None and scores[0] > 0.8 > scores[1]
    if parts:
        assert findings.reasons.to_pylist() == [None, "similarity"]
        assert np.allclose(findings.columns["fidelity_parts"].to_pylist()[1], [scores[0], scores[1]])
