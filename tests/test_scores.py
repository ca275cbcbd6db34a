import numpy as np
import pytest

from lewm.probes.scores import score
from lewm.probes.seams import Scale
from lewm.probes.targets import Quantity


def walked(episodes=40, rows=25, seed=0):
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(episodes, 1, 2)) * [1, 100] + rng.normal(size=(episodes, rows, 2)).cumsum(1) * [0.1, 10]
    return true.reshape(-1, 2), np.repeat(np.arange(episodes), rows)


def test_scores_are_those_of_the_paper_and_the_error_is_in_the_quantitys_unit():
    true, episode = walked()
    read = true + np.random.default_rng(1).normal(size=true.shape) * [0.3, 30]
    scale, quantity = Scale.of(true), Quantity(name="q", column="q", slice=(0, 2), unit="m")
    found = score(quantity, scale, true, read, episode)
    z, y = (true - true.mean(0)) / true.std(0), (read - true.mean(0)) / true.std(0)
    assert found["mse"] == pytest.approx(((z - y) ** 2).mean())
    assert found["mse_std"] == pytest.approx(((z - y) ** 2).mean(1).std())
    assert found["r"] == pytest.approx(np.mean([np.corrcoef(z[:, i], y[:, i])[0, 1] for i in range(2)]), abs=1e-6)
    distance = np.linalg.norm(true - read, axis=1)
    assert found["error"] == pytest.approx(distance.mean())
    assert (found["error_median"], found["error_p90"]) == pytest.approx(
        (np.median(distance), np.quantile(distance, 0.9))
    )
    assert found["error_ci95"][0] < found["error"] < found["error_ci95"][1]
    assert found["ci_reliable"] is True and "seen" not in found


def test_the_unit_in_which_a_quantity_is_stored_changes_its_error_alone():
    true, episode = walked()
    read = true + 0.1
    scores = []
    for factor in (1.0, 1000.0):
        quantity = Quantity(name="q", column="q", slice=(0, 2))
        scores.append(score(quantity, Scale.of(true * factor), true * factor, read * factor, episode))
    assert scores[1]["mse"] == pytest.approx(scores[0]["mse"]) and scores[1]["r_ci95"] == pytest.approx(
        scores[0]["r_ci95"]
    )
    assert scores[1]["error"] == pytest.approx(1000 * scores[0]["error"])


def test_few_episodes_make_an_interval_unreliable():
    quantity = Quantity(name="q", column="q", slice=(0, 2))
    for episodes, reliable in ((19, False), (20, True)):
        true, episode = walked(episodes=episodes)
        assert score(quantity, Scale.of(true), true, true + 1, episode)["ci_reliable"] is reliable
