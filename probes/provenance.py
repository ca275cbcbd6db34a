"""What a result was measured on, and whether that is still the run's newest checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lewm import checkpoint as checkpoints
from lewm.errors import UserError
from lewm.probes.results import identify

Checkpoint = dict[str, Any]  # path, sha256 and step, as `identify` gives them


def newest_checkpoint(run: Path) -> Checkpoint | None:
    """The run's newest checkpoint; None where it has none that can be read."""
    try:
        return identify(checkpoints.resolve(run))
    except UserError:
        return None


def step_of(checkpoint: Checkpoint) -> str:
    """The optimiser step of a checkpoint in words."""
    step = checkpoint.get("step")
    return "an unknown step" if step is None else f"step {step}"


def origin(result: dict[str, Any]) -> str:
    """Step, data and split of a result, as far as it says so."""
    parts = [step_of(result["checkpoint"])] if result.get("checkpoint") else []
    parts += [str(result["data"]["path"])] if result.get("data") else []
    parts += [f"split {result['split']}"] if result.get("split") else []
    return ", ".join(parts)


def outdated(result: dict[str, Any], newest: Checkpoint | None) -> str | None:
    """Why a result is not about the run's newest checkpoint, None where it is or where that cannot be told."""
    own = result.get("checkpoint")
    if not own or not newest or own.get("sha256") == newest["sha256"]:
        return None
    if own.get("step") == newest["step"]:
        return f"measured on {Path(own['path']).name}, which is not the run's {Path(newest['path']).name}"
    return f"measured on {step_of(own)}, the run is at {step_of(newest)}"


def origin_note(result: dict[str, Any], newest: Checkpoint | None) -> str:
    """Origin of a result, and why it is outdated where it is."""
    return "; ".join(part for part in (origin(result), outdated(result, newest)) if part)
