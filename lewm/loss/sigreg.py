"""SIGReg: keep embeddings an isotropic Gaussian, by characteristic functions along random directions.

[0] LeJEPA, arXiv 2511.08544. [1] T. W. Epps and L. B. Pulley, A test for normality based on the empirical
characteristic function, Biometrika 70 (1983).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lewm.distributed import for_sums, sum_over_ranks
from lewm.errors import UserError
from lewm.loss.characteristic import characteristic_sums


class SIGReg(nn.Module):
    """T = N * integral w(t) |phi_N(t) - exp(-t^2/2)|^2 dt with w(t) = exp(-t^2/2), averaged over directions [0].

    N is the global batch: characteristic functions are averaged over ranks, not losses, so that the statistic and its
    gradient are those of one process. For N(0, I) its mean does not depend on N, for anything else it grows with N:
    the weight of this loss belongs to a global batch size. `recurrence` forms the sums over clips by
    `characteristic_sums`; without it every cosine is formed by itself: the same to rounding, slower, and larger.
    """

    def __init__(
        self,
        *,
        directions: int = 1024,
        knots: int = 17,
        knot_range: tuple[float, float] = (0.0, 3.0),
        seed: int = 0,
        recurrence: bool = True,
    ) -> None:
        super().__init__()
        low, high = knot_range
        if directions < 1 or knots < 2 or not 0 <= low < high:
            raise UserError(f"SIGReg needs 1 direction, 2 knots and a range, got {directions}, {knots}, {knot_range}")
        t = torch.linspace(low, high, knots, dtype=torch.float64)
        weights = torch.full((knots,), (high - low) / (knots - 1), dtype=torch.float64)
        weights[[0, -1]] /= 2
        # |phi_N - phi|^2 is even in t: the integral over [-high, high] is twice the one over [0, high].
        weights *= 2
        self.directions, self.seed, self.recurrence = directions, seed, recurrence
        self.first, self.gap = low, (high - low) / (knots - 1)
        # Constants, rebuilt from the arguments: no part of the weights.
        self.register_buffer("t", t.float(), persistent=False)
        self.register_buffer("phi", torch.exp(-t.square() / 2).float(), persistent=False)
        self.register_buffer("weights", (weights * torch.exp(-t.square() / 2)).float(), persistent=False)
        self.t: Tensor
        self.phi: Tensor
        self.weights: Tensor

    def sphere(self, width: int, step: int) -> Float[Tensor, "d m"]:
        """Directions of one step, uniform on the sphere: a pure function of (seed, step), so equal on every rank."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) % 2**63)
        u = torch.randn(width, self.directions, generator=generator)
        return u / u.norm(dim=0)

    def forward(
        self, z: Float[Tensor, "b t d"], step: int, weight: Float[Tensor, " b"] | None = None
    ) -> Float[Tensor, ""]:
        """Mean of the statistic over directions and time steps; never across time, whose structure is left free.

        `weight` is 1 for clips that count and 0 for padding.
        """
        with torch.autocast(device_type=z.device.type, enabled=False):  # the ECF loses its digits in bf16
            z = z if z.dtype == torch.float64 else z.float()
            u = self.sphere(z.shape[-1], step).to(z)
            w = torch.ones(len(z), device=z.device, dtype=z.dtype) if weight is None else weight.to(z)
            return torch.stack([self.statistic(frame @ u, w) for frame in z.unbind(1)]).mean()

    def statistic(self, h: Float[Tensor, "b m"], weight: Float[Tensor, " b"]) -> Float[Tensor, ""]:
        """Epps-Pulley statistic [1] of each column over the global batch, averaged over columns."""
        n = sum_over_ranks(weight.sum()).clamp(min=1)  # a batch may hold nothing but padding
        wide = for_sums(h.device)  # ranks change the order of summation, and what is left is a small difference
        real, imaginary = sum_over_ranks(self.sums(h, weight, wide)) / n  # (m, knots)
        error = (real - self.phi.to(wide)).square() + imaginary.square()
        return (n * (error @ self.weights.to(wide)).mean()).to(h.dtype)

    def sums(self, h: Float[Tensor, "b m"], weight: Float[Tensor, " b"], wide: torch.dtype) -> Tensor:
        """sum_b w_b cos(t_k h_bm) and the same of sines (2, m, knots): by the recurrence, or every one by itself."""
        if self.recurrence:
            return characteristic_sums(h, weight, first=self.first, gap=self.gap, knots=len(self.t))
        angles = h[..., None] * self.t.to(h)  # (b, m, knots)
        return torch.stack([(weight[:, None, None] * x).sum(0, dtype=wide) for x in (angles.cos(), angles.sin())])

    def gaussian_value(self) -> float:
        """Expectation of the statistic for N(0, I) samples: the integral of w(t) (1 - phi(t)^2), for any N."""
        return float((self.weights.double() * (1 - self.phi.double().square())).sum())
