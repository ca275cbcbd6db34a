"""SIGReg against a naive reference, and what it is for."""

import math

import pytest
import torch

from lewm.loss.sigreg import SIGReg


def naive(h: torch.Tensor, low: float, high: float, knots: int) -> float:
    """2 N * trapezoid of exp(-t^2/2) |phi_N - phi|^2 for one column, by loops over complex numbers."""
    step = (high - low) / (knots - 1)
    total = 0.0
    for j in range(knots):
        t = low + j * step
        ecf = sum(complex(math.cos(t * x), math.sin(t * x)) for x in h.tolist()) / len(h)
        value = math.exp(-t * t / 2) * abs(ecf - math.exp(-t * t / 2)) ** 2
        total += value * (0.5 if j in (0, knots - 1) else 1.0)
    return 2 * len(h) * step * total


@pytest.mark.parametrize(("low", "high", "knots"), [(0.0, 3.0, 17), (0.2, 4.0, 9)])
def test_the_statistic_equals_a_naive_reference(low, high, knots):
    sigreg = SIGReg(directions=5, knots=knots, knot_range=(low, high))
    z = torch.randn(12, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1.5 + 0.2
    u = sigreg.sphere(3, step=4).double()
    expected = sum(naive(z[:, t] @ u[:, m], low, high, knots) for t in range(2) for m in range(5)) / 10
    assert float(sigreg(z, 4)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("low", "high", "knots"), [(0.0, 3.0, 17), (0.2, 4.0, 9), (0.0, 5.0, 2)])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_the_recurrence_equals_every_cosine_formed_by_itself(low, high, knots, scale):
    # Enough rows for several pieces, the last one short.
    g = torch.Generator().manual_seed(0)
    z, weight = scale * torch.randn(700, 2, 6, generator=g) + 0.1, (torch.rand(700, generator=g) > 0.2).float()
    found = []
    for recurrence, dtype in ((False, torch.float64), (True, torch.float64), (True, torch.float32)):
        sigreg = SIGReg(directions=512, knots=knots, knot_range=(low, high), recurrence=recurrence)
        x = z.to(dtype).requires_grad_()
        value = sigreg(x, 3, weight)
        value.backward()
        found.append((value.double(), x.grad.double()))
    for value, gradient in found[1:]:
        # The constants are float32, so the knots of the plain way are off by that much.
        torch.testing.assert_close(value, found[0][0], rtol=1e-5 * max(1.0, scale), atol=1e-6)
        error = (gradient - found[0][1]).norm() / found[0][1].norm()
        assert error < 1e-5 * max(1.0, scale)


def test_the_recurrence_keeps_nothing_of_the_knots_size():
    kept = []
    h = torch.randn(300, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        SIGReg(directions=64).statistic(h, torch.ones(300))
    assert max(kept) == h.numel()


@pytest.mark.parametrize("n", [32, 512])
def test_its_mean_over_gaussian_samples_is_the_known_value_for_any_batch_size(n):
    sigreg, g = SIGReg(directions=64), torch.Generator().manual_seed(n)
    mean = sum(float(sigreg(torch.randn(n, 4, 16, generator=g), step)) for step in range(60)) / 60
    assert mean == pytest.approx(sigreg.gaussian_value(), rel=0.05)


@pytest.mark.parametrize(
    "spoil",
    [lambda z: z + 0.5, lambda z: z * 1.5, lambda z: z * 0, lambda z: z[..., :1].expand_as(z), lambda z: z.sign()],
    ids=["shifted", "scaled", "collapsed", "rank one", "binary"],
)
def test_it_is_lower_on_a_gaussian_than_on_anything_else_and_grows_with_the_batch_there(spoil):
    sigreg = SIGReg(directions=256)

    def value(n: int, f) -> float:
        return float(sigreg(f(torch.randn(n, 2, 4, generator=torch.Generator().manual_seed(1))), 0))

    assert value(512, spoil) > 2 * value(512, lambda z: z)
    assert value(512, spoil) > 1.5 * value(128, spoil)


def test_time_steps_are_never_pooled():
    # Each step is far from Gaussian, both together are standard normal in mean and variance.
    sigreg = SIGReg(directions=64)
    z = torch.randn(256, 2, 4, generator=torch.Generator().manual_seed(0)) * 0.1
    z[:, 0] += 1
    z[:, 1] -= 1
    pooled = sigreg(z.reshape(512, 1, 4), 0)
    assert float(sigreg(z, 0)) > float(pooled)
    assert float(sigreg(z, 0)) == pytest.approx(float(sigreg(z[:, :1], 0) + sigreg(z[:, 1:], 0)) / 2, rel=1e-5)


def test_directions_are_unit_vectors_new_each_step_and_the_same_for_the_same_step_and_seed():
    a, b = SIGReg(directions=7, seed=3), SIGReg(directions=7, seed=3)
    torch.manual_seed(99)  # the global state plays no part
    assert torch.equal(a.sphere(5, 10), b.sphere(5, 10))
    assert not torch.equal(a.sphere(5, 10), a.sphere(5, 11))
    assert not torch.equal(a.sphere(5, 10), SIGReg(directions=7, seed=4).sphere(5, 10))
    torch.testing.assert_close(a.sphere(5, 10).norm(dim=0), torch.ones(7))


def test_autocast_does_not_reach_into_it():
    sigreg, z = SIGReg(directions=32), torch.randn(64, 2, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = sigreg(z, 0)
        from_bf16 = sigreg(z.bfloat16(), 0)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, sigreg(z, 0))
    assert torch.equal(from_bf16, sigreg(z.bfloat16().float(), 0))


def test_clips_of_weight_zero_do_not_count():
    sigreg, z = SIGReg(directions=16), torch.randn(10, 3, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([1.0] * 7 + [0.0] * 3)
    torch.testing.assert_close(sigreg(z, 0, weight), sigreg(z[:7], 0))


@pytest.mark.parametrize("recurrence", [True, False])
def test_the_gradient_is_exact(recurrence):
    sigreg = SIGReg(directions=4, recurrence=recurrence)
    z = torch.randn(6, 1, 3, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: sigreg(x, 0), (z,))


def test_a_batch_of_nothing_but_padding_has_a_finite_value():
    z = torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(SIGReg(directions=16)(z, 0, torch.zeros(4)))
