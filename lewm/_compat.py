"""Make `import torchvision` work beside a CPU-only torch, where its compiled operators cannot be loaded.

PyPI's torchvision is linked to CUDA; beside a CPU-only torch its extension does not load, and the import then fails
on operators that are not registered. timm, torchmetrics and lightning all import torchvision. The guard loads the
extension as torchvision itself would, and where that fails registers the two operators it asks for, without an
implementation: the import works, calling them raises.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from glob import glob
from typing import Any

_library: Any = None  # keeps the registration alive
outcome = "not needed yet"  # what the guard did, for `lewm doctor`


def ensure_torchvision_importable() -> str:
    """Guard against a torchvision that does not fit torch; returns (and keeps in `outcome`) what it did."""
    global _library, outcome
    if "torchvision" in sys.modules:
        return outcome
    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        outcome = "torchvision is not installed"
        return outcome
    import torch

    folders = spec.submodule_search_locations or []
    libraries = [path for d in folders for path in glob(f"{d}/_C*.so") + glob(f"{d}/_C*.pyd")]
    if _library is None and not _loads(libraries):
        _library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            _library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    outcome = "torchvision matches torch" if _library is None else "torchvision does not fit torch: operators replaced"
    return outcome


def _loads(libraries: list[str]) -> bool:
    import torch

    try:
        for path in libraries:
            torch.ops.load_library(path)
    except OSError:
        return False
    return bool(libraries)


class _Guard(importlib.abc.MetaPathFinder):
    """Runs the guard just before whoever it is imports torchvision for the first time; finds nothing itself."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            ensure_torchvision_importable()


def install() -> None:
    """Arm the guard; costs nothing until torchvision is imported."""
    if "torchvision" not in sys.modules and not any(isinstance(finder, _Guard) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Guard())
