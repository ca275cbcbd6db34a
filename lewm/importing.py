"""`lewm import`: published weights become a run of ours, with what no weight file says asked for and never guessed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from lewm import checkpoint
from lewm.architecture import Architecture, architecture
from lewm.clip import Interface
from lewm.errors import UserError
from lewm.interop import from_published
from lewm.model.world_model import WorldModel
from lewm.paths import make_folder
from lewm.published import INTERFACE, Published, check_whole, origin, read_published

ASKED = ("image_size", "frameskip", "history")


def import_weights(
    source: str | Path,
    out: str | Path,
    *,
    image_size: int | None = None,
    frameskip: int | None = None,
    history: int | None = None,
    action_mean: tuple[float, ...] | None = None,
    action_std: tuple[float, ...] | None = None,
    data: str | None = None,
    resize: bool = False,
    encoder_heads: int | None = None,
    predictor_heads: int | None = None,
) -> Path:
    """Write `OUT/checkpoints/step=0.ckpt` of published weights; returns its path.

    Args:
        source: a weight file (a state dict, .pt or .safetensors) or a folder of one, with its config.json or without.
        out: run folder to write; it must hold no checkpoint yet.
        image_size: side of the frames the encoder sees, in pixels; None for what a config beside the weights says.
        frameskip: environment steps between two frames; None as above.
        history: frames the predictor sees; None as above.
        action_mean: mean of each action dimension that the model was trained with, in the environment's units.
        action_std: their standard deviations; both, or `data`.
        data: data set of whose training split mean and standard deviation are computed.
        resize: accept frames of another size and resize them.
        encoder_heads: attention heads of the encoder; None for the config's, else heads 64 wide.
        predictor_heads: of the predictor.

    Raises:
        UserError: for what is damaged, pickled as an object, no LeWM, missing, or contradicts the weights.
    """
    published = read_published(source)
    sizes = published.sizes
    heads = {
        "encoder_heads": encoder_heads or sizes.get("encoder_heads"),
        "predictor_heads": predictor_heads or sizes.get("predictor_heads"),
    }
    state = from_published(published.state)
    found = architecture(state, **heads)
    asked = {"image_size": image_size, "frameskip": frameskip, "history": history}
    interface = _interface(published, found, asked, action_mean, action_std, data)
    _check_agrees(interface, found)
    dropout = {"dropout": sizes["dropout"]} if "dropout" in sizes else {}
    model = WorldModel(replace(interface, resize=resize or interface.resize), **found.config, **dropout)
    check_whole(state, {name: tensor.shape for name, tensor in model.state_dict().items()})
    model.load_state_dict(state)
    path = _write(model, Path(out), origin(published))
    _say(published, found, heads)
    return path


def _interface(
    published: Published,
    found: Architecture,
    asked: dict[str, int | None],
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    data: str | None,
) -> Interface:
    """What was given; else what lies beside the weights; else UserError."""
    left = published.interface
    known = {n: asked[n] or left.get(n) or published.sizes.get(n) for n in ASKED}
    if (mean is None) != (std is None):
        raise UserError("--action_mean and --action_std go together")
    if mean is not None and data is not None:
        raise UserError("--data computes what --action_mean and --action_std give; give the one or the others")
    missing = [f"--{name}" for name in ASKED if known[name] is None]
    if mean is None and data is None and "action_mean" not in left:
        missing.append("--action_mean and --action_std, or --data")
    if missing:
        raise UserError(
            f"{published.path.name} does not say what a model is fed with; give {', '.join(missing)} (the weights fit "
            f"frames of {found.image_size} x {found.image_size}, a history of {found.history}, and blocks of "
            f"frameskip x action size = {found.block_size})"
        )
    if data is not None:
        return _from_data(data, known)
    if mean is not None and std is not None:
        _check_statistics(mean, std)
        known |= {"action_mean": mean, "action_std": std}
    try:
        return Interface.from_dict(left | known)
    except TypeError as error:
        raise UserError(f"{published.path.with_name(INTERFACE)} is damaged: {error}") from error


def _from_data(data: str, known: dict[str, Any]) -> Interface:
    """The interface of training on a data set, but for its fingerprint: others split it otherwise, so that no episode
    of it counts as held out.
    """
    from lewm.datasets.datamodule import ClipDataModule

    given = {"frameskip": known["frameskip"], "image_size": known["image_size"]}
    module = ClipDataModule(data, num_frames=known["history"] + 1, **given)
    return replace(module.interface, fingerprint="")


def _check_statistics(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    if len(mean) != len(std) or not mean:
        raise UserError(f"--action_mean has {len(mean)} numbers, --action_std {len(std)}; give one of each a dimension")
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise UserError("--action_mean must be finite and --action_std finite and above 0")


def _check_agrees(interface: Interface, found: Architecture) -> None:
    """UserError where the weights say otherwise."""
    if interface.image_size != found.image_size:
        raise UserError(
            f"--image_size is {interface.image_size}, but the weights' positions are of {found.image_size} x "
            f"{found.image_size} frames; give that (with --resize true other frames are resized to it)"
        )
    if interface.history != found.history:
        raise UserError(f"--history is {interface.history}, but the weights' predictor sees {found.history} frames")
    if interface.channels != found.channels:
        raise UserError(f"the weights take frames of {found.channels} channels, not {interface.channels}")
    if interface.frameskip * interface.action_dim != found.block_size:
        raise UserError(
            f"--frameskip {interface.frameskip} and actions of {interface.action_dim} numbers make blocks of "
            f"{interface.frameskip * interface.action_dim}, but the weights take {found.block_size}"
        )


def _write(model: WorldModel, run: Path, imported: dict[str, str]) -> Path:
    if checkpoint.newest_first(run) if run.is_dir() else run.exists():
        raise UserError(f"{run} holds checkpoints already, or is a file; name another --out")
    path = make_folder(run / "checkpoints") / "step=0.ckpt"
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    checkpoint.write({"lewm": checkpoint.describe(model) | {"imported": imported}, "state_dict": state}, path)
    return path


def _say(published: Published, found: Architecture, heads: dict[str, int | None]) -> None:
    """Print what was left out of the file, and what was assumed because nothing says it."""
    if published.left_out:
        print(f"left out: {', '.join(published.left_out[:5])}{', ...' if published.left_out[5:] else ''}")
    used = {"encoder_heads": found.config["encoder_kwargs"]["num_heads"]}
    used["predictor_heads"] = found.config["predictor_heads"]
    if assumed := [f"--{name} {used[name]}" for name in heads if heads[name] is None]:
        print(f"assumed, as in the paper, heads 64 wide: {', '.join(assumed)}; no shape tells")
