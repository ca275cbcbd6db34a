from dataclasses import replace

import numpy as np
import pytest
from conftest import CountingSource, ExactModel

from lewm.probes.frames import Frames
from lewm.probes.horizon import horizon, seen_by
from lewm.probes.linear import LinearProbe
from lewm.probes.open_loop import PATHS, imagine, open_loop
from lewm.probes.parts import Parts
from lewm.probes.quantities import Reading, Values
from lewm.probes.seams import Scale
from lewm.probes.targets import Quantity

EPISODES = np.arange(24)


class Positions:
    """The counting source with its position as a column."""

    def __init__(self, source):
        self.source, self.lengths = source, source.lengths

    def column(self, name, episode):
        return np.concatenate([[0], np.cumsum(self.source.actions(episode)[:-1, 0])])[:, None]


def reading_of(quantity, num_frames=1, frameskip=2, weight=((1.0,),)):
    """A probe that is exactly right on real embeddings."""
    scale = Scale.of(np.array([[0.0], [20.0], [40.0]]))
    weight = np.array(weight)
    probe = LinearProbe(
        Scale(np.zeros(len(weight)), np.ones(len(weight))), weight / scale.std, -scale.mean / scale.std, 0
    )
    values = Values(
        quantity,
        Frames(EPISODES, EPISODES, 24),
        np.zeros((24, 1)),
        num_frames,
        frameskip,
        np.ones(1, dtype=bool),
        {},
        {},
    )
    parts = [Parts(EPISODES[:0], EPISODES[:0], half) for half in (EPISODES[:10], EPISODES[10:])]
    return Reading(values, [(p, probe, scale) for p in parts], scale, np.zeros((1, 1)), np.zeros((1, 1)), EPISODES[:1])


@pytest.mark.parametrize("blind", [False, True])
def test_quantities_are_read_from_imagined_embeddings_at_the_row_they_are_of(blind):
    source = CountingSource([40] * 24)
    imagined = imagine(ExactModel(blind=blind), source, EPISODES)
    reading = reading_of(Quantity(name="position", column="p", slice=(0, 1), unit="m"))
    rows = horizon(Positions(source), reading, imagined)
    assert [row["h"] for row in rows] == list(range(1, 9))
    for row, error in zip(rows, open_loop(imagined), strict=True):
        assert row["mse"] == pytest.approx(error["mse"] / reading.scale.std[0] ** 2, abs=1e-10)
        assert row["copy_last_mse"] == pytest.approx(error["copy_last_mse"] / reading.scale.std[0] ** 2)
        assert row["shuffled_action_mse"] == pytest.approx(error["shuffled_action_mse"] / reading.scale.std[0] ** 2)
        assert row["r"] == pytest.approx(row["copy_last_r"] if blind else 1)
        assert row["encoded_error"] == pytest.approx(0, abs=1e-5)
        assert row["r_ci95"][0] - 1e-9 <= row["r"] <= row["r_ci95"][1] + 1e-9
        assert (row["zero_action_error"] > row["error"] + 1) != blind  # metres
    assert rows[-1]["copy_last_r"] < 0.99
    assert rows[-1]["error"] == pytest.approx(rows[-1]["copy_last_error"] if blind else 0, abs=1e-4)


def test_a_velocity_is_read_from_imagined_frames_and_the_real_ones_before_them():
    source = CountingSource([40] * 24)
    imagined = imagine(ExactModel(), source, EPISODES)
    speed = Quantity(name="speed", column="p", slice=(0, 1), kind="velocity")
    scale = Scale.of(np.array([[0.0], [20.0], [40.0]]))
    # (newest - the one before) / frameskip; the oldest of three frames has no say
    reading = reading_of(speed, num_frames=3, weight=((0.0,), (-0.5,), (0.5,)))
    for row in horizon(Positions(source), reading, imagined):
        assert row["mse"] == pytest.approx(0, abs=1e-9 * scale.std[0])
        assert row["copy_last_error"] > 0.5
    assert seen_by(imagined, "imagined", 1, 3).shape == (len(imagined.real), 3)


def test_every_path_begins_with_the_real_context():
    imagined = imagine(ExactModel(), CountingSource([40] * 24), EPISODES)
    for name in PATHS:
        path = imagined.path(name)
        assert path.shape == imagined.real.shape
        assert np.array_equal(path[:, :3], imagined.real[:, :3])
    assert np.allclose(imagined.path("imagined"), imagined.path("encoded"))


def test_a_quantity_that_is_unknown_at_a_horizon_has_no_numbers_there():
    class Unknown(Positions):
        def column(self, name, episode):
            values = super().column(name, episode).astype(float)
            values[:] = np.nan
            return values

    source = CountingSource([40] * 24)
    rows = horizon(
        Unknown(source),
        reading_of(Quantity(name="p", column="p", slice=(0, 1))),
        imagine(ExactModel(), source, EPISODES),
    )
    assert all(row["n"] == 0 and row["r"] is None and row["encoded_error"] is None for row in rows)


def test_a_probe_that_sees_more_frames_than_there_are_says_nothing_yet():
    source = CountingSource([60] * 24)
    imagined = imagine(ExactModel(history=1), source, EPISODES)
    speed = Quantity(name="speed", column="p", slice=(0, 1), kind="velocity", frames=3)
    rows = horizon(Positions(source), reading_of(speed, num_frames=3, weight=((0.0,), (-0.5,), (0.5,))), imagined)
    assert [row["r"] is None for row in rows] == [True] + [False] * 7
    assert rows[1]["encoded_error"] == pytest.approx(0, abs=1e-5)


def test_each_fold_reads_the_windows_of_its_own_test_episodes():
    """The second fold's probe is wrong on purpose: only its episodes may be off."""
    source = CountingSource([40] * 24)
    imagined = imagine(ExactModel(), source, EPISODES)
    reading = reading_of(Quantity(name="p", column="p", slice=(0, 1)))
    (first, probe, scale), (second, _, _) = reading.folds
    wrong = replace(probe, bias=probe.bias + 1)
    both = replace(reading, folds=[(first, probe, scale), (second, wrong, scale)])
    read = both.of(seen_by(imagined, "encoded", 1, 1), imagined.windows.episode)
    right = reading.of(seen_by(imagined, "encoded", 1, 1), imagined.windows.episode)
    off = np.isin(imagined.windows.episode, second.test)
    assert np.allclose(read[~off], right[~off]) and np.allclose(read[off], right[off] + scale.std)


def test_windows_in_which_it_is_unknown_are_left_out_alone():
    class Partly(Positions):
        def column(self, name, episode):
            values = super().column(name, episode).astype(float)
            return values * np.nan if episode % 2 else values

    source = CountingSource([40] * 24)
    imagined = imagine(ExactModel(), source, EPISODES)
    (row, *_) = horizon(Partly(source), reading_of(Quantity(name="p", column="p", slice=(0, 1))), imagined)
    assert row["n"] == (imagined.windows.episode % 2 == 0).sum() and row["episodes"] == 12
    assert row["r"] == pytest.approx(1)
