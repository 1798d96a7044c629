"""DP-SGD: hooks and ghost norms agree, sums are clipped, samples are Poisson, noise is what is charged."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from generators.dpsgd import ghost_sums, hook_sums, no_sums, plan, poisson_sample, set_gradients
from generators.nets.binned import perceptron
from generators.privacy import Account, Event, PrivacySpec
from records.errors import UserError


def batch(rows=33, columns=12, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def critic(seed=0):
    torch.manual_seed(seed)
    return perceptron(12, (16, 8), 1)


def losses_on(rows):
    return lambda net: softplus(-net(rows).squeeze(1)) * 10


@pytest.mark.parametrize("max_norm", [0.1, 1.0, 5.0, 1e9])
def test_hooks_and_ghost_agree(max_norm):
    net = critic()
    ghost, hooks = (way(net, losses_on(batch()), max_norm) for way in (ghost_sums, hook_sums))
    assert len(ghost) == len(hooks) == 6
    for a, b in zip(ghost, hooks):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_hooks_and_ghost_make_the_same_steps():
    nets = [critic(), critic()]
    for net, way in zip(nets, (ghost_sums, hook_sums)):
        adam = torch.optim.SGD(net.parameters(), 0.1)
        for step in range(5):
            set_gradients(net, way(net, losses_on(batch(seed=step)), 0.7), 0.7, 0.0, 33, 0, step)
            adam.step()
    for a, b in zip(nets[0].parameters(), nets[1].parameters()):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_without_clipping_it_is_the_plain_gradient():
    net, rows = critic(), batch()
    sums = ghost_sums(net, losses_on(rows), float("inf"))
    losses_on(rows)(net).sum().backward()
    for total, parameter in zip(sums, net.parameters()):
        torch.testing.assert_close(total, parameter.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("way", [ghost_sums, hook_sums])
def test_one_row_moves_the_sum_by_at_most_the_norm(way):
    net, rows = critic(), batch() * 20
    whole = way(net, losses_on(rows), 0.5)
    for left_out in range(0, 33, 8):
        others = torch.cat([rows[:left_out], rows[left_out + 1 :]])
        moved = [a - b for a, b in zip(whole, way(net, losses_on(others), 0.5))]
        assert torch.cat([m.flatten() for m in moved]).norm() <= 0.5 + 1e-4


def test_convolutions_go_by_hooks():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 1))
    images = torch.randn(5, 1, 8, 8)
    sums = hook_sums(net, lambda m: softplus(m(images).squeeze(1)), 0.3)
    by_hand = no_sums(net)
    for image in images:
        net.zero_grad()
        softplus(net(image[None]).squeeze(1)).sum().backward()
        norm = torch.cat([p.grad.flatten() for p in net.parameters()]).norm()
        by_hand = [h + p.grad * min(1.0, 0.3 / float(norm)) for h, p in zip(by_hand, net.parameters())]
    for a, b in zip(sums, by_hand):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert not hasattr(next(net.parameters()), "grad_sample")  # opacus leaves nothing behind
    with pytest.raises(UserError, match="use hooks"):
        ghost_sums(net, lambda m: m(images).squeeze(1), 1.0)


def test_layers_that_mix_rows_are_refused():
    net = nn.Sequential(nn.Linear(12, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    for way in (ghost_sums, hook_sums):
        with pytest.raises(UserError):
            way(net, losses_on(batch()), 1.0)


def test_layers_used_twice_are_refused_by_ghost():
    layer = nn.Linear(12, 12)
    with pytest.raises(UserError, match="once"):
        ghost_sums(layer, lambda m: m(m(batch())).sum(1), 1.0)


def test_an_empty_sample_still_gets_noise():
    net = critic()
    size = set_gradients(net, no_sums(net), 1.0, 2.0, 64, 5, 0)
    noise = torch.cat([p.grad.flatten() for p in net.parameters()])
    assert size == pytest.approx(float(noise.norm()), rel=1e-5)
    assert float(noise.std()) == pytest.approx(2.0 / 64, rel=0.15)
    set_gradients(net, no_sums(net), 1.0, 2.0, 64, 5, 1)
    assert not torch.equal(noise, torch.cat([p.grad.flatten() for p in net.parameters()]))


def test_noise_is_scaled_by_the_norm_and_divided_by_the_expected_rows():
    net = nn.Linear(200, 200)
    set_gradients(net, no_sums(net), 3.0, 0.5, 10, 1, 1)
    assert float(net.weight.grad.std()) == pytest.approx(0.5 * 3.0 / 10, rel=0.02)


def test_samples_are_poisson():
    """Sizes have the mean and variance of a binomial; rows come and go independently; the same step, the same rows."""
    samples = [poisson_sample(7, step, 1000, 0.02) for step in range(600)]
    sizes = np.array([len(s) for s in samples])
    assert sizes.mean() == pytest.approx(20, abs=0.8)
    assert sizes.var() == pytest.approx(19.6, rel=0.25)
    assert np.bincount(np.concatenate(samples), minlength=1000).std() == pytest.approx(
        (600 * 0.02 * 0.98) ** 0.5, rel=0.15
    )
    assert np.array_equal(samples[3], poisson_sample(7, 3, 1000, 0.02))
    assert any(len(poisson_sample(1, step, 10, 0.05)) == 0 for step in range(20))
    assert len(poisson_sample(0, 0, 50, 1.0)) == 50


def test_a_plan_spends_the_budget_or_keeps_to_the_given_noise():
    account = Account(PrivacySpec(1.0, 1e-6), 10_000)
    noise, steps = plan(account, 0.02, 100)
    assert steps == 100
    assert 0.99 < account.epsilon(Event("step of DP-SGD", noise, 0.02, 100)) <= 1.0
    noise, steps = plan(Account(PrivacySpec(1.0, 1e-6, noise_multiplier=1.2), 10_000), 0.02, 300)
    assert noise == 1.2 and 0 < steps < 300
    with pytest.raises(UserError, match="not one step"):
        plan(Account(PrivacySpec(0.1, 1e-6, noise_multiplier=2.0), 10_000), 0.5, 10)
