"""What holds for every text method: a row is the same alone and in any batch, beside any neighbours, in any order."""

import asyncio
import json
import pickle

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.generators.canned.generator import Canned, CannedSpec
from gristmill.generators.text.contract import Ask, Method
from gristmill.generators.text.registry import KINDS, method_class
from gristmill.records.spec import build
from tests.conftest import ROOT
from tests.generators.canned.test_canned import asks
from tests.generators.text.script import mark
from tests.profiles import scaled

# The spec of each method that cannot do without one; the others are taken with their defaults.
LIBRARY = {"kind": "file", "file": str(ROOT / "recipes" / "tools" / "library.py")}
TABLES = {
    "agent": {"tools": [LIBRARY, {"kind": "python"}]},
    "tool_calls": {"tools": [LIBRARY], "must_match": False},
    "annotate": {"labels": ["warm", "cold", "mild"], "votes": 5},
    "cross_document": {"other": "output"},
    "dialogue": {"exchanges": 4, "min_exchanges": 1},
    "megadoc": {"original": "first"},
    "rephrase": {"chunk_words": 4, "context_words": 5},
    "translate": {"round_trip": True},
}
# What the canned engine must say in some calls of methods that look for more than English in an answer.
SAYS = {
    "code": {
        "solution": ["```python\ndef tide(n):\n    return n + 6\n```", "def tide(n): return n", "n"],
        "tests": ["```\nassert tide(0) == 6\n```", "assert tide(1) == 1", "no tests"],
    },
    "math": {"solution": ["6 + 6 = 12.\nAnswer: 12", "The answer is 6.", "I do not know."]},
}
FIELDS = ("text", "topic", "prompt", "instruction", "input", "output", "question", "problem", "answer", "task")
NUM_ROWS = 24
# Some answers are cut off or garbage, and so are refused or labelled: that, too, must not depend on the neighbours.
SPEC = {"num_words": 40, "bad": 0.2, "duplicates": 0.1}


def fields(number):
    return {name: f"{name} {number} of the tides, and why they come twice a day" for name in FIELDS}


def generator_of(kind, **spec):
    made = method_class(kind)
    method = made(build(made.Spec, TABLES.get(kind, {}), "method"))
    says = SAYS.get(kind, {}).items()
    answers = [{"when": mark(method.spec.wording[call]), "say": say} for call, say in says]
    generator = pickle.loads(
        pickle.dumps(Canned(build(CannedSpec, {**SPEC, "answers": answers, **spec}, "generator"), method))
    )
    generator.open()
    return generator


def made(generator, batch):
    return asyncio.run(generator.make(batch)).to_pylist()


@pytest.fixture(scope="module")
def batch():
    return asks(NUM_ROWS, fields)


@pytest.fixture(scope="module")
def whole(batch):
    """What each method made of the batch, once for all the examples."""
    known = {}

    def find(kind):
        if kind not in known:
            known[kind] = made(generator_of(kind), batch)
        return known[kind]

    return find


@pytest.mark.parametrize("kind", KINDS)
def test_rows_have_the_declared_payload_and_text(kind, whole):
    generator = generator_of(kind)
    names = [f.name for f in generator.payload]
    assert "text" in names and len(set(names)) == len(names)
    assert generator.payload[names.index("text")].type == pa.string()
    rows = whole(kind)
    living = [row for row in rows if row["reject"] is None]
    assert living, [row["reject"] for row in rows]
    assert all(row["text"].strip() and row["tokens_out"] > 0 and row["finish"] for row in living)
    for row in rows:
        assert row["reject"] is None or row["reject"].startswith("generator:")
        if generator.program.keeps_turns:
            assert row["turns"], "refused rows keep their calls as evidence"
            for count in ("tokens_in", "tokens_out"):
                assert row[count] == sum(turn[count] for turn in row["turns"])
    json.dumps(generator.identity())


@pytest.mark.parametrize("kind", KINDS)
def test_kept_tokens_are_those_of_the_texts_that_the_row_keeps(kind, whole):
    generator, engine = generator_of(kind), generator_of(kind).open_engine()
    for number, row in enumerate(whole(kind)):
        if row["reject"] is not None:
            assert row.get("tokens_kept") is None
            continue
        if not generator.program.keeps_turns:
            assert "tokens_kept" not in row, "all tokens of the only call are kept"
            continue
        texts = generator.program.kept_texts(Ask(row["id"], row["seed"], fields(number)), row)
        written = " ".join(turn["text"] for turn in row["turns"])
        assert all(part in written for text in texts for part in text.split("\n")), "every text is the model's"
        answers = {turn["text"].strip(): turn["tokens_out"] for turn in row["turns"]}
        counts = [answers.get(text.strip(), engine.count_tokens(text.strip())) for text in texts if text.strip()]
        assert 0 < row["tokens_kept"] == min(sum(counts), row["tokens_out"])
        if len(row["turns"]) > len(texts):
            assert row["tokens_kept"] < row["tokens_out"], "verdicts and answers that lost are spent, not kept"


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=scaled(6))
@given(data=st.data())
def test_a_row_does_not_depend_on_its_neighbours(kind, whole, batch, data):
    chosen = data.draw(st.lists(st.integers(0, NUM_ROWS - 1), min_size=1, max_size=6, unique=True))
    rows = made(generator_of(kind), batch.take(pa.array(chosen)))
    assert rows == [whole(kind)[n] for n in chosen]


@pytest.mark.parametrize("kind", KINDS)
def test_engines_that_wait_give_the_same_rows(kind, whole, batch):
    waiting = generator_of(kind, pooled=True, seconds_per_ask=1e-6)
    assert not waiting.open_engine().synchronous
    assert made(waiting, batch) == whole(kind)
    assert made(waiting, batch) == whole(kind), "and the same ones twice"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "magpie"])
def test_a_row_with_nothing_in_it_is_refused_before_any_call(kind):
    blank = ["", " ", "\n\t \u3000\n", None]
    rows = made(generator_of(kind), asks(len(blank), lambda number: dict.fromkeys(FIELDS, blank[number])))
    assert [row["reject"] for row in rows] == ["generator:missing_field"] * len(blank)
    assert all(not row["tokens_in"] and not row.get("turns") for row in rows)


@pytest.mark.parametrize("kind", KINDS)
def test_other_seeds_make_other_rows_and_other_prompts_another_identity(kind, whole, batch):
    other = made(generator_of(kind), asks(NUM_ROWS, fields, lot=1))
    assert [row["tokens_out"] for row in other] != [row["tokens_out"] for row in whole(kind)]
    made_of = method_class(kind)
    assert issubclass(made_of, Method) and made_of.kind == kind
    method = made_of(build(made_of.Spec, {**TABLES.get(kind, {}), "system": "Be kind."}, "method"))
    assert method.identity() != generator_of(kind).program.identity()
