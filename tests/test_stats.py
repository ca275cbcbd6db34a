"""Action statistics."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lewm.datasets.stats import action_statistics, check_actions, moments
from lewm.errors import UserError


def source(actions: list[np.ndarray]) -> SimpleNamespace:
    return SimpleNamespace(actions=lambda e: actions[e], action_dim=actions[0].shape[1], path=Path("x.h5"))


def test_statistics_equal_numpy_over_all_rows_but_each_episodes_last():
    rng = np.random.default_rng(0)
    actions = [(rng.normal(size=(n, 2)) * [1, 1e-3] + [1e4, 3]).astype(np.float32) for n in (1, 5, 40, 2)]
    mean, std = action_statistics(source(actions), np.array([0, 1, 2, 3]))
    rows = np.concatenate([a[:-1] for a in actions]).astype(np.float64)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, rows.std(0), rtol=1e-5)


@pytest.mark.parametrize("last", [np.nan, 1e9])
def test_the_last_rows_action_never_enters_statistics(last):
    actions = np.ones((6, 1), dtype=np.float32) * np.arange(6, dtype=np.float32)[:, None]
    actions[-1] = last
    mean, _ = action_statistics(source([actions]), np.array([0]))
    assert mean[0] == 2.0


def test_only_the_named_episodes_count():
    actions = [np.full((4, 1), v, dtype=np.float32) + np.arange(4, dtype=np.float32)[:, None] for v in (0, 100)]
    assert action_statistics(source(actions), np.array([0]))[0][0] == 1.0


def test_moments_merge_to_those_of_the_whole():
    x = np.random.default_rng(1).normal(size=(31, 3)).astype(np.float32)
    parts = moments(x[:11]) + moments(x[10:])  # each drops its last row
    np.testing.assert_allclose(parts.std, x[:-1].astype(np.float64).std(0))


def test_a_constant_dimension_is_only_centred_and_said():
    actions = np.stack([np.full(5, 3.0), np.arange(5.0)], axis=1).astype(np.float32)
    with pytest.warns(UserWarning, match="constant action dimensions"):
        mean, std = action_statistics(source([actions]), np.array([0]))
    assert (mean[0], std[0]) == (3.0, 1.0)


def test_an_interior_nan_is_named_by_step_and_a_last_one_is_not():
    actions = np.zeros((5, 2), dtype=np.float32)
    actions[4] = np.nan
    check_actions(actions, "episode 3")
    actions[2, 1] = np.inf
    with pytest.raises(UserError, match="step 2 of episode 3"):
        check_actions(actions, "episode 3")
