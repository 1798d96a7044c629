"""The laws of generators.families.contract for the private families, and what a guarantee asks of a fit beyond them."""

import json

import numpy as np
import pyarrow as pa
import pytest

from gristmill.generators.families.contract import family_class
from gristmill.generators.families.fit import NOISE_KEY, Fit, FitStopped
from gristmill.generators.families.fit_check import check_fit
from gristmill.generators.families.folder import load_model, read_card
from gristmill.generators.private.account import Account, PrivacySpec
from gristmill.generators.private.accountants import Event
from gristmill.generators.tabular.encoding.public import NUM_CELLS, Bins, Grid
from gristmill.generators.tabular.pate_gan import parts
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import digest_table
from gristmill.records.readers.tables import Column, TableSchema
from gristmill.records.spec import build
from gristmill.records.stores.opening import open_store

SCHEMA = TableSchema(
    (
        Column("group", "category", categories=("a", "b", "c", "never")),
        Column("age", "integer", 0, 100),
        Column("gain", "numeric", 0.0, 5000.0, decimals=2, nullable=True),
        Column("wide", "integer", -1000, 100_000),
        Column("flag", "category", categories=("no", "yes"), nullable=True),
    )
)
SPECS = {
    "mst": {},
    "dp_ctgan": {"steps": 20, "batch": 64, "widths": (16,), "critic_widths": (16,), "num_noise": 4},
    "dp_tvae": {"steps": 20, "batch": 64, "widths": (16,), "num_noise": 4},
    "pate_gan": {"steps": 12, "teachers": 10, "votes": 4, "batch": 32, "widths": (16,), "num_noise": 4, "memory": 20},
}
STEPPED = [k for k in SPECS if k != "mst"]
NUM_ROWS = 700
EPSILON = 0.5  # small ones are quick to account for
BUDGET = PrivacySpec(EPSILON, 1e-5)


def table(seed=0, num_rows=NUM_ROWS):
    random = np.random.default_rng(seed)
    group = random.choice(["a", "b", "c"], num_rows, p=[0.6, 0.3, 0.1])
    age = np.clip(random.normal(np.where(group == "a", 30, 60), 8), 0, 100).astype(int)
    gain = np.where(random.random(num_rows) < 0.7, 0.0, np.round(random.exponential(900, num_rows).clip(0, 5000), 2))
    rows = {
        "group": group,
        "age": age,
        "gain": [None if r < 0.1 else g for r, g in zip(random.random(num_rows), gain.tolist())],
        "wide": age * 900 + random.integers(0, 500, num_rows),
        "flag": [None if a < 20 else "yes" if a > 45 else "no" for a in age],
    }
    return SCHEMA.conform(pa.table(rows))


def made(kind, **more):
    family_type = family_class(kind)
    return family_type(build(family_type.Spec, {**SPECS[kind], **more}, "model"), SCHEMA)


def a_fit(kind, folder, privacy=BUDGET, key=b"k" * 32, **more):
    rows = table()
    told = {"path": "here", "num_rows": rows.num_rows, "digest": digest_table(rows)}
    store = open_store(str(folder))
    return Fit(made(kind, **more), rows, told, store, 5, privacy, 1, checkpoint_s=1e-9, span_s=1e-9, noise_key=key)


@pytest.fixture(scope="module", params=list(SPECS))
def fitted(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    card = a_fit(request.param, folder).run()
    return request.param, folder, card, load_model(str(folder), card)


def seeds_of(family, start=1):
    return np.arange(start, start + family.block, dtype=np.int64) * 7919


def lists(drawn):
    return {name: array.to_pylist() for name, array in drawn.columns.items()}


def test_rows_depend_on_nothing_but_their_seed_place_and_conditions(fitted):
    _, _, _, family = fitted
    nothing = [{}] * family.block
    whole = lists(family.sample(nothing, seeds_of(family)))
    others = seeds_of(family, 9000)
    others[40:80] = seeds_of(family)[40:80]
    conditions = [{} if 40 <= i < 80 else {"group": "b", "age": 70.0} for i in range(family.block)]
    part = lists(family.sample(conditions, others))
    for name, values in whole.items():
        assert part[name][40:80] == values[40:80]
        assert len(set(values)) > 1 or name in ("group", "flag")


def test_columns_are_as_the_schema_declares(fitted):
    _, _, _, family = fitted
    drawn = family.sample([{}] * family.block, seeds_of(family))
    rows = pa.table({c.name: drawn.columns[c.name] for c in SCHEMA.columns})
    assert [f.type for f in rows.schema] == [f.type for f in SCHEMA.payload]
    assert SCHEMA.conform(rows).num_rows == family.block
    assert drawn.reasons == [None] * family.block


def test_conditions_are_met(fitted):
    _, _, _, family = fitted
    asked = [
        [{"group": "never"}, {"age": 0.0, "flag": "yes"}, {"gain": 12.34}, {"wide": 100_000.0}, {}][i % 5]
        for i in range(family.block)
    ]
    rows = lists(family.sample(asked, seeds_of(family)))
    for i, values in enumerate(asked):
        assert {n: rows[n][i] for n in values} == values


def test_a_model_that_came_back_makes_the_same_rows(fitted):
    _, folder, _, family = fitted
    again = load_model(str(folder), read_card(str(folder)))
    ask = [{"flag": "yes"} if i % 3 else {} for i in range(family.block)]
    assert lists(again.sample(ask, seeds_of(family))) == lists(family.sample(ask, seeds_of(family)))


def test_the_folder_says_nothing_exact_about_rows(fitted):
    """No digest of the rows, no key, no checkpoint, no seed that the noise could be made from again."""
    _, folder, card, _ = fitted
    text = (folder / "model.json").read_text()
    assert digest_table(table()) not in text
    assert (b"k" * 32).hex() not in text and "kkkk" not in text
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == ["model.json", "weights.safetensors"]
    assert json.loads(text)["privacy"]["epsilon"] <= EPSILON
    assert set().union(*(loss.keys() for loss in card.losses), ()) <= {"step", "generator", "student", "gradient"}


@pytest.mark.parametrize("kind", list(SPECS))
def test_the_noise_is_new_unless_its_key_is_given(kind, tmp_path):
    prints = []
    for name, key in (("a", b"k" * 32), ("b", b"k" * 32), ("c", None), ("d", None)):
        prints.append(a_fit(kind, tmp_path / name, key=key).run().weights_sha256)
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


@pytest.mark.parametrize("kind", STEPPED)
def test_killed_and_resumed_is_the_same_model_and_is_charged_once(kind, tmp_path):
    whole = a_fit(kind, tmp_path / "whole").run()

    class Killed(Exception):
        pass

    def killing(at):
        def tell(told):
            if told.step >= at:
                raise Killed

        return tell

    for at in (3, 4, 9):  # killed before the checkpoint of a step that was made: it is made again
        with pytest.raises(Killed):
            a_fit(kind, tmp_path / "cut", key=None if at > 3 else b"k" * 32).run(killing(at))
        assert (tmp_path / "cut" / NOISE_KEY).is_file()
    with pytest.raises(FitStopped):
        a_fit(kind, tmp_path / "cut", key=None).run(is_stopped=lambda: True)
    card = a_fit(kind, tmp_path / "cut", key=None).run()
    assert card.weights_sha256 == whole.weights_sha256
    assert card.privacy == whole.privacy
    counts = {e["what"]: e["count"] for e in card.privacy["events"]}
    steps = SPECS[kind]["steps"]
    assert steps * SPECS[kind].get("votes", 1) in counts.values()
    assert 0.995 * EPSILON < card.privacy["epsilon"] <= EPSILON  # the planned steps spend the budget


@pytest.mark.parametrize("kind", STEPPED)
def test_it_stops_before_the_step_that_would_exceed_the_budget(kind, tmp_path):
    noise = {"dp_ctgan": 2.5, "dp_tvae": 2.5, "pate_gan": 40.0}[kind]
    card = a_fit(kind, tmp_path, PrivacySpec(EPSILON, 1e-5, noise_multiplier=noise)).run()
    assert card.privacy["epsilon"] <= EPSILON
    event = next(e for e in card.privacy["events"] if e["noise_multiplier"] == noise)
    once = SPECS[kind].get("votes", 1)
    assert 0 < event["count"] < SPECS[kind]["steps"] * once and event["count"] % once == 0
    account = Account(BUDGET, NUM_ROWS)
    account.restore(card.privacy["events"])
    assert account.epsilon(Event(event["what"], noise, event["sampling_rate"], once)) > EPSILON


@pytest.mark.parametrize("kind", list(SPECS))
@pytest.mark.parametrize("adjacency", ["add-remove", "replace"])
def test_all_that_is_learnt_is_charged(kind, adjacency):
    """More noise for less budget, and for the stricter adjacency; nothing is learnt that no event names."""
    spent = {}
    for epsilon in (0.25, 0.5):
        family, account = made(kind), Account(PrivacySpec(epsilon, 1e-5, adjacency=adjacency), NUM_ROWS)
        family.begin(table(), 1, account)
        if family.num_steps:
            family.train(0, family.num_steps)
        spent[epsilon] = {e.what: e.noise_multiplier for e in account.events}
        assert account.epsilon() <= epsilon
        assert "counts of one column" in spent[epsilon]
    assert all(spent[0.25][what] > noise for what, noise in spent[0.5].items())
    assert len(spent[0.5]) == (3 if kind == "mst" else 2)


@pytest.mark.parametrize("kind", list(SPECS))
def test_private_fits_need_public_bounds(kind):
    unbounded = TableSchema((Column("x", "numeric", low=0.0), Column("y", "category", categories=("a", "b"))))
    family_type = family_class(kind)
    with pytest.raises(UserError, match="declare low and high of column 'x'"):
        family_type(family_type.Spec(), unbounded).check()
    inferred = TableSchema(SCHEMA.columns, inferred=True)
    with pytest.raises(UserError, match="declared"):
        check_fit(family_type(family_type.Spec(), inferred), table(), BUDGET)


@pytest.mark.parametrize("kind", list(SPECS))
def test_without_a_budget_there_is_no_noise_and_no_claim(kind, tmp_path):
    card = a_fit(kind, tmp_path, privacy=None).run()
    assert card.privacy["guarantee"] is None
    counts = load_model(str(tmp_path), card).model_state().tensors["counts/0"]
    exact = [table().column("group").to_pylist().count(c) for c in "abc"]
    assert counts.tolist() == [*exact, 0]


@pytest.mark.parametrize("kind", list(SPECS))
def test_tables_of_one_column_and_two_rows(kind):
    schema = TableSchema((Column("x", "numeric", 0.0, 0.0), Column("y", "category", categories=("only",))))
    for columns in (schema.columns, schema.columns[:1]):
        family_type = family_class(kind)
        spec = {**SPECS[kind], **({"teachers": 2} if kind == "pate_gan" else {})}
        family = family_type(build(family_type.Spec, spec, "model"), TableSchema(columns))
        rows = family.schema.conform(pa.table({"x": [0.0] * 4, "y": ["only"] * 4}))
        family.begin(rows, 0, Account(PrivacySpec(1.0, 0.01), 4))
        drawn = family.sample([{}] * family.block, seeds_of(family))
        assert set(drawn.columns["x"].to_pylist()) == {0.0}


def test_mst_keeps_pairs_and_conditions_are_true_ones():
    """Against the rows themselves: with a fair budget P(flag | age) is theirs, also where age is rare."""
    rows = table(num_rows=20_000)
    family = made("mst")
    family.begin(rows, 3, Account(PrivacySpec(3.0, 1e-6), rows.num_rows))
    asked = [{"age": 30.0 if i % 2 else 60.0} for i in range(family.block)]
    drawn = lists(family.sample(asked, seeds_of(family)))
    old = [f for f, a in zip(drawn["flag"], drawn["age"]) if a == 60]
    assert old.count("yes") > 0.95 * len(old)
    young = [f for f, a in zip(drawn["flag"], drawn["age"]) if a == 30]
    assert young.count("no") > 0.9 * len(young)
    groups = [g for g, a in zip(drawn["group"], drawn["age"]) if a == 60]
    real = [g for g, a in zip(rows.column("group").to_pylist(), rows.column("age").to_pylist()) if 55 <= a <= 65]
    assert groups.count("a") / len(groups) == pytest.approx(real.count("a") / len(real), abs=0.12)


def test_a_target_is_a_neighbour_of_many_columns():
    """Scores are weighted before the tree is chosen; a column that is not there is refused."""
    degrees = {}
    for target in (None, "flag"):
        family = made("mst", target=target)
        family.begin(table(num_rows=5000), 3, None)
        degrees[target] = sum(4 in edge for edge in family.model_state().facts["edges"])
    assert degrees["flag"] >= 3 and degrees["flag"] > degrees[None]
    with pytest.raises(UserError, match="no column 'flags'"):
        made("mst", target="flags").check()


def test_conditions_pull_the_other_columns_along():
    """Without noise, rows asked to be of group a are younger than those of group b."""
    family = made("dp_tvae", steps=400)
    family.begin(table(num_rows=2000), 3, None)
    family.train(0, family.num_steps)
    ages = {}
    for group in ("a", "b"):
        drawn = family.sample([{"group": group}] * family.block, seeds_of(family))
        ages[group] = np.mean(drawn.columns["age"].to_numpy())
    assert ages["a"] + 8 < ages["b"]


def test_parts_of_teachers_are_disjoint_and_whole():
    rows, sizes = parts(3, 1000, 16)
    own = [set(rows[t, :n].tolist()) for t, n in enumerate(sizes)]
    assert set().union(*own) == set(range(1000))
    assert sum(map(len, own)) == 1000
    assert rows.shape == (16, sizes.max())
    few, sizes = parts(0, 4, 30)  # teachers without rows
    assert sizes.sum() == 4 and few.shape[0] == 30


def test_cells_are_public_and_values_come_back():
    """Cells depend on the schema alone; a value decodes to its own cell; bounds have cells of their own."""
    grid, rows = Grid(SCHEMA), table()
    assert grid.sizes == [4, 101, NUM_CELLS + 1, NUM_CELLS, 3]
    cells = grid.encode(rows)
    random = np.random.default_rng(0)
    for at, column in enumerate(SCHEMA.columns):
        values = rows.column(column.name).to_pylist()
        back = grid.decode(at, cells[:, at], random.random(len(cells)), [None] * len(cells))
        again = grid.encode(SCHEMA.conform(rows.set_column(at, column.name, back)))[:, at]
        assert np.abs(again - cells[:, at]).max() <= (1 if column.name in ("gain", "wide") else 0)
        assert [v is None for v in values] == [v is None for v in back.to_pylist()]
        for value, cell in zip(values[:50], cells[:50, at]):
            assert value is None or grid.cell(at, value) == cell
    zero = [v == 0 for v in rows.column("gain").to_pylist()]
    assert all(c == 0 for c, z in zip(cells[:, 2], zero) if z)


@pytest.mark.parametrize("noise", [0.0, 5.0, 500.0])
def test_bins_cover_all_cells_and_decode_into_themselves(noise):
    grid = Grid(SCHEMA)
    cells = grid.encode(table())
    random = np.random.default_rng(1)
    counts = [
        np.bincount(cells[:, at], minlength=s) + noise * random.standard_normal(s) for at, s in enumerate(grid.sizes)
    ]
    bins = Bins(grid, counts, noise, 16)
    coarse = bins.encode(cells)
    for at, size in enumerate(bins.sizes):
        assert sorted(set(bins.of_cell[at].tolist())) == list(range(size))
        if SCHEMA.columns[at].is_number:
            assert size <= 3 * 16 + 2
            assert (np.diff(bins.of_cell[at]) >= 0).all()
        back = bins.decode(at, coarse[:, at], random.random((len(cells), 2)), [None] * len(cells))
        assert back.null_count == (coarse[:, at] == bins.of_cell[at][-1]).sum() if SCHEMA.columns[at].nullable else True


@pytest.mark.parametrize("kind", ["dp_ctgan", "dp_tvae"])
def test_a_fit_by_opacus_states_its_engine_and_keeps_its_budget(kind, tmp_path):
    cards = {}
    for engine, accountant in (("ghost", "PLD"), ("opacus", "PRV (engine opacus)")):
        cards[engine] = a_fit(kind, tmp_path / engine, PrivacySpec(EPSILON, 1e-5, engine=engine), steps=4).run()
        said = cards[engine].privacy
        assert (said["engine"], said["epsilon_accountant"]) == (engine, accountant)
        assert 0.9 * EPSILON < said["epsilon"] <= EPSILON
        assert cards[engine].identity["privacy"].get("engine", "ghost") == engine
        assert (
            load_model(str(tmp_path / engine), cards[engine]).sample([{}] * 256, np.arange(256)).reasons == [None] * 256
        )
    assert cards["ghost"].fingerprint != cards["opacus"].fingerprint


def test_families_without_clipped_gradients_take_no_engine():
    for kind in ("mst", "pate_gan"):
        with pytest.raises(UserError, match="takes no .privacy. engine"):
            check_fit(made(kind), table(), PrivacySpec(1.0, 1e-5, engine="opacus"))
