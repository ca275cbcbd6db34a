"""`lewm fit --replay FILE`: run again the step at which training met a loss or gradient that is not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision, MixedPrecision, Precision
from torch import Tensor, nn

from lewm import checkpoint
from lewm.clip import ClipBatch, Interface
from lewm.errors import UserError
from lewm.guard import norms_of_parts
from lewm.module import LeWM, step_seed


def replay(path: str | Path) -> int:
    """Print losses, gradient norms and the first part whose output is not finite; 3 if one is found, else 0.

    Weights, clips, directions, augmentation and precision are those of the step; dropout is that of one process.
    """
    content = checkpoint.read(path)
    if "replay" not in content:
        raise UserError(
            f"{path} holds no batch; --replay takes the file that a stopped run names, RUN/stopped/step=N.ckpt"
        )
    about, device = content["replay"], torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = _precision(about["precision"], device, path)
    module = _module(content).to(device)
    precision.convert_module(module)
    batch = precision.convert_input(ClipBatch(**{name: x.to(device) for name, x in about["batch"].items()}))
    torch.manual_seed(step_seed(module.seed, about["step"], 0))
    first = _watch(module.model)
    with precision.forward_context():
        losses = module.training_losses(batch, about["step"])
    losses["loss"].backward()
    norms = norms_of_parts(module.model)
    print(f"step {about['step']}, {len(batch.index)} clips, {about['precision']} on {device.type}")
    print("losses: " + ", ".join(f"{name} {float(x.detach()):.6g}" for name, x in losses.items()))
    print("gradient norms: " + ", ".join(f"{name} {norm:.4g}" for name, norm in norms.items()))
    for line in _not_finite(module.model, batch, first):
        print(line)
    finite = all(map(torch.isfinite, losses.values())) and all(torch.isfinite(torch.tensor(list(norms.values()))))
    if finite:
        print("everything is finite here: other hardware, precision or dropout than in the run")
    return 0 if finite else 3


def _precision(name: Any, device: torch.device, path: str | Path) -> Precision:
    """Lightning's own, which the run had."""
    if name in ("bf16-mixed", "16-mixed"):
        return MixedPrecision(name, device.type)
    if name in ("bf16-true", "16-true"):
        return HalfPrecision(name)
    if name in ("32-true", "64-true"):
        return DoublePrecision() if name == "64-true" else Precision()
    raise UserError(f"{path} is of a run in {name}, in which no step is run again; train in another precision")


def _module(content: dict[str, Any]) -> LeWM:
    about, prefix = content["lewm"], "model."
    objective = dict(content["replay"]["objective"])
    objective["sigreg_range"] = tuple(objective["sigreg_range"])
    module = LeWM(Interface.from_dict(about["interface"]), **objective, **about["config"])
    module.model.load_state_dict({name.removeprefix(prefix): x for name, x in content["state_dict"].items()})
    return module.train()


def _watch(model: nn.Module) -> list[str]:
    """A list that will hold the names of parts with outputs that are not finite, innermost and earliest first."""
    found: list[str] = []

    def note(name: str) -> Any:
        return lambda part, given, out: found.append(name) if isinstance(out, Tensor) and not _finite(out) else None

    for name, part in model.named_modules():
        part.register_forward_hook(note(name or "the model"))
    return found


def _finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x).all())


def _not_finite(model: nn.Module, batch: ClipBatch, first: list[str]) -> list[str]:
    """One line for each place in which values are not finite, in the order in which they pass them on."""
    places = [f"the weights {name}" for name, p in model.named_parameters() if not _finite(p)]
    rows = ~torch.isfinite(batch.actions).flatten(1).all(1)
    lines = [f"not finite: {places[0]}" + (f" and {len(places) - 1} more" if places[1:] else "")] if places else []
    if rows.any():
        lines.append(f"not finite: the actions of clips {batch.index[rows].tolist()}")
    return lines + ([f"not finite first: the output of {first[0]}"] if first else [])
