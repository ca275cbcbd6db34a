"""The global order of clips."""

import numpy as np
import pytest

from lewm.datasets.order import EvaluationSampler, GlobalOrderSampler, permutation

N, BATCH = 103, 12


def run(world: int, position: int = 0, seed: int = 5) -> list[list[int]]:
    """Global batches put together from all ranks, one pass."""
    ranks = [
        list(GlobalOrderSampler(N, global_batch=BATCH, seed=seed, rank=r, world=world, position=lambda: position))
        for r in range(world)
    ]
    return [[ranks[i % world][b][i // world] for i in range(BATCH)] for b in range(len(ranks[0]))]


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_together_see_what_one_process_sees_in_the_same_order(world):
    assert run(world) == run(1)


def test_an_epoch_shows_no_clip_twice_and_epochs_differ():
    first, second = run(1), run(1, position=len(run(1)) * BATCH)
    for epoch in (first, second):
        clips = np.concatenate(epoch)
        assert len(set(clips.tolist())) == len(clips) == N // BATCH * BATCH
    assert first != second


def test_a_count_of_clips_is_all_that_a_resume_needs():
    assert run(1, position=3 * BATCH) == run(1)[3:]
    assert run(2, position=3 * BATCH) == run(1)[3:]


def test_the_length_is_that_of_a_whole_epoch_also_after_a_resume():
    assert len(GlobalOrderSampler(N, global_batch=BATCH, seed=0, position=lambda: 3 * BATCH)) == N // BATCH


def test_the_permutation_is_the_same_on_every_machine():
    assert permutation(1, 2, 8).tolist() == [4, 2, 0, 6, 1, 5, 7, 3]


def test_a_batch_of_evaluation_is_mixed_from_everywhere():
    (first, *_) = EvaluationSampler(1000, batch=50)
    assert max(first) - min(first) > 800
    assert list(EvaluationSampler(1000, batch=50)) == list(EvaluationSampler(1000, batch=50))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_every_clip_once_and_marks_padding(world):
    passes = [list(EvaluationSampler(10, batch=2, rank=r, world=world)) for r in range(world)]
    assert len({len(p) for p in passes}) == 1
    given = [clip for p in passes for batch in p for clip in batch]
    assert sorted(clip for clip in given if clip >= 0) == list(range(10))
    assert all(clip == -1 for clip in given if clip < 0)
