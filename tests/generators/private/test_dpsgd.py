"""DP-SGD: hooks and ghost norms agree, sums are clipped, samples are Poisson, noise is what is charged."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from gristmill.generators.nets.binned import perceptron
from gristmill.generators.private.account import Account, PrivacySpec
from gristmill.generators.private.accountants import Event
from gristmill.generators.private.dpsgd import ghost_sums, no_sums, opacus_sums, plan, poisson_sample, set_gradients
from gristmill.records.errors import UserError


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
    ghost, hooks = (way(net, losses_on(batch()), max_norm) for way in (ghost_sums, opacus_sums))
    assert len(ghost) == len(hooks) == 6
    for a, b in zip(ghost, hooks):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_hooks_and_ghost_make_the_same_steps():
    nets = [critic(), critic()]
    for net, way in zip(nets, (ghost_sums, opacus_sums)):
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


@pytest.mark.parametrize("way", [ghost_sums, opacus_sums])
def test_one_row_moves_the_sum_by_at_most_the_norm(way):
    net, rows = critic(), batch() * 20
    whole = way(net, losses_on(rows), 0.5)
    for left_out in range(0, 33, 8):
        others = torch.cat([rows[:left_out], rows[left_out + 1 :]])
        moved = [a - b for a, b in zip(whole, way(net, losses_on(others), 0.5))]
        assert torch.cat([m.flatten() for m in moved]).norm() <= 0.5 + 1e-4


def by_hand(net, losses_of, num_rows, max_norm):
    """One row at a time: no batch, no hook."""
    sums = no_sums(net)
    for row in range(num_rows):
        net.zero_grad()
        losses_of(net, row).sum().backward()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()]
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        sums = [s + g * min(1.0, max_norm / float(norm)) for s, g in zip(sums, gradients)]
    return sums


class Every(nn.Module):
    """Each layer that ghost norms know, in a form that is easily got wrong: strides, groups, no bias, many places."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1),
            nn.GroupNorm(2, 4),
            nn.SiLU(),
            nn.Conv2d(4, 6, 3, dilation=2, padding=2, groups=2, bias=False),
            nn.GroupNorm(3, 6, affine=False),
        )
        self.names, self.places = nn.Embedding(3, 6), nn.Linear(6, 5)
        self.wide, self.last = nn.Linear(6, 40), nn.Linear(40, 1)

    def forward(self, images, labels):
        h = self.body(images) + self.names(labels)[:, :, None, None]
        h = h + self.places(h.flatten(2).transpose(1, 2)).sum((1, 2))[:, None, None, None]  # Linear on many places
        return self.last(torch.tanh(self.wide(h.mean((2, 3))))).squeeze(1)


@pytest.mark.parametrize("way", [ghost_sums, opacus_sums])
@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("max_norm", [0.3, 1e9])
def test_every_layer_clips_the_gradient_of_a_row_over_all_its_copies(way, copies, max_norm):
    torch.manual_seed(0)
    net, images, labels = Every(), torch.randn(5 * copies, 1, 8, 8), torch.arange(5 * copies) % 3

    def losses(module, part=slice(None)):
        return softplus(module(images[part], labels[part])).reshape(-1, copies).mean(1)

    expected = by_hand(net, lambda m, row: losses(m, slice(row * copies, (row + 1) * copies)), 5, max_norm)
    for a, b in zip(way(net, losses, max_norm), expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert not hasattr(next(net.parameters()), "grad_sample")  # opacus leaves nothing behind


@pytest.mark.parametrize("copies", [1, 4])
def test_the_network_of_diffusion_goes_by_ghost_as_by_hooks(copies):
    from gristmill.generators.nets.unet import UNet

    torch.manual_seed(0)
    net = UNet(1, 8, (1, 2), 10)
    with torch.no_grad():
        for p in net.parameters():  # else its last layers are zeros, and hardly a gradient is seen
            p.add_(0.05 * torch.randn_like(p))
    images, steps, labels = (
        torch.randn(6 * copies, 1, 8, 8),
        torch.arange(6 * copies) * 9,
        torch.arange(6 * copies) % 11,
    )

    def losses(module):
        return module(images, steps, labels).square().reshape(6, -1).mean(1)

    for a, b in zip(ghost_sums(net, losses, 0.2), opacus_sums(net, losses, 0.2), strict=True):
        assert float(b.norm()) > 0
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(1, 2, 3, padding="same"),
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(1, 2, 3),
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 2, 3)),
        nn.BatchNorm2d(1, affine=False),
    ],
)
def test_other_layers_are_refused_by_ghost(layer):
    with pytest.raises(UserError, match='engine = "opacus"|mixes rows'):
        ghost_sums(nn.Sequential(layer), lambda m: m(torch.randn(5, 1, 8, 8)).flatten(1).sum(1), 1.0)


def test_weights_that_two_layers_share_and_batches_that_split_no_rows_are_refused():
    net = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12))
    net[1].weight = net[0].weight
    with pytest.raises(UserError, match="share no weights"):
        ghost_sums(net, lambda m: m(batch()).sum(1), 1.0)
    with pytest.raises(UserError, match="no multiple of the 5 rows"):
        ghost_sums(critic(), lambda m: m(batch())[:5, 0], 1.0)


def test_layers_that_mix_rows_are_refused():
    net = nn.Sequential(nn.Linear(12, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    for way in (ghost_sums, opacus_sums):
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


class Recurrent(nn.Module):
    """A network of layers that ghost norms do not cover."""

    def __init__(self):
        super().__init__()
        from opacus.layers import DPLSTM

        self.lstm, self.norm, self.last = DPLSTM(3, 5, batch_first=True), nn.LayerNorm(5), nn.Linear(5, 1)

    def forward(self, rows):
        return self.last(self.norm(self.lstm(rows.unflatten(1, (4, 3)))[0][:, -1]))


@pytest.mark.parametrize("make", [Recurrent, lambda: nn.Sequential(nn.Linear(12, 4), nn.LayerNorm(4), nn.Linear(4, 1))])
def test_networks_that_ghost_refuses_work_by_opacus(make):
    torch.manual_seed(0)
    net, rows = make(), batch()
    with pytest.raises(UserError, match='engine = "opacus"') as refused:
        ghost_sums(net, losses_on(rows), 0.5)
    assert "\n" not in str(refused.value)
    expected = by_hand(net, lambda m, row: losses_on(rows[row : row + 1])(m), len(rows), 0.5)
    for a, b in zip(opacus_sums(net, losses_on(rows), 0.5), expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_a_parameter_without_a_gradient_adds_nothing():
    net, rows = nn.ModuleList([nn.Linear(12, 1), nn.Linear(12, 1)]), batch()
    for way in (ghost_sums, opacus_sums):
        sums = way(net, lambda m: losses_on(rows)(m[0]), 0.5)
        assert float(sums[0].norm()) > 0 and not sums[2].any() and not sums[3].any()
