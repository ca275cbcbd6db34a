import numpy as np
import pytest
from scipy import stats

from lewm.errors import UserError
from lewm.probes.calibration import Calibration, Ordinary, Usual


def steps(rng, n, episodes=60, d=6):
    """Errors that grow with the size of action and motion, and are larger in some dimensions."""
    known = rng.uniform(0.2, 3, (n, 2))
    error = rng.normal(size=(n, d)) * np.arange(1, d + 1) * known.prod(axis=1, keepdims=True)
    return Ordinary(error, known, rng.integers(0, episodes, n))


def test_p_values_of_ordinary_steps_are_uniform():
    rng = np.random.default_rng(0)
    found = Calibration(steps(rng, 4000))
    new = steps(rng, 4000)
    p = found.p_values(found.score(new.error, new.known))
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert (p <= 0.01).mean() == pytest.approx(0.01, abs=0.006)


def test_it_is_the_rank_among_scores_that_know_nothing_of_their_own_episode():
    ordinary = steps(np.random.default_rng(0), 400)
    found = Calibration(ordinary, seed=3)
    assert len(found.ranks) == 400
    for score in (0.0, 0.3, 2.0, 1e9, *found.ranks[[0, 17, 200, -1]]):  # as large counts as at least as large
        expected = (1 + (found.ranks >= score).sum()) / 401
        assert found.p_values(np.array([score]))[0] == expected
    assert np.isnan(found.p_values(np.array([np.nan]))).all()


def test_ties_count_so_that_errors_that_are_all_alike_are_not_rare():
    found = Calibration(Ordinary(np.ones((240, 2)), np.ones((240, 2)), np.repeat(np.arange(12), 20)))
    assert (found.ranks == found.ranks[0]).all()
    score = found.score(np.ones((1, 2)), np.ones((1, 2)))
    assert found.p_values(score).tolist() == [1]
    assert found.p_values(np.nextafter(score, np.inf)).tolist() == [1 / 241]


def test_an_episode_with_errors_of_its_own_is_rare_although_it_is_among_the_ordinary_ones():
    # Were it ranked by what is usual in itself as well, its errors would look usual.
    rng = np.random.default_rng(0)
    ordinary = steps(rng, 600, episodes=20)
    strange = ordinary.episode == 7
    ordinary.error[strange] = 0
    ordinary.error[strange, 0] = 100
    found = Calibration(ordinary)
    alone = Usual(ordinary.error[~strange], ordinary.known[~strange])
    largest = np.sort(alone.score(ordinary.error[strange], ordinary.known[strange]))
    assert found.ranks[-strange.sum() :].max() >= 0.5 * largest[-1]


def test_an_error_that_is_usual_for_a_large_motion_is_rare_for_a_small_one():
    found = Calibration(steps(np.random.default_rng(0), 4000))
    error = np.arange(1, 7) * 3.0
    small, large = found.score(np.stack([error, error]), np.array([[0.3, 0.3], [2.5, 2.5]]))
    p_small, p_large = found.p_values(np.array([small, large]))
    assert small > 100 * large and p_small < 0.005 and p_large > 0.2


def test_dimensions_count_by_what_is_usual_in_them():
    found = Calibration(steps(np.random.default_rng(0), 4000))
    error = np.eye(6)[[0, 5]] * 5.0  # as large, but in a quiet and in a loud dimension
    quiet, loud = found.score(error, np.ones((2, 2)))
    assert quiet == pytest.approx(36 * loud, rel=0.2)


def test_scores_of_ordinary_steps_are_about_1_whatever_the_motion():
    rng = np.random.default_rng(0)
    found, new = Calibration(steps(rng, 6000)), steps(rng, 6000)
    score, size = found.score(new.error, new.known), new.known.prod(axis=1)
    for low, high in ((0, 0.5), (0.5, 2), (2, 9)):
        # Neighbours are not quite alike; unscaled, the three means lie apart by a factor of more than 100.
        assert score[(size > low) & (size <= high)].mean() == pytest.approx(1, abs=0.35)


def test_shapes_of_clips_are_kept():
    found = Calibration(steps(np.random.default_rng(0), 400))
    assert found.score(np.ones((2, 5, 6)), np.ones((2, 5, 2))).shape == (2, 5)


@pytest.mark.parametrize(("n", "episodes"), [(100, 60), (1000, 3)])
def test_too_few_ordinary_steps_are_refused(n, episodes):
    with pytest.raises(UserError, match="needs 200 ordinary steps of at least 4"):
        Calibration(steps(np.random.default_rng(0), n, episodes))
