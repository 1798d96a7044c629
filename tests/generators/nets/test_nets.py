"""Networks and losses of the tabular models against plain computations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from gristmill.generators.nets.ctgan import Critic
from gristmill.generators.nets.segments import Segments
from gristmill.generators.nets.tabdiffusion import Schedule, diffuse_codes, posterior
from tests.profiles import scaled

SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@pytest.mark.parametrize("limit", [0, 2**22])
@settings(max_examples=scaled(30))
@given(SIZES, st.integers(0, 2**31))
def test_segments_are_softmaxes_side_by_side(limit: int, sizes: list[int], seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gristmill.generators.nets.segments.MAX_MEMBERSHIP", limit)  # by indexing, and by a product
        segments = Segments(sizes)
    random = torch.Generator().manual_seed(seed)
    x = torch.randn((4, sum(sizes)), generator=random) * 40
    plain = torch.cat([part.log_softmax(1) for part in x.split(sizes, 1)], 1)
    assert torch.allclose(segments.log_softmax(x), plain, atol=1e-4)
    assert torch.allclose(segments.softmax(x), plain.exp(), atol=1e-5)
    codes = torch.stack([torch.randint(size, (4,), generator=random) for size in sizes], 1)
    hot = torch.cat([functional.one_hot(codes[:, i], size) for i, size in enumerate(sizes)], 1)
    assert torch.equal(segments.one_hot(codes), hot.float())
    assert torch.equal(segments.draw(hot.float(), torch.rand(codes.shape, generator=random)), codes)


def test_draws_follow_the_shares() -> None:
    segments = Segments([2, 3])
    shares = torch.tensor([[0.25, 0.75, 0.5, 0.0, 0.5]]).expand(20_000, -1)
    drawn = segments.draw(shares, torch.rand((20_000, 2), generator=torch.Generator().manual_seed(0)))
    assert abs(drawn[:, 0].float().mean() - 0.75) < 0.02
    counts = torch.bincount(drawn[:, 1], minlength=3)
    assert counts[1] == 0 and abs(counts[0] / 20_000 - 0.5) < 0.02


def test_slopes_are_the_gradients_that_autograd_finds() -> None:
    torch.manual_seed(0)
    critic = Critic(7, 3, [16, 8], 4)
    packs, conditions = torch.randn(5, 28, requires_grad=True), torch.randint(0, 3, (20,))
    scores, gates = critic(packs, critic.embed(conditions), critic.masks(5, torch.Generator().manual_seed(1)))
    weights = [critic.first.weight, critic.linears[0].weight, critic.last.weight]
    (whole,) = torch.autograd.grad(scores.sum(), packs, create_graph=True)
    slopes = critic.slopes(gates)
    assert torch.allclose(slopes, whole, atol=1e-7)
    penalties = [(made.norm(2, dim=1) - 1).square().mean() for made in (whole, slopes)]
    by_double_backward, by_once = (torch.autograd.grad(p, weights, retain_graph=True) for p in penalties)
    for one, other in zip(by_double_backward, by_once):
        assert torch.allclose(one, other, atol=1e-6) and one.abs().sum() > 0


def test_blurring_and_its_posterior_are_those_of_multinomial_diffusion() -> None:
    """Hoogeboom et al. 2021, eqs. 11 to 13, with K = 3 by hand; an uncertain first code gives the mixture."""
    segments, schedule = Segments([3]), Schedule(10)
    time = 4
    bar, alpha, before = schedule.bar[time + 1], schedule.alpha[time], schedule.bar[time]
    assert torch.allclose(bar, before * alpha) and schedule.bar[0] == 1 and schedule.bar[10] < 0.01
    levels = torch.rand((100_000, 1), generator=torch.Generator().manual_seed(0))
    codes = diffuse_codes(torch.zeros((100_000, 1), dtype=torch.long), bar, levels, segments.sizes)
    kept = float(bar + (1 - bar) / 3)
    assert abs((codes == 0).float().mean() - kept) < 0.01
    now, first = segments.one_hot(torch.tensor([[1]])), segments.one_hot(torch.tensor([[0]]))
    found = posterior(segments, now, first, alpha, before)[0].numpy()
    there = np.array([(1 - alpha) / 3, alpha + (1 - alpha) / 3, (1 - alpha) / 3])
    was = np.array([before + (1 - before) / 3, (1 - before) / 3, (1 - before) / 3])
    assert np.allclose(found, there * was / (there * was).sum(), atol=1e-6)
    certain = torch.stack([posterior(segments, now, row[None], alpha, before)[0] for row in torch.eye(3)])
    shares = torch.tensor([[0.7, 0.1, 0.2]])
    assert torch.allclose(posterior(segments, now, shares, alpha, before), shares @ certain, atol=1e-6)
    at_once = posterior(segments, first, first, schedule.alpha[0], schedule.bar[0])[0]
    assert torch.allclose(at_once, first[0]), "before the first step the code is what it was"
