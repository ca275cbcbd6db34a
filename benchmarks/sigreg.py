"""SIGReg forward and backward against the peer's: time, peak memory, gradient. python benchmarks/sigreg.py

T = 4 time steps of B = 1,024 embeddings of width D = 192, M = 1,024 directions, 17 knots, float32 on both sides.
"""

from __future__ import annotations

import os
from typing import Any

from alternation import alternate, arguments, peak_mib, seconds, serve, use_threads
from peer import guard

T, B, D, M = 4, 1024, 192, 1024


def now_mib() -> float:
    """Resident size of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def served(loss: Any, z: Any, more: dict[str, float] | None = None) -> None:
    """Serve one loss: seconds of forward and backward, and how far memory rises above what was there before."""
    z.requires_grad_()
    before = now_mib()

    def once() -> dict[str, float]:
        z.grad = None
        took = seconds(lambda: loss(z).backward())
        return {"seconds": took, "mib": peak_mib() - before, **(more or {})}

    serve(once)


def embeddings() -> Any:
    """Neither Gaussian nor of unit size, as in training. (b, t, d)"""
    import torch

    torch.manual_seed(0)
    return torch.randn(B, T, D) * torch.linspace(0.5, 1.5, D) + 0.1


def ours(recurrence: bool) -> None:
    from lewm.loss.sigreg import SIGReg

    sigreg = SIGReg(directions=M, recurrence=recurrence)
    served(lambda z: sigreg(z, 0), embeddings())


def peer() -> None:
    guard()
    from stable_worldmodel.wm.loss import SIGReg

    sigreg = SIGReg(num_proj=M)
    served(lambda z: sigreg(z.transpose(0, 1)), embeddings())


def gradient_difference() -> float:
    """|g - g_plain| / |g_plain| of the recurrence, against every cosine formed by itself in float64."""
    import torch

    from lewm.loss.sigreg import SIGReg

    grads = []
    for recurrence, dtype in ((True, torch.float32), (False, torch.float64)):
        z = embeddings()[:256].to(dtype).requires_grad_()  # float64 of the whole batch would take 5 GiB
        SIGReg(directions=M, recurrence=recurrence)(z, 0).backward()
        assert z.grad is not None
        grads.append(z.grad.double())
    return float((grads[0] - grads[1]).norm() / grads[1].norm())


def main() -> None:
    """Run a side, or all of them."""
    given = arguments(__doc__).parse_args()
    use_threads(given.threads)
    if given.side:
        return peer() if given.side == "peer" else ours(given.side == "ours")
    sides = alternate(("ours", "plain", "peer"), given)
    for side in sides.values():
        ratio = sides["peer"].median() / side.median()
        share = side.median("mib") / sides["peer"].median("mib")
        print(
            f"{side.name:6s} {side.median():.3f} s ({side.spread()}), {ratio:.1f} x the peer's speed, "
            f"peak {side.median('mib'):.0f} MiB, {share:.3f} of the peer's"
        )
    print(f"gradient against float64 without the recurrence: {gradient_difference():.1e} of its size")


if __name__ == "__main__":
    main()
