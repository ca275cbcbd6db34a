"""Noise of planners: a pure function of its key, with the moments and the spectrum that it claims."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lewm.plan.noise import Noise, power_law

SHAPE = (20, 3, 5, 2)  # (s, n, k, a)


def draws(noise: Noise, iteration=0) -> list[torch.Tensor]:
    return [
        noise.white(iteration, *SHAPE),
        noise.coloured(iteration, *SHAPE, exponent=2.0),
        noise.uniform(iteration, *SHAPE),
    ]


def test_an_episodes_noise_is_bitwise_the_same_alone_and_among_sixteen_in_any_order():
    keys = (*range(100, 115), "a name")
    together = draws(Noise(3, keys, 25))
    turned = draws(Noise(3, keys[::-1], 25))
    for i, key in enumerate(keys):
        for alone, x, y in zip(draws(Noise(3, (key,), 25)), together, turned, strict=True):
            assert torch.equal(alone[0], x[i])
            assert torch.equal(alone[0], y[len(keys) - 1 - i])


def test_every_part_of_the_key_changes_the_noise():
    keys = [(s, e, t, i) for s in (0, 1) for e in (0, 1, 2**40, "0:0") for t in (0, 25) for i in (0, 1, "elites")]
    found = [Noise(s, (e,), t).white(i, 4).numpy().tobytes() for s, e, t, i in keys]
    assert len(set(found)) == len(keys)


def test_white_and_coloured_noise_have_variance_one_at_each_step_and_no_correlation_across_candidates_or_dimensions():
    for exponent in (0.0, 1.0, 2.0, 4.0):
        x = Noise(0, (0,), 0).coloured(0, 20_000, 5, 5, 2, exponent=exponent)[0].flatten(1, 2)  # (s, n * k, a)
        assert x.dtype == torch.float32
        assert x.mean(dim=0).abs().max() < 0.04  # 5 standard errors
        assert (x.var(dim=0) - 1).abs().max() < 0.06
        assert (x[:-1] * x[1:]).mean(dim=0).abs().max() < 0.05
        assert (x[..., 0] * x[..., 1]).mean(dim=0).abs().max() < 0.05


@pytest.mark.parametrize("steps", [24, 25])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_the_spectrum_falls_by_the_exponent(steps, exponent):
    x = power_law(np.random.default_rng(0), (20_000,), steps, exponent)
    power = (np.abs(np.fft.rfft(x)) ** 2).mean(axis=0)[1:]
    f = np.fft.rfftfreq(steps)[1:]
    slope = np.polyfit(np.log(f), np.log(power), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.02)


def test_coloured_noise_hangs_together_across_the_blocks_of_a_candidate():
    x = Noise(0, (0,), 0).coloured(0, 5_000, 3, 5, 1, exponent=2.0)[0]
    inside = (x[:, 0, 3] * x[:, 0, 4]).mean()
    across = (x[:, 0, 4] * x[:, 1, 0]).mean()
    assert inside == pytest.approx(float(across), abs=0.08)
    assert across > 0.5


def test_exponent_zero_is_white_noise_itself():
    noise = Noise(0, (1, 2), 0)
    assert torch.equal(noise.coloured(4, *SHAPE, exponent=0), noise.white(4, *SHAPE))


def test_uniform_noise_fills_zero_to_one():
    x = Noise(0, (1,), 0).uniform(0, 10_000)
    assert 0 <= x.min() < 0.01 and 0.99 < x.max() < 1


def test_the_noise_does_not_change_between_versions():
    assert Noise(0, (7,), 25).white(3, 4)[0].tolist() == [
        -0.44950002431869507,
        1.5748045444488525,
        -0.6112188696861267,
        -0.2081788182258606,
    ]
