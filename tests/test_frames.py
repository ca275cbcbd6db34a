import numpy as np
import pytest
from conftest import FakeSource

from lewm.probes.frames import Frames, choose_frames, few, read_frames, union


@pytest.mark.parametrize("max_frames", [1, 7, 19, 20, 1000])
def test_frames_are_chosen_evenly_and_inside_their_episodes(max_frames):
    lengths = np.array([5, 1, 9, 40, 6])
    frames = choose_frames(lengths, np.array([0, 2, 4]), max_frames)
    assert len(frames.row) == min(max_frames, 20)
    assert (frames.row < lengths[frames.episode]).all()
    assert set(frames.episode) <= {0, 2, 4}
    assert len(set(zip(frames.episode, frames.row, strict=True))) == len(frames.row)
    assert frames.describe()["frames_available"] == 20


def test_frames_with_others_before_them_start_late_enough():
    lengths = np.array([12, 3, 9])
    frames = choose_frames(lengths, np.arange(3), 100, first=8)
    assert frames.available == 4 + 0 + 1
    assert (frames.row >= 8).all() and (frames.row < lengths[frames.episode]).all()
    assert (frames.before(8).row >= 0).all()


def test_episodes_of_equal_length_do_not_always_show_the_same_rows():
    frames = choose_frames(np.full(2000, 200), np.arange(2000), 4000)
    assert len(np.unique(frames.row)) == 200
    assert np.unique(frames.episode, return_counts=True)[1].max() <= 3
    again = choose_frames(np.full(2000, 200), np.arange(2000), 4000)
    assert np.array_equal(frames.row, again.row)


def test_the_union_has_every_frame_once_in_order():
    a = Frames(np.array([2, 0, 0]), np.array([1, 5, 3]), 9)
    both = union([a, a.before(1), a])
    assert list(zip(both.episode.tolist(), both.row.tolist(), strict=True)) == [
        (0, 2),
        (0, 3),
        (0, 4),
        (0, 5),
        (2, 0),
        (2, 1),
    ]
    assert len(few(both, 4)) == 4 and len(few(both, 40)) == 6
    assert both.of(np.array([2])).row.tolist() == [0, 1]


def test_pixels_stand_at_their_frames():
    source = FakeSource([4, 6])
    frames = Frames(np.array([1, 0, 1]), np.array([5, 2, 0]), 3)
    assert read_frames(source, frames)[:, 0, 0, :2].tolist() == [[1, 5], [0, 2], [1, 0]]
