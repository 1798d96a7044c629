"""Chains of every family: what the loop promises, and what a broken loop would show."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from gristmill.evaluation.collapse.chains import ChainMetrics
from gristmill.generators.chains import loop
from gristmill.generators.chains.cells import Cell
from gristmill.generators.chains.contract import ChainContext, ChainFamily, Piece
from gristmill.generators.chains.gates.gate import make_gates
from gristmill.generators.chains.loop import Fork, Outcome, Pool, generations, regimes
from gristmill.generators.chains.registry import KINDS as ALL
from gristmill.generators.chains.registry import chain_class
from gristmill.generators.families.contract import stream
from gristmill.jobs.recipes.toml_file import load_table
from gristmill.records.errors import UserError
from gristmill.records.mixing.regimes import PRESETS, Regime, preset
from gristmill.records.spec import build

BREAST_CANCER = {
    "model": {"kind": "copula"},
    "data": {"path": "package:breast-cancer", "part": "train"},
    "holdout": {"path": "package:breast-cancer", "part": "holdout"},
    "schema": load_table("package:schemas/breast-cancer"),
}
SMALL: dict[str, tuple[dict[str, Any], int]] = {
    "model": (BREAST_CANCER, 60),
    "gaussian": ({}, 20),
    "gmm": ({"components": 2, "steps": 5}, 30),
    "kde": ({}, 20),
    "multinomial": ({"categories": 12}, 20),
    "linear_classifier": ({"dims": 4}, 20),
    "linear_regression": ({"dims": 3}, 20),
    "ngram": ({"length": 8}, 300),
}
CAUSAL_LM = {"data": {"path": "package:pydoc"}, "holdout": {"path": "package:pydoc"}}
KINDS = [kind for kind in ALL if not chain_class(kind).is_served]  # those that write by an engine: test_study_lm.py


def family(kind: str, **changes: Any) -> ChainFamily:
    found = chain_class(kind)
    made = found(build(found.Spec, {**SMALL[kind][0], **changes}, "family"), ChainContext(ChainMetrics()))
    made.open()
    return made


def run(
    made: ChainFamily, regime: Regime, n: int, last: int, forks: tuple[Fork, ...] = (), seed: int = 0, block: int = 0
) -> list[Outcome]:
    return list(generations(made, regimes(regime, forks), n, range(1, last + 1), seed, block, Pool()))


def same(left: Outcome, right: Outcome) -> bool:
    return all(np.array_equal(left.measures[m], right.measures[m], equal_nan=True) for m in left.measures)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["replace", "accumulate", "accumulate-subsample", "synthetic-augmentation"])
def test_the_same_chain_twice_is_the_same(kind: str, name: str) -> None:
    n = SMALL[kind][1]
    first, second = (run(family(kind), preset(name), n, 3) for _ in range(2))
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    assert all(np.isfinite(v).all() for v in first[0].measures.values())
    assert {len(v) for v in first[0].measures.values()} == {family(kind).block}


@pytest.mark.parametrize("kind", KINDS)
def test_regimes_have_the_first_generation_in_common(kind: str) -> None:
    n = SMALL[kind][1]
    first = [run(family(kind), regime, n, 2) for regime in PRESETS.values()]
    assert all(same(first[0][0], other[0]) for other in first)
    assert not same(first[0][1], first[1][1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_fork_shares_what_comes_before(kind: str) -> None:
    n, made = SMALL[kind][1], family(kind)
    plain = run(made, preset("replace"), n, 4)
    rescued = run(made, preset("replace"), n, 4, (Fork(3, Regime(real="fresh", real_fraction=0.5)),))
    assert same(plain[0], rescued[0]) and same(plain[1], rescued[1]) and not same(plain[2], rescued[2])
    assert rescued[2].mixture.num_real == n // 2 and plain[2].mixture.num_real == 0


def test_seeds_and_blocks_differ() -> None:
    made = family("gaussian")
    plain, other, beside = (
        run(made, preset("replace"), 20, 1, seed=s, block=b)[0] for s, b in ((0, 0), (1, 0), (0, 1))
    )
    assert not same(plain, other) and not same(plain, beside)


def variance_of_logs(draw: Callable[[int, int], np.random.Generator], last: int = 40) -> float:
    """Of log v after `last` generations over 512 chains, with the random numbers that `draw` gives a generation."""
    made, found = family("gaussian"), []
    for block in range(2):
        rows = draw(block, 1).standard_normal((made.block, 100, 1))
        for generation in range(1, last + 1):
            model = made.fit([_piece(made, rows)], draw(block, generation))
            rows = made.sample(model, 100, draw(block, generation + 1))
        found.append(made.measure(model, rows, draw(block, 0))["log_variance"])
    return float(np.concatenate(found).var())


def _piece(made: ChainFamily, rows: np.ndarray) -> Any:
    from gristmill.generators.chains.contract import Piece

    return Piece((made.hold(rows),), rows.shape[1], None, 1.0)


def spread_of_the_loop() -> float:
    """The same variance, of the chain loop."""
    chains = [run(family("gaussian"), preset("replace"), 100, 40, block=b)[-1] for b in range(2)]
    return float(np.concatenate([c.measures["log_variance"] for c in chains]).var())


LAW = 40 * 2 / 98  # log v spreads by so much over 40 generations of 100 rows; of one seed by the square of 40


def test_a_seed_that_comes_again_in_every_generation_is_found() -> None:
    right = variance_of_logs(lambda block, generation: stream(0, block, generation))
    wrong = variance_of_logs(lambda block, generation: stream(0, block))
    assert 0.8 * LAW < right < 1.25 * LAW and wrong > 5 * LAW


def test_the_loop_has_new_random_numbers_in_every_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the test can tell: the loop with one stream for a stage in all generations is far from the law."""
    assert 0.8 * LAW < spread_of_the_loop() < 1.25 * LAW
    monkeypatch.setattr(loop, "stream", lambda seed, block, generation, stage: stream(seed, block, stage))
    assert spread_of_the_loop() > 5 * LAW


@pytest.mark.parametrize("kind", KINDS)
def test_no_stream_is_used_twice(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over blocks, generations and stages of a chain, each family, with gates where it has some."""
    asked: list[tuple[int, ...]] = []

    def told(seed: int, *keys: int) -> np.random.Generator:
        asked.append((seed, *keys))
        return stream(seed, *keys)

    monkeypatch.setattr(loop, "stream", told)
    for block in range(2):
        run(family(kind), preset("fresh-data"), SMALL[kind][1], 3, block=block)
    assert len(set(asked)) == len(asked) >= 2 * 3 * 4


def test_a_chain_that_degenerates_goes_on() -> None:
    """Two rows a generation: the variance falls to nothing, and is told as it is."""
    outcomes = run(family("gaussian"), preset("replace"), 2, 400)
    last = outcomes[-1].measures
    assert np.isfinite(last["variance"]).all() and np.median(last["variance"]) < 1e-30
    absorbed = run(family("multinomial"), preset("replace"), 5, 100)[-1].measures
    assert (absorbed["support"] == 1).mean() > 0.99 and absorbed["gini_simpson"].max() < 0.7


def test_gates_count_what_they_reject() -> None:
    made = family("gaussian")
    gates = make_gates([{"kind": "interval", "low": -1.0, "high": 1.0}], made)

    def outcomes(shortfall: Any) -> Iterator[Outcome]:
        regime = Regime(shortfall=shortfall)
        return generations(made, regimes(regime, ()), 200, range(1, 4), 0, 0, Pool(), gates)

    shrunk, again = list(outcomes("shrink")), list(outcomes("resample"))
    assert 100 < shrunk[0].num_kept < 170 and shrunk[1].mixture.num_rows == shrunk[0].num_kept
    assert again[0].num_kept == 200 and again[0].num_made in (400, 600) and again[1].mixture.num_rows == 200
    assert shrunk[1].mixture.shortfall == "shrink" and np.abs(again[0].rows).max() <= 1.0
    with pytest.raises(UserError, match="rows are wanted from the pool"):
        list(outcomes("fail"))
    for bad, message in (
        ({"kind": "bal"}, "did you mean 'ball'"),
        ({"kind": "ball", "centre": 1.0, "radius": 1.0}, "not gaussian"),
    ):
        with pytest.raises(UserError, match=message):
            make_gates([bad], made)


def cell(**changes: Any) -> Cell:
    table = {"name": "x", "kind": "gaussian", "spec": {}, "regime_name": "replace", "regime": preset("replace")}
    table |= {"n": 20, "generations": 5, "chains": 300, "seed": 0}
    return Cell(**{**table, **changes})


def test_keys_cover_what_decides_the_rows() -> None:
    keys = cell().keys(0)
    assert len(set(keys)) == 5 and cell(name="y", chains=10).keys(0) == keys
    assert cell(generations=3).keys(0) == keys[:3]
    for change in ({"n": 21}, {"seed": 1}, {"spec": {"dims": 2}}, {"kind": "multinomial"}):
        assert not set(keys) & set(cell(**change).keys(0))
    other = cell(regime=preset("accumulate")).keys(0)
    assert other[0] == keys[0] and not set(other[1:]) & set(keys)
    forked = cell(forks=(Fork(4, preset("accumulate")),)).keys(0)
    assert forked[:3] == keys[:3] and forked[3] != keys[3]
    assert len(list(cell().units())) == 2


@pytest.mark.parametrize("kind", ALL)
def test_a_raised_revision_gives_new_keys(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of another revision of the family are never taken for rows of this one."""
    cls = chain_class(kind)
    monkeypatch.setattr(cls, "identity", lambda self: None)  # digests of data and models, that a test need not read
    spec = CAUSAL_LM if kind == "causal_lm" else SMALL[kind][0]
    keys = cell(kind=kind, spec=spec).keys(0)
    assert cell(kind=kind, spec=spec).keys(0) == keys
    monkeypatch.setattr(cls, "revision", cls.revision + 1)
    assert not set(cell(kind=kind, spec=spec).keys(0)) & set(keys)


@pytest.mark.parametrize(
    ("kind", "changes"), [("gaussian", {}), ("gmm", {"components": 2}), ("kde", {"bandwidth": 0.3})]
)
def test_bias_is_the_share_of_the_variance_that_is_sampled(kind: str, changes: dict[str, Any]) -> None:
    plain, narrow = family(kind, **changes), family(kind, **changes, bias=0.25)
    rows = plain.real(plain.block, 60, stream(0))
    model = plain.fit([Piece((plain.hold(rows),), 60, None, 1.0)], stream(1))
    wide, tight = (made.sample(model, 4000, stream(2)) for made in (plain, narrow))
    assert np.allclose(tight.var(axis=1), wide.var(axis=1) * 0.25, rtol=0.05)
    assert np.allclose(tight.mean(axis=1), wide.mean(axis=1), atol=0.3)
    with pytest.raises(UserError, match="bias must lie in"):
        family(kind, **changes, bias=1.5)
