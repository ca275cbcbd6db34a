"""Everything that chooses actions: solvers by name. They know a model only by the protocol of `lewm.plan.protocol`."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from lewm.errors import UserError
from lewm.plan.protocol import Planner

SOLVERS = {
    "cem": ("lewm.plan.cem", "CEM"),
    "icem": ("lewm.plan.icem", "ICEM"),
    "mppi": ("lewm.plan.mppi", "MPPI"),
    "gradient": ("lewm.plan.gradient", "Gradient"),
    "shooting": ("lewm.plan.shooting", "RandomShooting"),
    "random": ("lewm.plan.shooting", "RandomPolicy"),
}


def make_solver(name: str, **settings: Any) -> Planner:
    """A solver with its own settings; UserError for an unknown name or setting, or a value that makes no sense."""
    if name not in SOLVERS:
        raise UserError(f"no solver {name!r}; one of {', '.join(SOLVERS)}")
    module, attribute = SOLVERS[name]
    kind = getattr(import_module(module), attribute)
    taken = inspect.signature(kind).parameters
    for setting in settings:
        if setting not in taken:
            raise UserError(f"solver {name} has no setting {setting!r}; it has {', '.join(taken)}")
    return kind(**settings)
