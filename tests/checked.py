"""Checks of annotations at run time: beartype's, but for protocols, which any object may stand in for."""

from __future__ import annotations

from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep3119Exception

CONF = BeartypeConf(is_pep484_tower=True)  # an int is a float


def checked(function: Any) -> Any:
    """The function with its annotations checked; a parameter that is a protocol, which tests fake, is not."""
    hints = getattr(function, "__annotations__", {})
    for name, hint in hints.items():
        hints[name] = Any if _is_protocol(_evaluated(hint, function)) else hint
    try:
        return beartype(conf=CONF)(function)
    except BeartypeDecorHintPep3119Exception:  # a protocol inside another hint
        return function


def _evaluated(hint: Any, function: Any) -> Any:
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, getattr(function, "__globals__", {}))
    except (NameError, TypeError):  # of a name that is imported for type checkers alone
        return None


def _is_protocol(hint: Any) -> bool:
    return getattr(hint, "_is_protocol", False) and not getattr(hint, "_is_runtime_protocol", False)
