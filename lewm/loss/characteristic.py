"""Sums of cosines and sines of many angles at equally spaced frequencies, by turning complex numbers again and again.

The plain way forms cos(t_k x) and sin(t_k x) of every number x at every knot t_k and keeps them for the backward pass.
With t_k = first + k gap it holds that exp(i t_{k+1} x) = exp(i t_k x) exp(i gap x): two cosines and two sines a number
instead of two a knot, in pieces that stay in a processor's cache, and nothing of the knots' size is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from lewm.distributed import for_sums

# Numbers turned at once: a few megabytes of complex numbers on a processor; an accelerator wants few, large kernels.
PIECE = {"cpu": 2**17}
WHOLE = 2**24


def characteristic_sums(
    x: Float[Tensor, "b m"], weight: Float[Tensor, " b"], *, first: float, gap: float, knots: int
) -> Float[Tensor, "2 m knots"]:
    """sum_b w_b cos(t_k x_bm) and sum_b w_b sin(t_k x_bm) for t_k = first + k gap.

    Sums of pieces are added in float64 where the device has it.

    Its gradient goes to `x` alone: sum_k t_k w_b (-g0_mk sin(t_k x_bm) + g1_mk cos(t_k x_bm)), once differentiable.
    """
    return _Sums.apply(x, weight, first, gap, knots)  # type: ignore[return-value]


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, first: float, gap: float, knots: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.grid = (first, gap, knots)
        # totals: (knots, m real and imaginary parts in turn)
        totals = torch.zeros(knots, 2 * x.shape[1], device=x.device, dtype=for_sums(x.device))
        with torch.autocast(x.device.type, enabled=False):  # the products would lose all but three digits
            for rows in _pieces(x):
                turn = _exp_i(gap * x[rows])
                z = _exp_i(first * x[rows])
                for k in range(knots):
                    if k > 0:
                        z *= turn
                    totals[k] += weight[rows] @ torch.view_as_real(z).flatten(1)
        return totals.view(knots, -1, 2).permute(2, 1, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        first, gap, knots = ctx.grid
        t = first + gap * torch.arange(knots, device=x.device, dtype=grads[0].dtype)
        # -g0 sin + g1 cos is the real part of (g1 + i g0) exp(i t x): a polynomial in exp(i gap x), by Horner's rule.
        coefficients = torch.complex(t * grads[0][1], t * grads[0][0]).T.contiguous()  # (knots, m)
        coefficients = coefficients.to(torch.complex128 if x.dtype == torch.float64 else torch.complex64)
        dx = torch.empty_like(x)
        for rows in _pieces(x):
            turn = _exp_i(gap * x[rows])
            z = coefficients[-1].expand_as(turn).contiguous()
            for k in reversed(range(knots - 1)):
                torch.addcmul(coefficients[k], z, turn, out=z)
            if first:
                z *= _exp_i(first * x[rows])
            torch.mul(z.real, weight[rows, None], out=dx[rows])
        return dx, None, None, None, None


def _exp_i(angles: Float[Tensor, "b m"]) -> Tensor:
    """exp(i angle), complex."""
    return torch.view_as_complex(torch.stack([angles.cos(), angles.sin()], dim=-1))


def _pieces(x: Float[Tensor, "b m"]) -> Iterator[slice]:
    size = max(1, PIECE.get(x.device.type, WHOLE) // x.shape[1])
    return (slice(low, low + size) for low in range(0, len(x), size))
