"""The manifest of a folder of shards: what it must say, its checksum, and how it is read."""

from __future__ import annotations

import json
import re
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from lewm.datasets.pixels import CODECS
from lewm.errors import UserError

FORMAT = 1
MANIFEST = "manifest.json"
SHARD = re.compile(r"shard-\d{6,}\.tar")
CHECKSUM = "checksum"


def checksum_of(manifest: dict[str, Any]) -> str:
    """Hash of all else that a manifest says, however it is laid out: 32 hex digits."""
    rest = {name: value for name, value in manifest.items() if name != CHECKSUM}
    return blake2b(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode(), digest_size=16).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest; UserError where it is missing (the writer did not finish), damaged or not ours."""
    path = folder / MANIFEST
    if not path.exists():
        raise UserError(
            f"{folder} has no {MANIFEST}: no data set, or an incomplete one; `lewm convert --resume` ends it"
        )
    try:
        return parse_manifest(path.read_bytes())
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); restore it or convert again") from error


def parse_manifest(content: bytes) -> dict[str, Any]:
    """A manifest's bytes, checked; ValueError that says why where they are damaged, UserError if it is not ours."""
    try:
        manifest = json.loads(content.decode("utf-8"))
        check_manifest(manifest)
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise ValueError(why) from error
    return manifest


def check_manifest(manifest: dict[str, Any]) -> None:
    """ValueError, KeyError or TypeError where a manifest contradicts its checksum or itself; UserError if not ours.

    Manifests of earlier versions have no checksum.
    """
    if CHECKSUM in manifest and manifest[CHECKSUM] != checksum_of(manifest):
        raise ValueError("it differs from its checksum")
    if manifest["format"] > FORMAT:
        raise UserError(f"it is of format {manifest['format']}, this version reads up to {FORMAT}; update lewm")
    if not manifest["shards"]:
        raise UserError("it lists no shards; convert again")
    shape = manifest["frame_shape"]
    if len(shape) != 3 or not _all_whole(shape, least=1):
        raise ValueError(f"frames of shape {shape}")
    if manifest["codec"] not in CODECS:
        raise ValueError(f"an unknown codec {manifest['codec']!r}")
    for name, column in manifest["columns"].items():
        if np.dtype(column["dtype"]).hasobject or not _all_whole(column["shape"], least=0):
            raise ValueError(f"column {name!r} of {column}")
    if not isinstance(manifest["fingerprint"], str) or "action" not in manifest["columns"]:
        raise ValueError("no fingerprint, or no column `action`")
    for shard in manifest["shards"]:
        _check_shard(shard)
    files = [shard["file"] for shard in manifest["shards"]]
    if len(set(files)) != len(files):
        raise ValueError("a shard stands twice")


def _check_shard(shard: dict[str, Any]) -> None:
    lengths, keys = shard["lengths"], shard["keys"]
    if not isinstance(shard["file"], str) or not SHARD.fullmatch(shard["file"]):
        raise ValueError(f"{shard['file']!r} is no name of a shard")
    if not isinstance(shard["sha256"], str) or not _all_whole([shard["bytes"], shard["episodes"], *lengths], least=1):
        raise ValueError(f"sizes of {shard['file']}")
    if not len(lengths) == len(keys) == shard["episodes"] or not all(isinstance(key, str) for key in keys):
        raise ValueError(f"episodes of {shard['file']}")


def _all_whole(values: list[Any], *, least: int) -> bool:
    return all(type(value) is int and value >= least for value in values)
