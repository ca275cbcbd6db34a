import numpy as np
import pytest
from conftest import CountingSource, ExactModel

from lewm.errors import UserError
from lewm.probes.open_loop import choose_windows, farthest, imagine, open_loop, others

EPISODES = np.arange(24)


def test_an_exact_model_has_no_error_at_any_horizon_and_its_baselines_do():
    rows = open_loop(imagine(ExactModel(), CountingSource([40] * 24), EPISODES))
    assert [row["h"] for row in rows] == list(range(1, 9))
    for row in rows:
        assert row["mse"] == 0 and row["mse_ci95"] == [0, 0]
        assert row["shuffled_action_mse"] > 0.5
        assert row["zero_action_mse"] == pytest.approx(row["copy_last_mse"])  # no action, no motion
        assert row["copy_last_mse_ci95"][0] < row["copy_last_mse"] < row["copy_last_mse_ci95"][1]


def test_copy_last_is_the_mean_squared_motion_over_the_horizon():
    source = CountingSource([14] * 24)
    rows = open_loop(imagine(ExactModel(history=1), source, EPISODES))
    windows = choose_windows(source.lengths, EPISODES, context=1, frameskip=2)
    for row in rows:
        moved = [
            source.actions(e)[s : s + 2 * row["h"], 0].sum()
            for e, s in zip(windows.episode, windows.start, strict=True)
        ]
        assert row["copy_last_mse"] == pytest.approx(np.mean(np.square(moved)))


def test_a_blind_model_does_as_well_with_any_actions():
    for row in open_loop(imagine(ExactModel(blind=True), CountingSource([40] * 24), EPISODES)):
        assert row["shuffled_action_ratio"] == row["zero_action_ratio"] == 1
        assert row["mse"] == row["copy_last_mse"]


def test_a_single_window_says_nothing_about_other_actions():
    (row, *_) = open_loop(imagine(ExactModel(blind=True), CountingSource([7]), np.arange(1)))
    assert row["n"] == 1
    assert np.isnan([row["shuffled_action_mse"], row["shuffled_action_ratio"], *row["shuffled_action_mse_ci95"]]).all()
    assert np.isfinite([row["mse"], row["zero_action_ratio"]]).all()


@pytest.mark.parametrize("context", [1, 3])
@pytest.mark.parametrize("frameskip", [1, 2, 5])
def test_windows_stay_inside_their_episodes(context, frameskip):
    lengths = np.random.default_rng(0).integers(1, 60, 50)
    windows = choose_windows(lengths, np.arange(0, 50, 2), context=context, frameskip=frameskip)
    last = windows.start + (windows.num_frames - 1) * frameskip
    assert (windows.start >= 0).all()
    assert (last <= lengths[windows.episode] - 1).all()
    assert set(windows.episode) <= set(range(0, 50, 2))


def test_the_horizon_is_cut_to_what_half_of_the_episodes_allow():
    assert farthest(np.array([9, 9, 9, 100]), context=1, frameskip=2) == 4
    assert farthest(np.array([9, 100, 100]), context=1, frameskip=2) == 8
    assert farthest(np.array([2]), context=1, frameskip=2) == 0
    with pytest.raises(UserError, match="need 3 rows, the longest episode here has 2"):
        choose_windows(np.array([2]), np.array([0]), context=1, frameskip=2)


def test_shuffled_actions_come_from_another_episode():
    episode = np.repeat([3, 5, 9], [4, 2, 6])
    assert (episode[others(episode)] != episode).all()
    one = np.zeros(5, dtype=int)
    assert (others(one) != np.arange(5)).all()


def test_no_more_windows_than_asked_for():
    windows = choose_windows(np.full(500, 50), np.arange(500), context=1, frameskip=1, max_windows=40)
    assert len(windows.episode) == 40
    assert len(np.unique(windows.episode)) == 40
