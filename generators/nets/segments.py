"""Many categorical distributions side by side in a row of numbers: softmax, likelihood and sampling without a loop."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

MAX_MEMBERSHIP = 2**22  # numbers in the 0/1 matrix of segments; a product with it beats indexing up to about here
FLOOR = 1e-20


class Segments:
    """S consecutive segments of `sizes`: D numbers in total."""

    def __init__(self, sizes: Sequence[int], device: str = "cpu") -> None:
        self.sizes = torch.tensor(list(sizes), dtype=torch.long, device=device)
        self.num, self.width = len(sizes), int(sum(sizes))
        self.first = self.sizes.cumsum(0) - self.sizes
        self.index = torch.repeat_interleave(torch.arange(self.num, device=device), self.sizes)
        self.member: Tensor | None = None
        if self.num * self.width <= MAX_MEMBERSHIP:
            self.member = torch.zeros(self.width, self.num, device=device)
            self.member[torch.arange(self.width, device=device), self.index] = 1

    def total(self, x: Tensor) -> Tensor:
        """Sums within segments: (n, D) to (n, S)."""
        if self.member is not None:
            return x @ self.member
        return torch.zeros(len(x), self.num, device=x.device, dtype=x.dtype).index_add(1, self.index, x)

    def spread(self, y: Tensor) -> Tensor:
        """Repeat each segment's number over its width: (n, S) to (n, D)."""
        return y @ self.member.t() if self.member is not None else y[:, self.index]

    def peak(self, x: Tensor) -> Tensor:
        """Largest number of each segment, without a gradient: (n, D) to (n, S)."""
        columns = x.detach().t().contiguous()
        return torch.segment_reduce(columns, "max", lengths=self.sizes, axis=0).t()

    def log_softmax(self, x: Tensor) -> Tensor:
        """Logs of the softmax within each segment, (n, D)."""
        if not self.num:
            return x
        shifted = x - self.spread(self.peak(x))
        return shifted - self.spread(self.total(shifted.exp()).log())

    def softmax(self, x: Tensor) -> Tensor:
        """Softmax within each segment, (n, D)."""
        if not self.num:
            return x
        powers = (x - self.spread(self.peak(x))).exp()
        return powers / self.spread(self.total(powers))

    def one_hot(self, codes: Tensor) -> Tensor:
        """int64 codes (n, S) as float32 (n, D)."""
        rows = torch.zeros(len(codes), self.width, device=codes.device)
        return rows.scatter_(1, codes + self.first, 1.0)

    def of(self, x: Tensor, codes: Tensor) -> Tensor:
        """The numbers at `codes`: (n, D) and int64 (n, S) to (n, S)."""
        return x.gather(1, codes + self.first)

    def draw(self, shares: Tensor, levels: Tensor) -> Tensor:
        """Draw codes by their shares, which need not sum to 1: (n, D) and levels in [0, 1) (n, S) to int64 (n, S).

        A code with share 0 is never drawn if another code of the segment has a share.
        """
        if not self.num:
            return torch.zeros(len(shares), 0, dtype=torch.long, device=shares.device)
        totals = self.total(shares)
        shares = shares / self.spread(totals).clamp_min(FLOOR)
        sums = shares.double().cumsum(1)
        edges = torch.cat([sums.new_zeros(len(sums), 1), sums], 1)
        start, end = edges[:, self.first], edges[:, self.first + self.sizes]
        aim = start + levels.double() * (end - start)
        is_passed = (sums <= aim[:, self.index]) & (sums < end[:, self.index])
        codes = self.total(is_passed.float()).long()
        return torch.minimum(codes, self.sizes - 1)


def noise(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    """Standard Gumbel noise."""
    u = torch.rand(shape, generator=random, device=random.device)
    return u.clamp_(1e-7, 1 - 1e-7).log_().neg_().log_().neg_()


def tensor(array: np.ndarray, device: str) -> Tensor:
    """A copy as a tensor on `device`."""
    return torch.from_numpy(np.array(array)).to(device)
