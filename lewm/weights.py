"""Files of tensors, read without running anything: torch's, safetensors, and folders that hold a model whole."""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from lewm.errors import UserError
from lewm.paths import written_atomically

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def read_torch(path: Path) -> Any:
    """What torch wrote: tensors and plain values only, and only if every checksum holds; any error where not."""
    _check_every_byte(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols of foreign files
        return torch.load(path, map_location="cpu", weights_only=True)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name; UserError for a file that is cut or of another kind. The format has no checksums."""
    try:
        return load_file(path)
    except Exception as error:  # whatever hostile bytes make of its reader
        raise UserError(f"not a readable safetensors file: {path}; it may be damaged or of another kind") from error


def are_plain(state: Any) -> bool:
    """Whether these are tensors that take no more room than they have: one number may be shown as a terabyte of it."""
    return isinstance(state, dict) and all(
        isinstance(x, torch.Tensor)
        and x.layout is torch.strided
        and x.device.type == "cpu"
        and x.nbytes <= x.untyped_storage().nbytes()
        for x in state.values()
    )


def is_model_folder(path: Path) -> bool:
    """Whether a folder holds a model as `write_model` leaves it."""
    return (path / WEIGHTS).is_file() and (path / CONFIG).is_file()


def write_model(folder: Path, state: dict[str, Tensor], about: dict[str, Any], steps: int) -> None:
    """Write `model.safetensors`, then `config.json` with its checksum, the model's description and steps trained."""
    with written_atomically(folder / WEIGHTS, needed=sum(x.nbytes for x in state.values())) as temporary:
        temporary.write_bytes(save({name: x.contiguous() for name, x in state.items()}, metadata={"format": "pt"}))
    write_sealed(folder / CONFIG, {"lewm": about, "global_step": steps, "sha256": sha256(folder / WEIGHTS)})


def read_model(weights: Path) -> dict[str, Any]:
    """What a checkpoint of such a model would hold; UserError where the weights are not those that were written."""
    path = weights.parent / CONFIG
    config = read_json(path)
    if not isinstance(config, dict) or "lewm" not in config:
        raise UserError(f"{path} describes no model of lewm; `lewm import` takes weights of others")
    config = unsealed(config, path)
    if config["sha256"] != sha256(weights):
        raise UserError(f"{weights} differs from its checksum in {CONFIG}; copy or export it again")
    state = {f"model.{name}": tensor for name, tensor in read_safetensors(weights).items()}
    return {"lewm": config["lewm"], "global_step": config.get("global_step", 0), "state_dict": state}


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write plain values as JSON with a checksum of their own."""
    write_json(path, content | {"checksum": _checksum(content)})


def unsealed(content: Any, path: Path) -> dict[str, Any]:
    """What was sealed, as `path` holds it; UserError where a value is not the one that was written."""
    plain = {name: value for name, value in content.items() if name != "checksum"} if isinstance(content, dict) else {}
    if not plain or content.get("checksum") != _checksum(plain):
        raise UserError(f"{path} differs from its checksum; copy or export it again")
    return plain


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write plain values, so that no partial file ever stands at `path`."""
    with written_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """A JSON file's content; UserError where there is none, or something else."""
    if not path.is_file():
        raise UserError(f"no such file: {path}; it says what the weights beside it are")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON; restore it") from error


def sha256(path: Path) -> str:
    """Hash of a file's bytes; UserError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _check_every_byte(path: Path) -> None:
    """ValueError where a part differs from its CRC-32, which torch writes but does not read, or would swell."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)  # as torch writes them
        if not stored or sum(part.file_size for part in parts) > path.stat().st_size:
            raise ValueError("its parts are compressed or share bytes")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} differs from its checksum")
