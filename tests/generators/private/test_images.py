"""What a guarantee asks of dp_ddpm, beyond the laws of generators.families.contract
(tests/generators/images/test_families.py)."""

import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch

from gristmill.generators.families.contract import family_class
from gristmill.generators.families.fit import NOISE_KEY, Fit, FitStopped
from gristmill.generators.families.fit_check import check_fit
from gristmill.generators.families.folder import load_model
from gristmill.generators.images import dp_ddpm
from gristmill.generators.private.account import Account, PrivacySpec
from gristmill.generators.private.accountants import Event
from gristmill.generators.private.dpsgd import CLIPPED_SUMS, ghost_sums
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import digest_table, images_table
from gristmill.records.readers.tables import Column, TableSchema
from gristmill.records.spec import build
from gristmill.records.stores.opening import open_store
from tests.generators.images.test_families import DIGITS, digits

SPEC = {"steps": 10, "batch": 24, "width": 8, "sample_steps": 4, "copies": 2}
EPSILON = 0.5  # small ones are quick to account for
BUDGET = PrivacySpec(EPSILON, 1e-4)


def made(schema=DIGITS, **more):
    return family_class("dp_ddpm")(build(dp_ddpm.DpDdpmSpec, {**SPEC, **more}, "model"), schema)


def a_fit(folder, privacy=BUDGET, key=b"k" * 32, rows=None, **more):
    rows = digits() if rows is None else rows
    told = {"path": "here", "num_rows": rows.num_rows, "digest": digest_table(rows)}
    store = open_store(str(folder))
    return Fit(made(**more), rows, told, store, 5, privacy, 1, checkpoint_s=1e-9, span_s=1e-9, noise_key=key)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, a_fit(folder).run()


def test_the_planned_steps_spend_the_budget_and_all_that_is_learnt_is_charged(whole):
    _, card = whole
    events = {e["what"]: e for e in card.privacy["events"]}
    assert {what: e["count"] for what, e in events.items()} == {"counts of labels": 1, "step of DP-SGD": SPEC["steps"]}
    assert events["step of DP-SGD"]["sampling_rate"] == SPEC["batch"] / digits().num_rows
    assert 0.995 * EPSILON < card.privacy["epsilon"] <= EPSILON


def test_the_folder_says_nothing_exact_about_rows(whole):
    folder, card = whole
    text = (folder / "model.json").read_text()
    assert digest_table(digits()) not in text and (b"k" * 32).hex() not in text
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == ["model.json", "weights.safetensors"]
    assert json.loads(text)["privacy"]["epsilon"] <= EPSILON
    assert set().union(*(loss.keys() for loss in card.losses)) == {"step", "gradient"}
    labels = np.bincount([int(v) for v in digits().column("label").to_pylist()], minlength=10)
    shares = load_model(str(folder), card).model_state().tensors["shares"]
    assert shares.sum() == pytest.approx(1) and np.abs(shares - labels / labels.sum()).min() > 0


def test_killed_and_resumed_is_the_same_model_and_is_charged_once(whole, tmp_path):
    class Killed(Exception):
        pass

    def tell(told):
        if told.step >= 3:
            raise Killed

    with pytest.raises(Killed):
        a_fit(tmp_path).run(tell)
    assert (tmp_path / NOISE_KEY).is_file()
    with pytest.raises(FitStopped):
        a_fit(tmp_path, key=None).run(is_stopped=lambda: True)
    card = a_fit(tmp_path, key=None).run()
    assert card.weights_sha256 == whole[1].weights_sha256
    assert card.privacy == whole[1].privacy


def test_the_noise_is_new_unless_its_key_is_given(whole, tmp_path):
    prints = [a_fit(tmp_path / name, key=key).run().weights_sha256 for name, key in (("b", b"k" * 32), ("c", None))]
    assert prints[0] == whole[1].weights_sha256 != prints[1]


def test_it_stops_before_the_step_that_would_exceed_the_budget(whole, tmp_path):
    planned = next(e["noise_multiplier"] for e in whole[1].privacy["events"] if e["what"] == "step of DP-SGD")
    card = a_fit(tmp_path, PrivacySpec(EPSILON, 1e-4, noise_multiplier=0.8 * planned)).run()
    event = next(e for e in card.privacy["events"] if e["what"] == "step of DP-SGD")
    assert card.privacy["epsilon"] <= EPSILON and 0 < event["count"] < SPEC["steps"]
    account = Account(BUDGET, digits().num_rows)
    account.restore(card.privacy["events"])
    assert account.epsilon(Event(event["what"], 0.8 * planned, event["sampling_rate"])) > EPSILON


@pytest.mark.parametrize("adjacency", ["add-remove", "replace"])
def test_more_noise_for_less_budget(adjacency):
    noises = []
    for epsilon in (0.25, 0.5):
        family, account = made(steps=2), Account(PrivacySpec(epsilon, 1e-4, adjacency=adjacency), digits().num_rows)
        family.begin(digits(), 1, account)
        family.train(0, 2)
        noises.append([e.noise_multiplier for e in account.events])
        assert account.epsilon() <= epsilon
    assert len(noises[0]) == 2 and all(less > more for less, more in zip(*noises))


def test_without_a_budget_there_is_no_noise_and_no_claim(tmp_path):
    card = a_fit(tmp_path, privacy=None, steps=2).run()
    assert card.privacy["guarantee"] is None
    labels = np.bincount([int(v) for v in digits().column("label").to_pylist()], minlength=10)
    assert np.array_equal(load_model(str(tmp_path), card).model_state().tensors["shares"], labels / labels.sum())


def test_a_private_fit_needs_a_declared_schema():
    with pytest.raises(UserError, match="declared"):
        check_fit(made(TableSchema(DIGITS.columns, inferred=True)), digits(), BUDGET)


def test_without_labels_nothing_is_counted():
    schema = TableSchema((Column("picture", "image", height=28, width=28, channels=1),))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)
    rows = schema.conform(pa.table({"picture": images_table(pixels, np.zeros(40)).column("image")}))
    family, account = made(schema, steps=1, batch=8), Account(PrivacySpec(1.0, 1e-3), 40)
    family.begin(rows, 1, account)
    family.train(0, 1)
    assert [e.what for e in account.events] == ["step of DP-SGD"]
    assert family.sample([{}] * family.block, np.arange(family.block)).columns["picture"].null_count == 0


def noiseless(max_norm, num_steps=1, rows=None, **more):
    """The sums of clipped gradients of each step, as vectors, when all rows are taken, without noise, and the weights
    stay where they are."""
    family = made(batch=10_000, lr=1e-12, **more)
    family.begin(digits() if rows is None else rows, 1, None)
    family._dp.max_norm, sums, set_gradients = max_norm, [], family._dp.set_gradients

    def noted(net, found, step):
        sums.append(torch.cat([s.flatten() for s in found]))
        return set_gradients(net, found, step)

    family._dp.set_gradients = noted
    family.train(0, num_steps)
    return sums


@pytest.mark.parametrize("copies", [1, 8])
def test_a_row_moves_the_sum_by_at_most_the_norm_however_many_copies_it_has(copies):
    (one,) = noiseless(1e-3, rows=digits().slice(3, 1), copies=copies)
    assert float(one.norm()) == pytest.approx(1e-3, rel=1e-3)
    (five,) = noiseless(1e-3, rows=digits().slice(3, 5), copies=copies)
    assert 1e-3 < float(five.norm()) <= 5e-3 * 1.001


def test_a_large_sample_goes_in_parts_that_add_up(monkeypatch):
    seen, old = [], ghost_sums
    monkeypatch.setitem(CLIPPED_SUMS, "ghost", lambda *told: seen.append(old(*told)) or seen[-1])
    monkeypatch.setattr(dp_ddpm, "MOST_PIXELS", 64 * 2 * 50)  # 50 rows of 2 copies
    (total,) = noiseless(0.4)
    assert len(seen) == 3  # of 120 rows
    parts = sum(torch.cat([s.flatten() for s in found]) for found in seen)
    torch.testing.assert_close(total, parts, atol=1e-6, rtol=1e-5)


def test_both_engines_clip_the_same_sums(monkeypatch):
    (ghost,) = noiseless(0.4, rows=digits().slice(0, 20))
    monkeypatch.setitem(CLIPPED_SUMS, "ghost", CLIPPED_SUMS["opacus"])
    (opacus,) = noiseless(0.4, rows=digits().slice(0, 20))
    torch.testing.assert_close(ghost, opacus, atol=1e-6, rtol=1e-3)


def test_with_more_copies_the_gradients_of_a_row_agree_better():
    """Noise multiplicity is for that: two steps see other noises of the same row."""
    agreement = {}
    for copies in (1, 64):
        sums = noiseless(1.0, num_steps=5, rows=digits().slice(0, 1), copies=copies)
        pairs = [torch.nn.functional.cosine_similarity(a, b, 0) for a, b in pairwise(sums)]
        agreement[copies] = float(np.mean(pairs))
    assert agreement[64] > agreement[1] + 0.2


@pytest.mark.parametrize("spec", [{"copies": 0}, {"share_counts": 0.0}, {"share_counts": 1.0}, {"width": 12}])
def test_specs_that_are_refused(spec):
    with pytest.raises(UserError, match="must"):
        made(**spec)
