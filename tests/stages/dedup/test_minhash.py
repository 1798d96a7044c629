import string

import datasketch
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gristmill.records.normal_form import normal_form
from gristmill.records.words import words
from gristmill.stages.dedup import minhash
from tests.profiles import scaled

FIXED = [[1004714173, 2071072094, 1262892054, 47998824], [2576229305, 598994679, 1372846345, 3605991911]]
WORDS = st.lists(st.text(string.ascii_letters + string.digits, min_size=1, max_size=40), max_size=60).map(" ".join)
TEXTS = st.one_of(
    WORDS, st.text(max_size=300), st.text("aBİi1 .’é我、の한กิ🎉ﬁ\u00a0\u2014\u0301\u0307\u0323\u00ad", max_size=120)
)


def sketch(hashes: np.ndarray, num_perm: int, seed: int = 1) -> np.ndarray:
    peer = datasketch.MinHash(num_perm, seed=seed, scheme="affine32", hashfunc=int)
    peer.update_batch(hashes.tolist())
    return peer.hashvalues


@settings(max_examples=scaled(200), deadline=None)
@given(
    st.lists(st.none() | TEXTS, max_size=8), st.sampled_from([1, 7, 16, 128, 130]), st.integers(1, 7), st.integers(0, 3)
)
@example([""], 128, 5, 1)
@example(["a" * 16 + " " + "b" * 17, "x" * 4096], 128, 1, 1)
def test_signatures_are_those_of_datasketch(texts: list[str | None], num_perm: int, ngram: int, seed: int) -> None:
    expected = np.array([sketch(minhash.shingle_hashes(t or "", ngram), num_perm, seed) for t in texts], np.uint32)
    expected = expected.reshape(len(texts), num_perm)
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        signed = minhash.signatures(pa.array(texts, kind), num_perm, ngram, seed)
        assert signed.dtype == np.uint32
        np.testing.assert_array_equal(signed, expected)


@settings(max_examples=scaled(100), deadline=None)
@given(st.lists(st.none() | TEXTS, min_size=1, max_size=10), st.data())
def test_slices_and_chunks_do_not_matter(texts: list[str | None], data: st.DataObject) -> None:
    whole = minhash.signatures(pa.array(texts, pa.string()), 32)
    first = data.draw(st.integers(0, len(texts)))
    stop = data.draw(st.integers(first, len(texts)))
    for kind in (pa.string(), pa.large_string()):
        column = pa.array(texts, kind)
        np.testing.assert_array_equal(minhash.signatures(column[first:stop], 32), whole[first:stop])
        chunked = pa.chunked_array([column[:first], column[first:stop], column[stop:]])
        np.testing.assert_array_equal(minhash.signatures(chunked, 32), whole)


@settings(max_examples=scaled(300), deadline=None)
@given(TEXTS, st.integers(1, 4))
def test_shingles_are_the_n_grams_of_the_documented_words(text: str, ngram: int) -> None:
    parts = words(text)
    # A space around every word keeps the words as they are, so both texts have the same shingles in the same order.
    hashes = minhash.shingle_hashes(text, ngram)
    np.testing.assert_array_equal(hashes, minhash.shingle_hashes(" ".join(parts), ngram) if parts else hashes)
    width = min(ngram, len(parts))
    grams = (
        [tuple(parts[i : i + width]) for i in range(len(parts) - width + 1)]
        if parts
        else [()] * bool(normal_form(text))
    )
    assert len(hashes) == len(grams)
    assert len(set(hashes.tolist())) == len(set(grams))  # equal n-grams, equal hashes; others differ (but for 2^-32)
    for gram, value in zip(grams, hashes) if parts else ():
        assert minhash.shingle_hashes("!".join(gram), ngram).tolist() == [value]


def test_a_text_without_words_equals_only_what_is_equal() -> None:
    signs = ["∑ ∫ √ ∞ ≤", "→ ⇒ ⊂ ∈ ∀", "!!!", "! ! !", "???", "😀", "😡", "", "—"]
    texts = [*signs, "∑  ∫ √\n∞ ≤ ", " → ⇒ ⊂ ∈ ∀", "！！！", "！\t! !", "？？?", "😀\ufe0f", "😡", " \u00ad\n", "-"]
    keys = [row.tobytes() for row in minhash.signatures(pa.array(texts), 16)]
    assert len(set(keys)) == len(signs) and keys[len(signs) :] == keys[: len(signs)]


def test_signatures_of_ascii_are_fixed() -> None:
    # Those of releases since 0.2.0: runs are compared with earlier ones.
    signed = minhash.signatures(pa.array(["The quick brown fox, it's 42!", "one two three four five six seven"]), 4)
    assert signed.tolist() == FIXED


def test_bytes_under_a_null_do_not_count() -> None:
    content = pa.py_buffer(b"hidden words here")
    places = pa.py_buffer(np.array([0, 6, 12, 17], np.int32).tobytes())
    column = pa.Array.from_buffers(pa.string(), 3, [pa.py_buffer(b"\x05"), places, content])
    signed = minhash.signatures(column, 16)
    assert (signed[1] == 0xFFFFFFFF).all() and (signed[0] != 0xFFFFFFFF).any()


def test_broken_utf8_is_read_without_harm() -> None:
    pieces = [b"\xff", b"abc\xe6", b"\xf0\x9f", b"\x80\x80", b"\xc3", b"\xe6\x88\x91" * 5]
    content = b"".join(pieces)
    places = np.cumsum([0] + [len(p) for p in pieces]).astype(np.int32)
    column = pa.Array.from_buffers(
        pa.string(), len(pieces), [None, pa.py_buffer(places.tobytes()), pa.py_buffer(content)]
    )
    assert minhash.signatures(column, 16).shape == (6, 16)


def test_permutations_are_those_of_datasketch() -> None:
    for num_perm, seed in ((1, 1), (128, 1), (256, 42)):
        peer = datasketch.MinHash(num_perm, seed=seed, scheme="affine32").permutations
        np.testing.assert_array_equal(np.array(minhash.permutations(num_perm, seed)), peer)


def test_signatures_answer_queries_of_plain_datasketch() -> None:
    text = " ".join(f"word{i}" for i in range(300))
    column = pa.array([text, text + " and a tail", "something else " * 20])
    sketches = [minhash.to_datasketch(s) for s in minhash.signatures(column)]
    index = datasketch.MinHashLSH(threshold=0.8, num_perm=128)
    index.insert("first", sketches[0])
    assert index.query(sketches[1]) == ["first"] and index.query(sketches[2]) == []
    mine = datasketch.MinHash(128, hashfunc=int)
    mine.update_batch(minhash.shingle_hashes(text).tolist())
    assert mine.jaccard(sketches[0]) == 1.0
    assert 0.9 < mine.jaccard(sketches[1]) < 1.0


@pytest.mark.parametrize("num_perm", [2, 3, 16, 64, 100, 128, 256])
def test_optimal_bands_are_those_of_datasketch(num_perm: int) -> None:
    for threshold in [0.0, 0.01, *np.arange(0.1, 1.0, 0.1).round(1).tolist(), 0.85, 0.99, 1.0]:
        try:
            peer = datasketch.MinHashLSH(threshold=threshold, num_perm=num_perm)
        except ValueError:  # a single band
            with pytest.raises(ValueError, match="one band"):
                minhash.optimal_bands(threshold, num_perm)
            continue
        assert minhash.optimal_bands(threshold, num_perm) == (peer.b, peer.r)


def test_default_bands() -> None:
    assert minhash.optimal_bands(0.8, 128) == (9, 13)


@settings(max_examples=scaled(50), deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_band_keys_are_equal_where_bands_are(bands: int, rows: int, seed: int) -> None:
    signed = np.random.default_rng(seed).integers(0, 2, (30, bands * rows + 1), np.uint32)
    keys = minhash.band_keys(signed, bands, rows)
    assert keys.dtype == np.uint64 and keys.shape == (30, bands)
    for band in range(bands):
        parts = [tuple(s) for s in signed[:, band * rows : band * rows + rows].tolist()]
        assert len(set(keys[:, band].tolist())) == len(set(parts))
        assert len(set(zip(keys[:, band].tolist(), parts))) == len(set(parts))
    assert not set(keys[:, 0].tolist()) & set(keys[:, 1:].ravel().tolist())


def test_band_keys_refuses_too_many_bands() -> None:
    with pytest.raises(ValueError, match="need more than 16 permutations"):
        minhash.band_keys(np.zeros((1, 16), np.uint32), 3, 6)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="texts must be strings, not int64"):
        minhash.signatures(pa.array([1, 2]))
