"""The canned generator: the whole text path without a model."""

import asyncio
import json
import pickle
import time

import pyarrow as pa
import pytest

from gristmill.engines.errors import EngineDead
from gristmill.generators.canned.generator import Canned, CannedSpec
from gristmill.generators.registry import generator_class
from gristmill.generators.text.generator import TextGenerator
from gristmill.generators.text.registry import method_class
from gristmill.records.errors import UserError
from gristmill.records.ids import lot_seeds, row_id
from gristmill.records.schema import ask_schema
from gristmill.records.spec import build
from tests.canned_drills import KIND, CannedWithDrills, DrillSpec

PRINT = "0" * 32


def asks(num_rows, fields=lambda i: {"text": f"thing {i}", "topic": f"topic {i}"}, lot=0):
    seeds = lot_seeds(PRINT, 0, lot, num_rows)
    rows = [
        {
            **{"id": row_id(PRINT, 0, lot, i), "lot": lot, "row": i, "seed": int(seeds[i]), "origin": "synthetic"},
            **{"generation": 0, "generator": "canned", "recipe": "r", "ask": json.dumps(fields(i))},
        }
        for i in range(num_rows)
    ]
    table = pa.Table.from_pylist(rows, schema=ask_schema())
    return table.combine_chunks().to_batches()[0] if num_rows else pa.RecordBatch.from_pylist([], schema=ask_schema())


def with_column(batch, name, values):
    at = batch.schema.get_field_index(name)
    return batch.set_column(at, batch.schema.field(name), pa.array(values, batch.schema.field(name).type))


def canned(method="prompt", **spec):
    made = method_class(method)
    generator = Canned(build(CannedSpec, spec, "generator"), made(made.Spec()))
    generator.open()
    return generator


def make(generator, batch):
    return asyncio.run(generator.make(batch))


def shingles(text, n=5):
    words = text.lower().split()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def jaccard(a, b):
    return len(a & b) / len(a | b)


def test_same_rows_same_order_same_text_however_batched():
    generator, batch = canned("textbook", duplicates=0.2, bad=0.1), asks(50)
    out = make(generator, batch)
    assert out.column("id") == batch.column("id") and out.column("reject").null_count == 50
    assert out.schema.names[-1] == "reject"
    parts = [make(generator, batch.slice(i, 10)) for i in range(0, 50, 10)]
    assert pa.Table.from_batches(parts).equals(pa.Table.from_batches([out]))
    assert make(pickle.loads(pickle.dumps(canned("textbook", duplicates=0.2, bad=0.1))), batch).equals(out)


def test_dead_rows_are_left_alone_and_bad_asks_cost_one_row_each():
    batch = with_column(asks(6), "reject", [None, "source:gone", None, None, None, None])
    texts = batch.column("ask").to_pylist()
    texts[2:5] = ["{not json", '["a list"]', '{"other": 1}']
    out = make(canned(), with_column(batch, "ask", texts)).to_pylist()
    assert [row["reject"] for row in out] == [
        *(None, "source:gone", "generator:malformed_ask", "generator:malformed_ask", "generator:missing_field", None)
    ]
    assert out[1]["text"] is None and out[1]["tokens_out"] is None and out[2]["tokens_out"] == 0
    assert out[0]["text"] and out[5]["finish"] == "stop"


def test_an_empty_batch():
    assert make(canned(), asks(0)).num_rows == 0


def test_good_texts_look_like_web_text_and_unlike_each_other():
    texts = make(canned(), asks(200)).column("text").to_pylist()
    lengths = [len(t.split()) for t in texts]
    assert 300 < sum(lengths) / 200 < 400 and min(lengths) > 200
    assert all(t.endswith(".") and "the" in t and t.count("\n") >= 2 for t in texts)
    sets = [shingles(t) for t in texts]
    assert max(jaccard(a, b) for i, a in enumerate(sets) for b in sets[:i]) < 0.2
    for text in texts:
        grams = [tuple(text.split()[i : i + 5]) for i in range(len(text.split()) - 4)]
        assert len(set(grams)) > 0.9 * len(grams)


def test_the_flavours_come_in_their_shares():
    rows = make(canned(duplicates=0.3, contaminated=0.1, bad=0.2), asks(500)).to_pylist()
    cut = [r for r in rows if r["finish"] == "length"]
    garbage = [r for r in rows if r["text"].startswith("#")]
    quoting = [r for r in rows if "def " in r["text"]]
    assert len(cut) + len(garbage) == pytest.approx(100, abs=20) and cut and garbage
    assert len(quoting) == pytest.approx(50, abs=15)
    special = {r["id"] for r in (*cut, *garbage, *quoting)}
    sets = [shingles(r["text"]) for r in rows if r["id"] not in special]
    twins = sum(any(jaccard(a, b) > 0.85 for j, b in enumerate(sets) if j != i) for i, a in enumerate(sets))
    assert twins == pytest.approx(150, abs=25)


def test_slowness_is_one_after_another_and_changes_no_identity():
    slow = canned(seconds_per_ask=0.01)
    begun = time.perf_counter()
    out = make(slow, asks(10))
    assert time.perf_counter() - begun >= 0.1
    assert out.equals(make(canned(), asks(10))) and slow.identity() == canned().identity()
    assert canned(num_words=100).identity() != canned().identity()


def test_needs():
    assert not canned().needs.pooled and canned(pooled=True).needs.pooled


@pytest.mark.parametrize("spec", [{"duplicates": 0.9, "bad": 0.2}, {"num_words": 0}, {"bad": -0.1}, {"dup": 1}])
def test_refused_specs(spec):
    with pytest.raises(UserError):
        canned(**spec)


def test_a_missing_benchmark_is_found_by_check():
    with pytest.raises(UserError, match="no such file"):
        canned(contamination="nope.jsonl")  # not needed, so not opened
        made = method_class("prompt")
        Canned(CannedSpec(contaminated=0.1, contamination="nope.jsonl"), made(made.Spec())).check()


class Dying:
    """Fails on its third call, as an engine does: for everybody."""

    synchronous = False

    def __init__(self):
        self.calls = self.cancelled = 0

    async def chat(self, prompt, sampling, seed, form=None):
        self.calls += 1
        if self.calls == 3:
            raise EngineDead("gone")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


class OnDying(TextGenerator):
    kind = "dying"

    def open_engine(self):
        return Dying()


def test_a_dead_engine_fails_the_lot_at_once_and_leaves_nothing_running():
    made = method_class("prompt")
    generator = OnDying(None, made(made.Spec()), max_in_flight=4)
    with pytest.raises(EngineDead):
        make(generator, asks(20))
    generator.open()
    begun = time.perf_counter()
    with pytest.raises(EngineDead, match="gone"):
        make(generator, asks(20))
    assert time.perf_counter() - begun < 5
    engine = generator._engine
    assert engine.calls <= 5 and engine.cancelled == engine.calls - 1


def test_generators_by_kind():
    assert generator_class("canned") is Canned
    with pytest.raises(UserError, match="canned"):
        generator_class("caned")


def test_a_class_by_module_and_name():
    assert generator_class(KIND) is CannedWithDrills
    with pytest.raises(UserError, match="no class 'Nothing'"):
        generator_class("tests.canned_drills:Nothing")


def test_drills_change_no_identity_and_no_other_row():
    method = method_class("prompt")
    drilled = CannedWithDrills(
        build(DrillSpec, {"pooled": True, "hang_on": "thing 99"}, "generator"), method(method.Spec())
    )
    drilled.open()
    assert drilled.identity() == canned().identity()
    assert make(drilled, asks(5)).equals(make(canned(), asks(5)))
    with pytest.raises(UserError, match="need a pool"):
        build(DrillSpec, {"crash_on": "thing"}, "generator")
