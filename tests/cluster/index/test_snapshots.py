import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.cluster.index.snapshots import (
    BadSnapshot,
    Stretch,
    cover,
    cut,
    decode,
    encode,
    identity,
    lots_of,
    name_of,
    row_bytes,
)
from gristmill.records.lots import Plan
from gristmill.stages.dedup.texts import Dedup, DedupSpec

PLAN = Plan("ab" * 16, 100, None, 1, "canned")
WHOSE = identity(PLAN, Dedup(DedupSpec(threshold=0.5, num_perm=16)))


def claims(first: int, stop: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    owners = np.sort(rng.choice(np.arange(first * 100, stop * 100), 40, replace=False))
    return rng.integers(0, 2**64, (40, WHOSE["bands"]), np.uint64), owners


@given(st.dictionaries(st.tuples(st.integers(0, 30), st.integers(0, 30)), st.integers(0, 9)), st.integers(0, 30))
def test_every_lot_is_covered_once(spans: dict[tuple[int, int], int], num_lots: int) -> None:
    names = {name_of(*span): size for span, size in spans.items()}
    stretches = cover(names, num_lots)
    assert [lot for s in stretches for lot in range(s.first, s.stop)] == list(range(num_lots))
    for stretch in stretches:
        assert len(stretch) > 0
        if stretch.name is not None:
            assert stretch.name in names and lots_of(stretch.name) == (stretch.first, stretch.stop)
        else:  # nothing that could have been used begins there
            assert not any(a == stretch.first and a < b <= num_lots for a, b in spans)
        pieces = list(cut(stretch, 4))
        assert [lot for s in pieces for lot in range(s.first, s.stop)] == list(range(stretch.first, stretch.stop))
        assert all(1 <= len(s) <= 4 for s in pieces)


def test_names() -> None:
    assert lots_of(name_of(3, 123456789)) == (3, 123456789)
    for name in ("index/claims-3-4.bin", "index/claims-00000003-00000004", "kept/part-00000003.parquet", "index/x"):
        assert lots_of(name) is None
    assert cover({}, 7) == [Stretch(0, 7)] and cover({}, 0) == []


def test_what_was_written_is_read() -> None:
    keys, owners = claims(5, 8)
    data = encode(WHOSE, 5, 8, (keys, owners))
    assert len(data) - len(data.partition(b"\n")[0]) - 1 == 40 * row_bytes(WHOSE["bands"])
    read = decode(data, WHOSE, 5, 8)
    np.testing.assert_array_equal(read[0], keys)
    np.testing.assert_array_equal(read[1], owners)
    empty = encode(WHOSE, 5, 8, (keys[:0], owners[:0]))
    assert decode(empty, WHOSE, 5, 8)[0].shape == (0, WHOSE["bands"])


@given(st.data())
def test_a_changed_byte_is_never_believed(data: st.DataObject) -> None:
    whole = encode(WHOSE, 5, 8, claims(5, 8))
    kind = data.draw(st.sampled_from(["flip", "cut", "longer"]))
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    if kind == "flip":
        changed[at] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del changed[at:]
    else:
        changed[at:at] = b"0"
    with pytest.raises(BadSnapshot):
        decode(bytes(changed), WHOSE, 5, 8)


@pytest.mark.parametrize("key", sorted(WHOSE))
def test_another_index_is_not_ours(key: str) -> None:
    data = encode(WHOSE, 5, 8, claims(5, 8))
    other = {**WHOSE, key: "other" if isinstance(WHOSE[key], str) else WHOSE[key] + 1}
    with pytest.raises(BadSnapshot, match=f"of another index \\({key} is"):
        decode(data, other, 5, 8)
    with pytest.raises(BadSnapshot, match="of another index \\(first is 5, not 6\\)"):
        decode(data, WHOSE, 6, 8)
    head = json.loads(data.partition(b"\n")[0])
    assert head["rows"] == 40 and set(WHOSE) < set(head)


def test_other_keys_of_the_same_signatures_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later version may hash bands in another way, and the fingerprint of a run does not know."""
    from gristmill.stages.dedup import minhash

    monkeypatch.setattr(minhash, "band_keys", lambda s, b, r: np.zeros((1, b), np.uint64))
    assert identity(PLAN, Dedup(DedupSpec(threshold=0.5, num_perm=16)))["probe"] != WHOSE["probe"]
