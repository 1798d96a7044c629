"""Gates inside the loop: what they drop, what they count, and that the cap is held against what they left."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.generators.chains import loop
from gristmill.generators.chains.cells import Cell
from gristmill.generators.chains.contract import ChainFamily
from gristmill.generators.chains.gates.gate import make_gates
from gristmill.generators.chains.loop import Fork, Outcome, Pool, generations, regimes
from gristmill.generators.chains.work import do, stored_rows, unit_name
from gristmill.records.errors import UserError
from gristmill.records.mixing.regimes import REAL, SYNTHETIC, Regime, preset
from gristmill.records.readers.parquet import read_parquet
from gristmill.records.stores.opening import open_store
from tests.generators.chains.test_chains import BREAST_CANCER, SMALL, family, run
from tests.profiles import scaled


def gated(
    made: ChainFamily, tables: Sequence[dict[str, Any]], regime: Regime, n: int, last: int = 3, pool: Pool | None = None
) -> Iterator[Outcome]:
    gates = make_gates(tables, made)
    return generations(made, regimes(regime, ()), n, range(1, last + 1), 0, 0, pool or Pool(), gates)


class Repeater(type(family("ngram"))):  # type: ignore[misc]
    """Writes few different rows, half of them real ones."""

    def sample(self, model: Any, num: int, random: np.random.Generator) -> np.ndarray:
        made = super().sample(model, 20, random)[0]
        return np.concatenate([made, self._train[:20]])[random.integers(0, 40, num)][None]


def repeater() -> ChainFamily:
    found = Repeater(family("ngram").spec)
    found.open()
    return found


def texts(made: Any, rows: Any) -> list[str]:
    return made.table(rows).column("text").to_pylist()


@pytest.mark.parametrize("name", ["replace", "accumulate", "accumulate-subsample"])
@pytest.mark.parametrize("shortfall", ["shrink", "resample"])
def test_dedup_leaves_each_row_once_and_real_rows_win(name: str, shortfall: Any) -> None:
    made, pool = repeater(), Pool()
    real = set(texts(made, made.every_real()))
    regime = replace(preset(name), shortfall=shortfall)
    seen: list[str] = []
    for outcome in gated(made, [{"kind": "dedup"}], regime, 100, pool=pool):
        kept = texts(made, outcome.rows)
        assert len(set(kept)) == len(kept) == outcome.num_kept <= 100 and not set(kept) & real
        assert not (set(kept) & set(seen)) or name == "replace"
        share = outcome.measures["kept_share_dedup"][0]
        assert share <= 20 / 40 and (shortfall == "resample" or share == outcome.num_kept / 100)
        seen += kept


gate_tables = st.lists(
    st.sampled_from(
        [
            {"kind": "labels", "keep_right": 0.05, "keep_wrong": 0.9},
            {"kind": "labels", "keep_right": 0.6, "keep_wrong": 0.0},
            {"kind": "verifier", "accuracy": 0.3},
        ]
    ),
    min_size=1,
    max_size=3,
)
capped = st.builds(
    lambda pool, real, share, cap, short: Regime(
        pool=pool,
        window=2 if pool == "window" else 0,
        real="fresh" if pool == "accumulate" else real,
        real_fraction=share,
        synthetic_max=cap,
        shortfall=short,
    ),
    st.sampled_from(["replace", "accumulate", "subsample", "window"]),
    st.sampled_from(["fixed", "fresh"]),
    st.floats(0.1, 0.9),
    st.floats(0.05, 0.95),
    st.sampled_from(["fail", "shrink", "resample", "real", "reweight"]),
)


@settings(max_examples=scaled(60), deadline=None)
@given(capped, gate_tables, st.integers(4, 60))
def test_the_cap_holds_on_what_is_fitted_to_whatever_gates_drop(
    regime: Regime, tables: list[dict[str, Any]], n: int
) -> None:
    """Counted from the very pieces that `fit` is given, by marking the rows that models made."""
    made = family("linear_classifier", dims=2)
    shares: list[float] = []
    plain = type(made).fit

    class Marked(type(made)):  # type: ignore[misc]
        def sample(self, model: Any, num: int, random: np.random.Generator) -> np.ndarray:
            rows = super().sample(model, num, random)
            rows[:, :, 1] = 1000.0 + rows[:, :, 1]
            return rows

        def fit(self, pieces: Any, random: np.random.Generator) -> Any:
            heavy = {True: 0.0, False: 0.0}
            for piece in pieces:
                line = np.concatenate(piece.batches, axis=1)[0]
                rows = line if piece.rows is None else line[piece.rows[0]]
                assert len(rows) == piece.num
                for is_made in (True, False):
                    heavy[is_made] += piece.weight * np.count_nonzero((rows[:, 1] > 500) == is_made)
            shares.append(heavy[True] / sum(heavy.values()))
            return plain(self, pieces, random)

    marked = Marked(made.spec)
    told = []
    try:
        for outcome in gated(marked, tables, regime, n, 4):
            told.append(outcome.mixture.synthetic_share)
    except UserError:
        pass  # the policy could not keep the cap, and said so
    assert all(share <= regime.synthetic_max + 1e-9 for share in shares)
    assert shares[: len(told)] == pytest.approx(told)


def test_a_stage_of_a_recipe_as_a_gate() -> None:
    made = family("model")
    stage = {"kind": "stage", "stage": {"kind": "constraints", "rules": ["mean_radius <= 15"], "name": "small"}}
    outcomes = list(gated(made, [stage], Regime(shortfall="resample"), 60))
    for outcome in outcomes:
        assert outcome.num_kept == 60 and max(outcome.rows.column("mean_radius").to_pylist()) <= 15
    assert 0.3 < outcomes[0].measures["kept_share_small"][0] < 1 == outcomes[2].measures["kept_share_small"][0]
    # Small tumours only: their mean leaves that of fresh real rows behind.
    assert outcomes[-1].measures["drift"][0] > 0.2


@pytest.mark.parametrize(
    ("kind", "table", "message"),
    [
        ("gaussian", {"kind": "dedup"}, "reads rows of a table"),
        ("ngram", {"kind": "dedup", "columns": ["txt"]}, "did you mean 'text'"),
        ("model", {"kind": "stage", "stage": {"kind": "rules"}}, "reads column 'text', which the rows do not have"),
        ("ngram", {"kind": "stage", "stage": {"kind": "dedup"}}, "use kind = 'dedup'"),
        ("ngram", {"kind": "stage", "stage": {"kind": "judge", "model": "a/b"}}, "pool of engines"),
        ("ngram", {"kind": "stage", "rules": []}, "write \\{ kind"),
        ("linear_classifier", {"kind": "labels", "keep_right": 2.0}, "keep_right must be in"),
    ],
)
def test_gates_that_cannot_judge_are_refused(kind: str, table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_gates([table], family(kind))


def test_labels_are_told_as_they_are() -> None:
    made = family("linear_classifier", dims=10, made_noise=0.3)
    gates = [{"kind": "labels", "keep_right": 0.8, "keep_wrong": 0.2}]
    found = next(gated(made, gates, Regime(shortfall="resample"), 20_000)).measures
    assert found["keep_right"][0] == pytest.approx(0.8, abs=0.02)
    assert found["keep_wrong"][0] == pytest.approx(0.2, abs=0.02)
    assert found["breakdown_share"][0] == pytest.approx(0.8, abs=0.02)
    assert found["share_wrong"][0] == pytest.approx(0.3, abs=0.03)
    assert found["share_wrong_kept"][0] == pytest.approx(0.3 * 0.2 / (0.3 * 0.2 + 0.7 * 0.8), abs=0.02)


def test_a_gated_chain_of_units_is_the_chain_in_one_go(tmp_path: Any) -> None:
    """Heavy units load the pool that dedup looks back at from the store; keys part what keeps other rows."""
    table = {"name": "x", "kind": "model", "spec": BREAST_CANCER, "regime_name": "x", "n": 40, "generations": 3}
    table |= {"chains": 1, "seed": 0, "gates": ({"kind": "dedup"},)}
    store = open_store(str(tmp_path))
    regime = replace(preset("accumulate"), shortfall="shrink")
    cell = Cell(**{**table, "regime": regime})
    whole = list(gated(family("model"), cell.gates, regime, 40))
    for unit, outcome in zip(cell.units(), whole, strict=True):
        do(unit, store)
        told = read_parquet(io.BytesIO(store.read(unit_name(unit.key))))
        assert told.column("num_kept").to_pylist() == [outcome.num_kept]
        kept = read_parquet(io.BytesIO(store.read(stored_rows(unit.key, told.schema.metadata))))
        assert kept.equals(outcome.rows.combine_chunks())
    other = Cell(**{**table, "regime": replace(regime, shortfall="resample")})
    assert not set(other.keys(0)) & set(cell.keys(0))
    again = Cell(**{**table, "regime": replace(preset("replace"), shortfall="shrink")})
    assert again.keys(0)[0] == cell.keys(0)[0] and again.keys(0)[1] != cell.keys(0)[1]


@pytest.mark.parametrize("kind", ["gaussian", "ngram"])
def test_a_fork_may_want_what_the_regime_before_left_behind(kind: str) -> None:
    """Replace forgets every batch but the last; a rescue by accumulating takes them all."""
    rescued = run(family(kind), preset("replace"), SMALL[kind][1], 4, (Fork(4, preset("accumulate")),))
    sources = [s for part in rescued[3].mixture.parts for s in part.sources]
    assert [s.generation for s in sources if s.origin == SYNTHETIC] == [1, 2, 3]
    assert [s.generation for s in sources if s.origin == REAL] == [1]


def test_real_rows_that_are_not_there_do_not_count() -> None:
    """A cap of 1 % asks for more real rows than the text has: 99 for each synthetic one."""
    regime = Regime(real="fresh", real_fraction=0.5, synthetic_max=0.01, shortfall="real")
    with pytest.raises(UserError, match=r"generation 2: the regime needs .* real rows"):
        run(family("ngram"), regime, 300, 3)


def test_stages_of_randomness_are_apart() -> None:
    stages = [loop.DATA, loop.MIX, loop.FIT, loop.SAMPLE, loop.GATE, loop.MEASURE, loop.FRESH]
    assert len(set(stages)) == len(stages)
