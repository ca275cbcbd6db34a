import numpy as np
import pytest
import torch
from conftest import score_probe
from torch import nn

from lewm import checkpoint as checkpoints
from lewm.probes.controls import calibrated, shuffled_over_episodes, small_pixels
from lewm.probes.linear import fit_linear
from lewm.probes.seams import Rows


def walk(episodes=80, rows=25, seed=0):
    rng = np.random.default_rng(seed)
    y = (rng.normal(size=(episodes, 1, 2)) + 0.1 * rng.normal(size=(episodes, rows, 2)).cumsum(1)).reshape(-1, 2)
    x = y @ rng.normal(size=(2, 12))
    episode = np.repeat(np.arange(episodes), rows)
    cuts = [slice(0, 1200), slice(1200, 1500), slice(1500, None)]
    return [Rows(x[c], y[c], episode[c]) for c in cuts]


def test_shuffled_control_stays_near_zero_where_the_probe_is_perfect():
    parts = walk()
    real = score_probe(fit_linear(*parts[:2]), parts[0], parts[2])
    parts = [shuffled_over_episodes(part, seed=1) for part in parts]
    control = score_probe(fit_linear(*parts[:2]), parts[0], parts[2])
    assert real["r"] > 0.999
    assert not np.isfinite(control["r"]) or control["r_ci95"][0] < 0.1
    assert control["mse"] > 0.7


def test_no_episode_keeps_its_own_quantities_and_lengths_may_differ():
    lengths = [3, 7, 1, 5]
    episode = np.repeat([4, 8, 15, 16], lengths)
    rows = Rows(np.zeros((16, 1)), episode[:, None].astype(float), episode)
    shuffled = shuffled_over_episodes(rows)
    for e in np.unique(episode):
        given = np.unique(shuffled.y[episode == e])
        assert len(given) == 1
        assert given[0] != e
    assert np.array_equal(np.unique(shuffled.y), np.unique(episode))  # every episode's are used


class Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def encode(self, pixels):
        return self.norm(pixels.float().mean(dim=(1, 2, 3)))


def test_calibration_gives_batchnorm_the_statistics_of_the_frames():
    pixels = torch.randint(0, 256, (400, 4, 4, 3), dtype=torch.uint8)
    model = calibrated(Shifted().eval(), pixels)
    with torch.no_grad():
        z = model.encode(pixels[:, None])
    assert not model.training and not model.norm.training
    assert z.mean(0).abs().max() < 0.05
    assert (z.std(0) - 1).abs().max() < 0.05


@pytest.mark.parametrize("frames", [2, 64, 257])
def test_calibration_reaches_every_batchnorm_and_takes_any_number_of_frames(tiny_model, frames):
    fresh = checkpoints.untrained(tiny_model, 0)
    calibrated(fresh, torch.randint(0, 256, (frames, 16, 16, 3), dtype=torch.uint8))
    norms = [m for m in fresh.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 2  # of the projector and of the prediction head
    assert all(int(norm.num_batches_tracked) == -(-frames // 256) for norm in norms)  # type: ignore[arg-type]
    assert not fresh.training


def test_small_pixels_average_large_frames_and_keep_small_ones():
    large = torch.full((2, 64, 64, 3), 255, dtype=torch.uint8)
    assert small_pixels(large).shape == (2, 32 * 32 * 3)
    assert torch.all(small_pixels(large) == 1)
    assert small_pixels(large[:, :16, :16]).shape == (2, 16 * 16 * 3)
