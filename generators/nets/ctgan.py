"""The networks and losses of CTGAN (Xu et al. 2019, section 4.4)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from gristmill.generators.nets.segments import Segments, noise

TEMPERATURE = 0.2  # of the Gumbel softmax
LEAK, DROPOUT = 0.2, 0.5
PENALTY = 10.0  # weight of the gradient penalty


class Generator(nn.Module):
    """From noise and a condition to a row. Each residual block appends its output to its input."""

    def __init__(
        self, noise_size: int, num_conditions: int, widths: Sequence[int], num_numbers: int, width: int
    ) -> None:
        super().__init__()
        self.num_numbers = num_numbers
        input_widths = [noise_size + sum(widths[:place]) for place in range(len(widths) + 1)]
        output_widths = [*widths, num_numbers + width]
        # Each layer also receives the condition. A one-hot vector times a matrix is a row of the matrix, so an
        # embedding replaces the product and the bias.
        self.linears = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in zip(input_widths, output_widths))
        # `told` is a name in the weights of fitted models.
        self.told = nn.ModuleList(nn.Embedding(num_conditions, b) for b in output_widths)
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for size in widths)

    def forward(self, latents: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Alphas (n, M) and the logits of all segments (n, D); `conditions` are int64 (n,)."""
        rows = latents
        for linear, embedding, norm in zip(self.linears, self.told, self.norms):
            outputs = torch.addmm(embedding(conditions), rows, linear.weight.t())
            rows = torch.cat([functional.relu(norm(outputs)), rows], 1)
        outputs = torch.addmm(self.told[-1](conditions), rows, self.linears[-1].weight.t())
        return outputs[:, : self.num_numbers].tanh(), outputs[:, self.num_numbers :]


class Critic(nn.Module):
    """Scores `pac` rows at a time, which reveals a lack of variety (PacGAN; Lin et al. 2018)."""

    def __init__(self, row_width: int, num_conditions: int, widths: Sequence[int], pac: int) -> None:
        super().__init__()
        self.pac = pac
        self.first = nn.Linear(row_width * pac, widths[0])
        self.condition = nn.Embedding(pac * num_conditions, widths[0])
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.last = nn.Linear(widths[-1], 1)
        self.num_conditions = num_conditions

    def embed(self, conditions: Tensor) -> Tensor:
        """The contribution of the conditions of each pack to the first layer: (n / pac, hidden)."""
        places = torch.arange(self.pac, device=conditions.device) * self.num_conditions
        return functional.embedding_bag(conditions.view(-1, self.pac) + places, self.condition.weight, mode="sum")

    def forward(self, packs: Tensor, embedding: Tensor, dropout_masks: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Scores of packs (n / pac, pac * row width), and the gates of each layer: outputs over inputs.

        `dropout_masks` has a mask for each layer.
        """
        outputs, gates = self.first(packs) + embedding, []
        for linear, mask in zip([*self.linears, self.last], dropout_masks):
            gates.append(torch.where(outputs.detach() > 0, mask, LEAK * mask))
            outputs = linear(outputs * gates[-1])
        return outputs[:, 0], gates

    def slopes(self, gates: Sequence[Tensor]) -> Tensor:
        """Gradients of scores with respect to packs. The critic is linear given its gates, so they have a closed form
        and the gradient penalty needs no double backward."""
        gradients = self.last.weight * gates[-1]
        for linear, gate in zip(reversed(self.linears), reversed(gates[:-1])):
            gradients = (gradients @ linear.weight) * gate
        return gradients @ self.first.weight

    def masks(self, num_packs: int, random: torch.Generator) -> list[Tensor]:
        """Dropout masks, scaled to preserve means."""
        sizes = [self.first.out_features, *(linear.out_features for linear in self.linears)]
        levels = torch.rand((num_packs, sum(sizes)), generator=random, device=random.device)
        return list(((levels >= DROPOUT).float() / (1 - DROPOUT)).split(sizes, 1))


def soft_rows(segments: Segments, alphas: Tensor, logits: Tensor, random: torch.Generator) -> Tensor:
    """Differentiable rows: Gumbel softmax over all segments at once."""
    noisy_logits = (logits + noise(tuple(logits.shape), random)) / TEMPERATURE
    return torch.cat([alphas, segments.softmax(noisy_logits)], 1)


def critic_loss(
    critic: Critic, real: Tensor, fake: Tensor, conditions: Tensor, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(loss, Wasserstein estimate) with a gradient penalty on mixtures of packs (WGAN-GP; Gulrajani et al. 2017)."""
    num = len(real) // critic.pac
    real, fake = real.reshape(num, -1), fake.reshape(num, -1)
    share = torch.rand((num, 1), generator=random, device=random.device)
    packs = torch.cat([real, fake, torch.lerp(fake, real, share)])
    scores, gates = critic(packs, critic.embed(conditions).repeat(3, 1), critic.masks(3 * num, random))
    distance = scores[:num].mean() - scores[num : 2 * num].mean()
    slopes = critic.slopes([gate[2 * num :] for gate in gates])
    penalty = PENALTY * (slopes.norm(2, dim=1) - 1).square().mean()
    return penalty - distance, distance.detach()
