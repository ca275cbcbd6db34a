"""The order of training clips: a pure function of (seed, epoch, position), independent of ranks and workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler


def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """Order of all `n` clips in one epoch.

    A stable argsort of Philox's raw stream, which NumPy promises to keep; it makes no such promise for
    `Generator.permutation`.
    """
    stream = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64))
    return np.argsort(stream.random_raw(n), kind="stable")


class GlobalOrderSampler(Sampler[list[int]]):
    """This rank's clips of every global batch, from wherever training stands.

    `position` tells how many clips all ranks have consumed together: the only state there is, and it is the trainer's,
    since workers fetch ahead of training. The length is always that of a whole epoch; an epoch begun before is ended
    first. The remainder that does not fill a global batch is dropped, another one in every epoch.
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
    ) -> None:
        assert num_clips >= global_batch and global_batch % world == 0
        self.num_clips, self.global_batch, self.seed = num_clips, global_batch, seed
        self.rank, self.world, self.position = rank, world, position

    def __len__(self) -> int:
        return self.num_clips // self.global_batch

    def __iter__(self) -> Iterator[list[int]]:
        epoch, first = divmod(self.position() // self.global_batch, len(self))
        order = permutation(self.seed, epoch, self.num_clips)
        for batch in range(first, len(self)):
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
