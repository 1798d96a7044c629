"""A small U-Net for images of 8 to 64 pixels: residual blocks with GroupNorm, modulated by steps and labels.

Ho et al. 2020 (the network of DDPM), Dhariwal & Nichol 2021 (adaptive group normalisation). No operation mixes rows.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 8


def time_features(steps: Tensor, width: int) -> Tensor:
    """Sinusoids of the step numbers (Vaswani et al. 2017): float32 (n, width) from (n,)."""
    half = width // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=steps.device) / half)
    angles = steps.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def zero_weights(layer: nn.Module) -> nn.Module:
    """Set the weights of a layer to 0, so that a residual block starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Residual(nn.Module):
    """Two convolutions; the embedding scales and shifts the features between them."""

    def __init__(self, inward: int, outward: int, embedding_width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(GROUPS, inward), nn.Conv2d(inward, outward, 3, padding=1)
        self.embed = nn.Linear(embedding_width, 2 * outward)
        self.norm2, self.conv2 = nn.GroupNorm(GROUPS, outward), zero_weights(nn.Conv2d(outward, outward, 3, padding=1))
        self.skip = nn.Conv2d(inward, outward, 1) if inward != outward else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.embed(embedding)[:, :, None, None].chunk(2, 1)
        return self.skip(x) + self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))


class Attention(nn.Module):
    """Self-attention over the places of an image; one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.qkv = nn.GroupNorm(GROUPS, channels), nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero_weights(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).chunk(3, 1)
        weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(q.shape[1]), -1)
        return x + self.out((v @ weights.transpose(1, 2)).reshape(x.shape))


class UNet(nn.Module):
    """From noisy images (n, channels, height, width), steps and labels (n,) to an output shaped as the images.

    Label `num_labels` means "no label"; height and width are multiples of 2^(levels - 1).
    """

    def __init__(self, channels: int, width: int, multipliers: tuple[int, ...], num_labels: int) -> None:
        super().__init__()
        self.width, embedding_width = width, 4 * width
        self.embed = nn.Sequential(
            nn.Linear(width, embedding_width), nn.SiLU(), nn.Linear(embedding_width, embedding_width), nn.SiLU()
        )
        self.labels = nn.Embedding(num_labels + 1, embedding_width)
        widths = [width * m for m in multipliers]
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.down, self.halve, inward = nn.ModuleList(), nn.ModuleList(), width
        for level, outward in enumerate(widths):
            self.down.append(Residual(inward, outward, embedding_width))
            is_last = level == len(widths) - 1
            self.halve.append(nn.Identity() if is_last else nn.Conv2d(outward, outward, 3, stride=2, padding=1))
            inward = outward
        self.middle = nn.ModuleList([Residual(inward, inward, embedding_width), Attention(inward)])
        self.up = nn.ModuleList()
        for outward in reversed(widths):
            self.up.append(Residual(inward + outward, outward, embedding_width))
            inward = outward
        self.last = nn.Sequential(
            nn.GroupNorm(GROUPS, inward), nn.SiLU(), zero_weights(nn.Conv2d(inward, channels, 3, padding=1))
        )

    def forward(self, x: Tensor, steps: Tensor, labels: Tensor) -> Tensor:
        embedding = self.embed(time_features(steps, self.width)) + self.labels(labels)
        x, skips = self.first(x), []
        for block, halve in zip(self.down, self.halve):
            x = block(x, embedding)
            skips.append(x)
            x = halve(x)
        block, attention = self.middle
        x = attention(block(x, embedding))
        for block in self.up:
            skip = skips.pop()
            if x.shape[-1] != skip.shape[-1]:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([x, skip], 1), embedding)
        return self.last(x)
