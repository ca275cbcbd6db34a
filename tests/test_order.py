"""The global order of clips."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lewm.datasets.order import (
    EvaluationSampler,
    GlobalOrderSampler,
    permutation,
    shard_windows,
    windowed_permutation,
)

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


COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=60).map(np.array)


@settings(deadline=None)
@given(counts=COUNTS, window=st.integers(1, 70), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_windows_give_every_clip_once_in_every_epoch(counts, window, seed, epoch):
    order = windowed_permutation(seed, epoch, counts, window)
    assert sorted(order.tolist()) == list(range(int(counts.sum())))


@given(shards=st.integers(1, 200), window=st.integers(1, 70), epoch=st.integers(0, 9))
def test_every_window_holds_as_many_shards_as_asked_for_or_all(shards, window, epoch):
    windows = shard_windows(3, epoch, shards, window)
    assert sorted(np.concatenate(windows).tolist()) == list(range(shards))
    assert all(min(window, shards) <= len(w) < 2 * window for w in windows)


@settings(deadline=None)
@given(counts=COUNTS, window=st.integers(1, 70), epoch=st.integers(0, 5))
def test_a_window_is_used_up_before_the_next_is_begun(counts, window, epoch):
    owner = np.repeat(np.arange(len(counts)), counts)
    visited = owner[windowed_permutation(7, epoch, counts, window)]
    for shards in shard_windows(7, epoch, len(counts), window):
        pool, visited = visited[: counts[shards].sum()], visited[counts[shards].sum() :]
        assert set(pool.tolist()) == {int(s) for s in shards if counts[s]}
    assert len(visited) == 0


def test_a_batch_comes_from_two_windows_at_most_and_is_mixed_within_one():
    counts = np.full(128, 50)
    order = windowed_permutation(0, 0, counts, 32)
    of_window = np.empty(128, dtype=int)
    for i, shards in enumerate(shard_windows(0, 0, 128, 32)):
        of_window[shards] = i
    batches = (order // 50)[: 6400 // 64 * 64].reshape(-1, 64)
    assert all(len(set(of_window[batch].tolist())) <= 2 for batch in batches)
    assert min(len(set(batch.tolist())) for batch in batches) > 15


def test_windows_differ_between_epochs_and_seeds_in_shards_and_in_clips():
    counts = np.full(12, 30)
    orders = [windowed_permutation(seed, epoch, counts, 3).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    first = {tuple(shard_windows(seed, epoch, 12, 3)[0].tolist()) for seed in (0, 1) for epoch in (0, 1)}
    assert len(first) == 4


def test_one_window_of_all_shards_is_the_global_permutation():
    counts = np.array([3, 0, 5, 9])
    assert windowed_permutation(1, 2, counts, 32).tolist() == permutation(1, 2, 17).tolist()


def test_the_order_in_windows_is_the_same_on_every_machine():
    assert windowed_permutation(1, 2, np.array([3, 2, 3]), 1).tolist() == [2, 0, 1, 4, 3, 6, 5, 7]
    assert [w.tolist() for w in shard_windows(1, 2, 5, 2)] == [[0, 1, 4], [2, 3]]


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("position", [0, 3])
def test_the_order_in_windows_is_that_of_the_global_batch_on_any_number_of_ranks(world, position):
    counts = np.array([10, 20, 5, 30, 1, 37])
    order = partial(windowed_permutation, clips_per_shard=counts, window=2)
    told = []

    def sampler(rank, world, start):
        return GlobalOrderSampler(
            N,
            global_batch=BATCH,
            seed=4,
            rank=rank,
            world=world,
            position=lambda: start * BATCH,
            order=order,
            before=lambda epoch, clips: told.append((epoch, clips)),
        )

    alone = [sorted(batch) for batch in sampler(0, 1, 0)]
    ranks = [list(sampler(rank, world, position)) for rank in range(world)]
    assert [sorted(clip for part in parts for clip in part) for parts in zip(*ranks, strict=True)] == alone[position:]
    assert told[0] == (0, 0)
    assert told[-1] == (0, (N // BATCH - 1) * BATCH)
