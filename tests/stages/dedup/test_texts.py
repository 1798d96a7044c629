import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from gristmill.records.errors import UserError
from gristmill.records.schema import REJECT
from gristmill.records.spec import build
from gristmill.stages.dedup import minhash
from gristmill.stages.dedup.bloomindex import BloomIndex
from gristmill.stages.dedup.contract import MAX_BLOOM_ERROR, MIN_BLOOM_ERROR
from gristmill.stages.dedup.texts import Dedup, DedupSpec
from tests.bench.corpus import documents


def batch(texts: list[str | None], rejects: list[str | None], column: str = "text") -> pa.RecordBatch:
    schema = pa.schema([pa.field(column, pa.string()), REJECT])
    return pa.RecordBatch.from_arrays([pa.array(texts, pa.string()), pa.array(rejects, pa.string())], schema=schema)


def test_adds_signatures_for_the_living() -> None:
    stage = pickle.loads(pickle.dumps(Dedup(DedupSpec(num_perm=32, ngram=2))))
    stage.open()
    texts = ["some words here", "dead", None, "", "some words here"]
    answer = stage.run(batch(texts, [None, "verify:short", None, None, None]))
    assert answer.schema.names == ["text", "minhash", "duplicate_of", "reject"]
    assert answer.schema.field("minhash").type == pa.list_(pa.uint32(), 32)
    assert answer.column("minhash").is_null().to_pylist() == [False, True, False, False, False]
    assert answer.column("duplicate_of").null_count == 5
    assert answer.column("reject").to_pylist() == [None, "verify:short", None, None, None]
    expected = minhash.signatures(pa.array(texts), 32, 2)
    assert answer.column("minhash")[4].as_py() == expected[0].tolist()
    assert stage.run(batch([], [])).schema == answer.schema


def test_keys_of_the_stored_column_whatever_its_shape() -> None:
    stage = Dedup(DedupSpec())
    texts = documents(20).to_pylist()
    column = stage.run(batch(texts, [None] * 5 + ["x:y"] * 3 + [None] * 12)).column("minhash")
    expected = minhash.band_keys(minhash.signatures(pa.array(texts)), 9, 13)
    expected[5:8] = 0
    assert (stage.bands, stage.rows) == (9, 13)
    np.testing.assert_array_equal(stage.keys(column), expected)
    np.testing.assert_array_equal(stage.keys(column[3:15]), expected[3:15])
    np.testing.assert_array_equal(stage.keys(pa.chunked_array([column[:6], column[6:]])), expected)
    np.testing.assert_array_equal(stage.keys(column.drop_null()), np.delete(expected, [5, 6, 7], axis=0))
    assert stage.keys(pa.chunked_array([], column.type)).shape == (0, 9)


def test_reads_the_column_it_is_told() -> None:
    stage = Dedup(DedupSpec(column="answer"))
    assert stage.reads() == ["answer"]
    assert stage.run(batch(["a b c"], [None], "answer")).column("minhash").null_count == 0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"threshold": 0}, "threshold must lie between 0 and 1"),
        ({"threshold": 1.0}, "threshold must lie between 0 and 1"),
        ({"num_perm": 8}, "num_perm must lie in 16 to 4096"),
        ({"ngram": 0}, "ngram must lie in 1 to 1000"),
        ({"column": ""}, "column must name"),
        ({"index": "cuckoo"}, "'cuckoo' is not one of 'exact', 'bloom'"),
        ({"bloom_rows": 5}, 'go with index = "bloom"'),
        ({"index": "bloom"}, "needs bloom_rows"),
        ({"index": "bloom", "bloom_rows": 5}, "needs bloom_rows"),
        ({"index": "bloom", "bloom_rows": 0, "bloom_error": 0.1}, "bloom_rows must lie in 1 to"),
        ({"index": "bloom", "bloom_rows": 5, "bloom_error": 0.5}, "bloom_error must lie in 1e-09 to 0.1"),
    ],
)
def test_spec_refuses(table: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(DedupSpec, table, "stages[0]")


def test_check_refuses_a_single_band() -> None:
    Dedup(DedupSpec()).check()
    with pytest.raises(UserError, match=r"threshold 0\.99 with 128 permutations leaves one band"):
        Dedup(DedupSpec(threshold=0.99)).check()


def test_the_smallest_error_allowed_can_be_kept() -> None:
    for error in (MIN_BLOOM_ERROR, MAX_BLOOM_ERROR):
        stage = Dedup(DedupSpec(threshold=0.4, index="bloom", bloom_rows=1000, bloom_error=error))  # 32 bands
        stage.check()
        assert not stage.is_exact and isinstance(stage.new_index(2), BloomIndex)
        assert stage.error_at(500) < stage.error_at(1000) <= error * 1.0001 < stage.error_at(2000)
    assert Dedup(DedupSpec()).is_exact and Dedup(DedupSpec()).error_at(10**9) == 0


def test_import_is_light() -> None:
    code = (
        "import sys, gristmill.stages.dedup.texts, gristmill.stages.dedup.bandindex, "
        "gristmill.stages.dedup.bloomindex; "
        "print(sorted({'numba', 'scipy', 'datasketch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
