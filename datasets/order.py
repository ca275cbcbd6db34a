"""The order of training clips: a pure function of (seed, epoch, position), independent of ranks and workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from torch.utils.data import Sampler

SHARDS = 2**64 - 1  # the stream that permutes shards; those that permute clips count from 0


def permutation(seed: int, epoch: int, n: int, *, stream: int = 0) -> np.ndarray:
    """Order of all `n` clips in one epoch; other streams of the same epoch are independent of it.

    A stable argsort of Philox's raw stream, which NumPy promises to keep; it makes no such promise for
    `Generator.permutation`.
    """
    # The counter's highest word: the streams lie 2^192 blocks apart.
    counter = np.array([0, 0, 0, stream], dtype=np.uint64)
    numbers = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64), counter=counter)
    return np.argsort(numbers.random_raw(n), kind="stable")


def shard_windows(seed: int, epoch: int, num_shards: int, window: int) -> list[np.ndarray]:
    """Shards in the order in which an epoch visits them, cut into windows; each window's numbers ascend.

    Windows are cut as evenly as can be, so each holds `window` to 2 `window` - 1 shards, or all there are: a small
    one left over at the end would mix badly.
    """
    order = permutation(seed, epoch, num_shards, stream=SHARDS)
    return [np.sort(shards) for shards in np.array_split(order, max(1, num_shards // window))]


def windowed_permutation(seed: int, epoch: int, clips_per_shard: np.ndarray, window: int) -> np.ndarray:
    """Order of all clips in one epoch, those of a window of shards pooled and permuted; clips are numbered by shard.

    A window is begun when the one before it is used up, so few shards are needed at a time. One window alone gives
    the global permutation itself.
    """
    ends = np.cumsum(clips_per_shard)
    starts = ends - clips_per_shard
    parts = []
    for i, shards in enumerate(shard_windows(seed, epoch, len(clips_per_shard), window)):
        pool = np.concatenate([np.arange(int(starts[s]), int(ends[s])) for s in shards])
        parts.append(pool[permutation(seed, epoch, len(pool), stream=i)])
    return np.concatenate(parts)


class GlobalOrderSampler(Sampler[list[int]]):
    """This rank's clips of every global batch, from wherever training stands.

    `position` tells how many clips all ranks have consumed together: the only state there is, and it is the trainer's,
    since workers fetch ahead of training. The length is always that of a whole epoch; an epoch begun before is ended
    first. The remainder that does not fill a global batch is dropped, another one in every epoch. `order` makes the
    order of all clips from (seed, epoch), one permutation where it is None; `before` is told (epoch, clips drawn in it)
    before each batch.
    """

    def __init__(
        self,
        num_clips: int,
        *,
        global_batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        position: Callable[[], int] = lambda: 0,
        order: Callable[[int, int], np.ndarray] | None = None,
        before: Callable[[int, int], object] = lambda epoch, clips: None,
    ) -> None:
        assert num_clips >= global_batch and global_batch % world == 0
        self.num_clips, self.global_batch, self.seed = num_clips, global_batch, seed
        self.rank, self.world, self.position = rank, world, position
        self.order, self.before = order or partial(permutation, n=num_clips), before

    def __len__(self) -> int:
        return self.num_clips // self.global_batch

    def __iter__(self) -> Iterator[list[int]]:
        epoch, first = divmod(self.position() // self.global_batch, len(self))
        order = self.order(self.seed, epoch)
        for batch in range(first, len(self)):
            self.before(epoch, batch * self.global_batch)
            clips = order[batch * self.global_batch : (batch + 1) * self.global_batch]
            yield clips[self.rank :: self.world].tolist()


class EvaluationSampler(Sampler[list[int]]):
    """All clips once, in one fixed mixed order; every rank yields as many batches of the same size.

    Mixed, since neighbouring clips share frames: a batch of neighbours is far from Gaussian whatever the model.
    Padding repeats clip 0 and is marked by the negative number -1 - clip = -1; it gets weight 0.
    """

    def __init__(self, num_clips: int, *, batch: int, rank: int = 0, world: int = 1) -> None:
        self.num_clips, self.batch, self.rank, self.world = num_clips, batch, rank, world

    def __len__(self) -> int:
        return -(-self.num_clips // (self.batch * self.world))

    def __iter__(self) -> Iterator[list[int]]:
        order = permutation(0, 0, self.num_clips).tolist()
        for step in range(len(self)):
            low = (step * self.world + self.rank) * self.batch
            clips = order[low : low + self.batch]
            yield clips + [-1] * (self.batch - len(clips))
