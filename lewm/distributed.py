"""Sums over ranks that gradients pass through, and the BatchNorm built on them; identities on one process."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def world_size() -> int:
    """Processes in the default group; 1 where there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


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


class BatchNormOverRanks(_BatchNorm):
    """BatchNorm over the global batch, on any device, with the weights and buffers of torch's own.

    torch's SyncBatchNorm refuses CPU tensors. Statistics are formed in float32 also inside autocast; the variance from
    centred values, in a second reduction, since E[x^2] - E[x]^2 loses digits. `after` is what a backbone's own
    BatchNorm did after normalising: timm's hold their activation.
    """

    def __init__(self, num_features: int, *args: Any) -> None:
        super().__init__(num_features, *args)
        self.after: nn.Module = nn.Identity()

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected an input of 2 or more dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or world_size() == 1 or self.running_mean is None:
            return self.after(super().forward(input))
        with torch.autocast(device_type=input.device.type, enabled=False):
            y = self._normalise(input.float() if input.dtype != torch.float64 else input).to(input.dtype)
        return self.after(y)

    def _normalise(self, x: Tensor) -> Tensor:
        channels = x.transpose(0, 1).flatten(1)  # (channels, values)
        mean = mean_over_ranks(channels, dim=1)
        var = mean_over_ranks((channels - mean[:, None]) ** 2, dim=1)
        self._track(mean.detach(), var.detach(), sum_over_ranks(x.new_tensor(float(channels.shape[1]))))
        shape = [1, -1] + [1] * (x.dim() - 2)
        y = (x - mean.view(shape)) * torch.rsqrt(var + self.eps).view(shape)
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
