"""The same work for several parts of a batch at the same time, on a processor.

Within an operation the threads of a processor wait for each other at its end, and small operations use only one. Parts
that share nothing need not wait: each thread takes one through all operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

Work = Callable[[Tensor], Tensor]


def in_threads(work: Work, parts: Sequence[Tensor], num: int) -> list[Tensor]:
    """`work` of each part, in order, by `num` threads with one thread of torch each; without gradients.

    `work` must be safe to run in several threads at once. With one thread or one part it runs here, as ever.
    """
    if num == 1 or len(parts) == 1:
        return [work(part) for part in parts]
    before, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()
    autocast, low = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def one(part: Tensor) -> Tensor:
        torch.set_num_threads(1)
        # all three are a thread's own
        with torch.inference_mode(inference), torch.no_grad(), torch.autocast("cpu", low, enabled=autocast):
            return work(part)

    try:
        with ThreadPoolExecutor(num) as pool:
            return list(pool.map(one, parts))
    finally:
        torch.set_num_threads(before)  # new threads begin with what was set last, anywhere
