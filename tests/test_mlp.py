from itertools import pairwise

import numpy as np
import torch
from conftest import score_probe

from lewm.probes.linear import fit_linear
from lewm.probes.mlp import fit_mlp, warmup_cosine
from lewm.probes.seams import Rows


def folded(n=6000, seed=0):
    """A code that no linear probe can read: products of what the features hold linearly."""
    rng = np.random.default_rng(seed)
    uv = rng.uniform(-1, 1, (n, 2))
    x = uv @ rng.normal(size=(2, 24)) + 0.01 * rng.normal(size=(n, 24))
    y = np.stack([uv[:, 0] * uv[:, 1], np.cos(3 * uv[:, 0])], axis=1)
    episode = np.repeat(np.arange(n // 50), 50)
    cuts = [slice(0, 4000), slice(4000, 5000), slice(5000, n)]
    return [Rows(x[c].astype(np.float32), y[c], episode[c]) for c in cuts]


def test_mlp_reads_a_planted_nonlinear_code_that_the_linear_probe_cannot():
    train, val, test = folded()
    mlp = score_probe(fit_mlp(train, val), train, test)
    linear = score_probe(fit_linear(train, val), train, test)
    assert mlp["r"] > 0.995
    assert linear["r"] < 0.2


def test_mlp_finds_nothing_in_noise_and_stops_early():
    train, val, test = folded(n=5500)
    rng = np.random.default_rng(1)
    noisy = [Rows(rng.normal(size=part.x.shape), part.y, part.episode) for part in (train, val, test)]
    probe = fit_mlp(noisy[0], noisy[1])
    scores = score_probe(probe, noisy[0], noisy[2])
    assert abs(scores["r"]) < 0.15
    assert probe.epochs < 60


def test_mlp_is_the_same_for_the_same_seed_and_leaves_the_global_state_alone():
    train, val, test = folded(n=5500)
    small = [Rows(p.x[:600], p.y[:600], p.episode[:600]) for p in (train, val)]
    state = torch.random.get_rng_state()
    first, second, other = (fit_mlp(*small, seed=s).predict(test.x) for s in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_learning_rate_warms_up_then_falls_to_zero():
    rates = [warmup_cosine(step, 100) for step in range(101)]
    assert rates[0] < 0.5
    assert max(rates) == 1
    assert rates[-1] < 1e-6
    assert all(a >= b for a, b in pairwise(rates[5:]))
