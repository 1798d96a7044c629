"""Many small discriminators side by side, without shared weights."""

import torch
from torch import nn
from torch.nn.functional import leaky_relu


class Teachers(nn.Module):
    """`num_teachers` perceptrons with one hidden layer."""

    def __init__(self, num_teachers: int, num_in: int, width: int) -> None:
        super().__init__()
        self.inner = nn.Parameter(torch.randn(num_teachers, num_in, width) * (2 / width) ** 0.5 / 4)
        self.inner_bias = nn.Parameter(torch.zeros(num_teachers, 1, width))
        self.outer = nn.Parameter(torch.randn(num_teachers, width, 1) / width**0.5)
        self.outer_bias = nn.Parameter(torch.zeros(num_teachers, 1, 1))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Logits that rows are real: (teachers, rows, num_in), or (rows, num_in) for all, to (teachers, rows)."""
        hidden = leaky_relu(rows @ self.inner + self.inner_bias, 0.2)
        return (hidden @ self.outer + self.outer_bias).squeeze(2)
