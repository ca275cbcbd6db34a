"""Checks of solvers' settings, shared by all of them."""

from __future__ import annotations

from lewm.errors import UserError


def at_least(least: float, **settings: float) -> None:
    """UserError naming the first setting below `least`, or that is no number."""
    for name, value in settings.items():
        if not value >= least:
            raise UserError(f"a solver's {name} must be at least {least:g}, not {value}")


def above(bound: float, **settings: float) -> None:
    """UserError naming the first setting that is not above `bound`."""
    for name, value in settings.items():
        if not value > bound:
            raise UserError(f"a solver's {name} must be above {bound:g}, not {value}")


def one_of(allowed: tuple[str, ...], **settings: str) -> None:
    """UserError naming the first setting that is none of the allowed words."""
    for name, value in settings.items():
        if value not in allowed:
            raise UserError(f"a solver's {name} is one of {', '.join(allowed)}, not {value!r}")


def elites_among(elites: int, samples: int) -> None:
    """UserError unless 1 <= elites <= samples."""
    if not 1 <= elites <= samples:
        raise UserError(f"a solver's elites must be 1 to its {samples} samples, not {elites}")
