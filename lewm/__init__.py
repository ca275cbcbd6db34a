"""lewm: offline JEPA world models from raw pixels. Importing it is cheap; its attributes load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lewm import _compat

if TYPE_CHECKING:
    from lewm.checkpoint import load
    from lewm.clip import ClipBatch, Interface
    from lewm.datasets.datamodule import ClipDataModule
    from lewm.datasets.schema import open_source
    from lewm.errors import UserError
    from lewm.hub import HubModel
    from lewm.model.world_model import WorldModel
    from lewm.module import LeWM

_compat.install()

__version__ = "0.1.0"
_HOMES = {
    "load": "lewm.checkpoint",
    "ClipBatch": "lewm.clip",
    "Interface": "lewm.clip",
    "ClipDataModule": "lewm.datasets.datamodule",
    "open_source": "lewm.datasets.schema",
    "UserError": "lewm.errors",
    "HubModel": "lewm.hub",
    "WorldModel": "lewm.model.world_model",
    "LeWM": "lewm.module",
}
__all__ = [
    "ClipBatch",
    "ClipDataModule",
    "HubModel",
    "Interface",
    "LeWM",
    "UserError",
    "WorldModel",
    "__version__",
    "load",
    "open_source",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lewm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
