"""`lewm doctor`: versions, devices, and what is wrong with this installation."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from lewm import __version__, _compat
from lewm.precision import best_precision

PACKAGES = ("torch", "torchvision", "lightning", "timm", "torchmetrics", "webdataset", "h5py", "numpy", "gymnasium")


def diagnose() -> str:
    """A page of facts, with advice where something is amiss."""
    import torch

    lines = [f"lewm {__version__}, Python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} cores"]
    lines += [f"  {name} {_version(name)}" for name in PACKAGES]
    lines.append(f"torchvision guard: {_compat.ensure_torchvision_importable()}")
    if "replaced" in _compat.outcome:
        lines.append("  lewm needs nothing of it; to use torchvision's own operators, install a build matching torch")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        lines.append(f"accelerators: {', '.join(names)}")
    else:
        lines.append("accelerators: none; training runs on the CPU")
    lines.append(f"precision of training where none is named: {best_precision('auto')}")
    import timm  # noqa: F401  imported to see that it can be

    return "\n".join(lines)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing: pip install lewm again"
