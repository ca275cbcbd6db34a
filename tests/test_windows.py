"""Clips inside episodes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lewm.datasets.windows import action_blocks, clip_rows, frame_rows, locate, num_starts


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20), st.integers(2, 6), st.integers(1, 7))
def test_every_clip_stays_inside_its_episode_and_none_is_missing(lengths, frames, frameskip):
    starts = num_starts(np.array(lengths), frames, frameskip)
    found = [(e, s) for e, s in zip(*(a.tolist() for a in locate(np.arange(starts.sum()), starts)), strict=True)]
    naive = [
        (e, t) for e, length in enumerate(lengths) for t in range(length) if t + (frames - 1) * frameskip + 1 <= length
    ]
    assert found == naive


def test_the_last_row_of_an_episode_is_a_frame_but_never_an_action():
    length, frames, frameskip = 16, 4, 5
    assert num_starts(np.array([length]), frames, frameskip)[0] == 1  # one that asks for 20 rows would lose it
    actions = np.arange(length, dtype=np.float32)[:, None]
    assert frame_rows(0, frames, frameskip)[-1] == length - 1
    assert action_blocks(actions, 0, frames, frameskip).max() == length - 2


@pytest.mark.parametrize(("frames", "frameskip"), [(4, 5), (2, 1), (3, 2)])
def test_block_i_holds_exactly_the_actions_from_frame_i_to_frame_i_plus_1(frames, frameskip):
    actions = np.arange(50, dtype=np.float32)[:, None]
    rows = frame_rows(7, frames, frameskip)
    blocks = action_blocks(actions, 7, frames, frameskip)
    assert blocks.shape == (frames - 1, frameskip, 1)
    for i in range(frames - 1):
        assert blocks[i, :, 0].tolist() == list(range(rows[i], rows[i + 1]))
    assert clip_rows(frames, frameskip) == rows[-1] - rows[0] + 1
