"""How an index is divided among actors: the parts hold all of it once, and answer together as one index does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.cluster.index.parts import divide
from gristmill.stages.dedup.bandindex import merge_answers
from gristmill.stages.dedup.contract import Duplicates
from tests.cluster.index.claims import Lots, NearLots


@pytest.fixture(scope="module")
def kinds() -> dict[str, Lots]:
    return {"bands": Lots(1, num_lots=9), "rows": NearLots(1, num_lots=9)}


@given(kind=st.sampled_from(["bands", "rows"]), num_actors=st.integers(1, 9), num_kept=st.integers(0, 100))
def test_parts_answer_as_one_index(kinds: dict[str, Lots], kind: str, num_actors: int, num_kept: int) -> None:
    lots = kinds[kind]
    dedup: Duplicates = lots.dedup
    signed = np.concatenate([lots.rows(lot)[0] for lot in range(9)])
    keys, owners = lots.keys(signed), np.arange(7, 7 + len(signed))
    claims, queries = (keys[:num_kept], owners[:num_kept]), keys[num_kept:]
    whole = dedup.new_index(dedup.bands)
    whole.insert(*claims)
    parts, answers, num_keys = divide(dedup, num_actors), [], 0
    assert len(parts) == (num_actors if kind == "rows" else min(num_actors, dedup.bands))
    for part in parts:
        index = dedup.new_index(part.stop - part.first)
        columns, its_owners = part.columns(claims)
        index.insert(columns.T, its_owners)
        np.testing.assert_array_equal(part.claims(claims)[0], columns.T)
        num_keys += columns.size
        answers.append(index.query(part.queries(queries)))
    assert num_keys == claims[0].size
    np.testing.assert_array_equal(merge_answers(answers), whole.query(queries))
