"""In which precision to train where nobody says: bfloat16 only where the hardware computes in it."""

from __future__ import annotations

import torch

MIXED, FULL = "bf16-mixed", "32-true"


def best_precision(accelerator: str) -> str:
    """`bf16-mixed` on hardware with bfloat16 units, else `32-true`: a CPU that only emulates it is 16 times slower."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return MIXED if torch.cuda.is_bf16_supported(including_emulation=False) else FULL
    if accelerator == "cpu" or (accelerator == "auto" and not torch.backends.mps.is_available()):
        return MIXED if cpu_computes_bf16() else FULL
    return FULL


def cpu_computes_bf16() -> bool:
    """Whether PyTorch's CPU library has bfloat16 kernels for this processor (AVX-512 or AMX)."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a build without that library
        return False
