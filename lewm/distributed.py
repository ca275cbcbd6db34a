"""Sums over ranks that gradients pass through, and the BatchNorm built on them; identities on one process."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# Gloo raises plain RuntimeErrors; these words are in them, the first in those that name gloo's own source file.
LOST = ("gloo/", "caused pair closure", "closed by peer", "reset by peer", "Broken pipe", "Timed out waiting")


def world_size() -> int:
    """Processes in the default group; 1 where there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def tells_of_a_lost_rank(error: BaseException) -> bool:
    """Whether torch says by this error that another process is gone, or did not answer within the timeout."""
    said = str(error)
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(words in said for words in LOST)
    )


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # d(sum over ranks of the loss)/dx: every rank's loss depends on this rank's x.
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum of `x` over ranks, the same on each; its gradient is summed over ranks too.

    A loss computed alike on every rank from such sums has, after DDP's averaging of gradients, exactly the gradient
    of one process that holds the whole batch: backward counts it once per rank, DDP divides by the ranks.
    """
    return x if world_size() == 1 else _SumOverRanks.apply(x)  # type: ignore[return-value]


def mean_over_ranks(x: Tensor, dim: int = 0) -> Tensor:
    """Mean along `dim` of the concatenation over ranks (whose sizes along it may differ); differentiable."""
    count = sum_over_ranks(torch.tensor(float(x.shape[dim]), device=x.device, dtype=x.dtype))
    return sum_over_ranks(x.sum(dim)) / count


def max_over_ranks(x: Tensor) -> Tensor:
    """Largest value of `x` on any rank, elementwise and without gradient."""
    if world_size() == 1:
        return x.detach()
    largest = x.detach().clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


def for_sums(device: torch.device) -> torch.dtype:
    """The type in which sums over rows are formed: float64, whose order of summation cannot be seen in float32.

    Apple's GPUs have float32 only.
    """
    return torch.float32 if device.type == "mps" else torch.float64


def gather_over_ranks(x: Tensor) -> Tensor:
    """Rows of all ranks, (ranks, ...), without gradient; each must hold as many."""
    if world_size() == 1:
        return x.detach()[None]
    rows = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(rows, x.detach().contiguous())
    return torch.stack(rows)


class _Normalise(torch.autograd.Function):
    """(x - mean) / std over the rows of all ranks, and their count, mean and variance.

    Sums are float64, forwards and backwards. Frames of one scene differ little: the std of a feature is 1 % of its
    mean, and what float32 loses in sums over rows comes back a hundredfold, the same in every row, so that it adds up
    in all gradients below. In float64 the order of summation, which ranks change, cannot be seen any more.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        shape, dims = [1, -1] + [1] * (x.dim() - 2), [d for d in range(x.dim()) if d != 1]
        wide = x.to(for_sums(x.device))
        sums = _total(torch.cat([wide.sum(dims), wide.new_tensor([x.numel() / x.shape[1]])]))
        count = sums[-1]
        mean = sums[:-1] / count
        wide = wide - mean.view(shape)  # centred first: E[x^2] - E[x]^2 loses digits
        var = _total(wide.square().sum(dims)) / count
        rstd = torch.rsqrt(var + eps)
        y = (wide * rstd.view(shape)).to(x.dtype)
        ctx.save_for_backward(y, rstd, count)
        ctx.mark_non_differentiable(count, mean, var)
        return y, count, mean, var

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        y, rstd, count = ctx.saved_tensors
        shape, dims = [1, -1] + [1] * (y.dim() - 2), [d for d in range(y.dim()) if d != 1]
        wide, scaled = (part.to(for_sums(y.device)) for part in (grads[0], y))
        means = _total(torch.stack([wide.sum(dims), (wide * scaled).sum(dims)])) / count
        dx = (wide - means[0].view(shape) - scaled * means[1].view(shape)) * rstd.view(shape)
        return dx.to(y.dtype), None


def _total(x: Tensor) -> Tensor:
    """Sum over ranks, in place, without a gradient."""
    if world_size() > 1:
        dist.all_reduce(x)
    return x


class BatchNormOverRanks(_BatchNorm):
    """BatchNorm over the global batch, on any device, with the weights and buffers of torch's own.

    torch's SyncBatchNorm refuses CPU tensors. Statistics are formed alike on one rank and on many, also inside
    autocast. `after` is what a backbone's own BatchNorm did after normalising: timm's hold their activation.
    """

    def __init__(self, num_features: int, *args: Any) -> None:
        super().__init__(num_features, *args)
        self.after: nn.Module = nn.Identity()

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected an input of 2 or more dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        single = world_size() == 1 and input.numel() == input.shape[1]  # has no variance: torch's own says so
        if not self.training or single:
            return self.after(super().forward(input))
        with torch.autocast(device_type=input.device.type, enabled=False):
            y = self._normalise(input.float() if input.dtype != torch.float64 else input).to(input.dtype)
        return self.after(y)

    def _normalise(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        y, count, mean, var = _Normalise.apply(x, self.eps)  # type: ignore[misc]
        if self.running_mean is not None:
            self._track(mean, var, count)
        shape = [1, -1] + [1] * (x.dim() - 2)
        return y * self.weight.view(shape) + self.bias.view(shape) if self.affine else y

    def _track(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        rate = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        self.running_var.lerp_((var * count / (count - 1)).to(self.running_var.dtype), rate)


def batch_norms_over_ranks(module: nn.Module) -> nn.Module:
    """Replace every BatchNorm inside `module` (a convolutional backbone's, say) by one over all ranks, in place."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, BatchNormOverRanks):
            args = (child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats)
            new = BatchNormOverRanks(*args)
            new.load_state_dict(child.state_dict())
            inner = [getattr(child, part) for part in ("drop", "act") if hasattr(child, part)]
            if inner:
                new.after = nn.Sequential(*inner)
            setattr(module, name, new.train(child.training))
        else:
            batch_norms_over_ranks(child)
    return module
