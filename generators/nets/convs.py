"""Convolutional encoders and decoders for images of 8 to 64 pixels, for VAE and GAN. No operation mixes rows."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

GROUPS = 8


class Narrow(nn.Module):
    """Images (n, channels, height, width) to features (n, outward): two halvings.

    With `is_spectral` the largest singular value of every layer is 1 (Miyato et al. 2018). A critic has no
    normalisation, because its gradient at one row must not depend on other rows (Gulrajani et al. 2017).
    """

    def __init__(
        self, shape: tuple[int, int, int], width: int, outward: int, has_norm: bool, is_spectral: bool = False
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        normalise = spectral_norm if is_spectral else lambda layer: layer
        widths = [channels, width, 2 * width, 2 * width]
        self.convs = nn.ModuleList(
            normalise(nn.Conv2d(i, o, 3, stride, padding=1)) for i, o, stride in zip(widths, widths[1:], (1, 2, 2))
        )
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, o) if has_norm else nn.Identity() for o in widths[1:])
        self.last = normalise(nn.Linear(2 * width * (height // 4) * (breadth // 4), outward))

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms):
            x = F.leaky_relu(norm(conv(x)), 0.2)
        return self.last(x.flatten(1))


class Widen(nn.Module):
    """Noise (n, latent) and labels (n,) to images (n, channels, height, width) in [-1, 1]: two doublings."""

    def __init__(self, shape: tuple[int, int, int], width: int, latent: int, num_labels: int) -> None:
        super().__init__()
        channels, height, breadth = shape
        self.shape = 2 * width, height // 4, breadth // 4
        self.labels = nn.Embedding(max(num_labels, 1), latent)
        self.first = nn.Linear(2 * latent, 2 * width * (height // 4) * (breadth // 4))
        widths = [2 * width, 2 * width, width]
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, w) for w in widths)
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1) for i, o in zip(widths, [*widths[1:], channels], strict=True)
        )

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        x = self.first(torch.cat([noise, self.labels(labels)], 1)).unflatten(1, self.shape)
        for number, (norm, conv) in enumerate(zip(self.norms, self.convs)):
            x = F.relu(norm(x))
            if number:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = conv(x)
        return torch.tanh(x)


class Critic(nn.Module):
    """Scores (n,) of images given labels, by projection (Miyato & Koyama 2018, equation 3)."""

    def __init__(
        self, shape: tuple[int, int, int], width: int, num_labels: int, is_spectral: bool, features: int = 128
    ) -> None:
        super().__init__()
        normalise = spectral_norm if is_spectral else lambda layer: layer
        self.body = Narrow(shape, width, features, has_norm=False, is_spectral=is_spectral)
        self.score = normalise(nn.Linear(features, 1))
        self.labels = normalise(nn.Embedding(max(num_labels, 1), features))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        h = F.leaky_relu(self.body(x), 0.2)
        return self.score(h)[:, 0] + (self.labels(labels) * h).sum(1)


class Encoder(nn.Module):
    """Mean and log variance, each (n, latent), of the latent vector of an image given its label."""

    def __init__(self, shape: tuple[int, int, int], width: int, latent: int, num_labels: int) -> None:
        super().__init__()
        features = 4 * width
        self.body = Narrow(shape, width, features, has_norm=True)
        self.labels = nn.Embedding(max(num_labels, 1), features)
        self.last = nn.Linear(features, 2 * latent)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.last(F.silu(self.body(x) + self.labels(labels))).chunk(2, 1)
        return mean, log_variance.clamp(-12, 6)
