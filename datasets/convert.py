"""Any readable source to shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lewm.datasets.foreign import LAYOUTS, Choice, Foreign, open_foreign
from lewm.datasets.manifest import MANIFEST
from lewm.datasets.pixels import choose_codec
from lewm.datasets.schema import Source, open_source
from lewm.datasets.shard_writer import SHARD_BYTES, TRIAL_FRAMES, EpisodeWriter, is_finished
from lewm.errors import UserError
from lewm.progress import track


def convert(
    src: str | Path,
    dst: str | Path,
    *,
    codec: str = "auto",
    image_size: int | None = None,
    resume: bool = False,
    shard_bytes: int = SHARD_BYTES,
    choice: Choice | None = None,
) -> None:
    """Write every episode of `src` to shards under `dst`, each column in its own dtype, frames at `image_size`.

    `choice` says which camera, actions and frame rate of another tool's data set. An interrupted conversion goes on
    with `resume`, and only from the source and settings that it began with.
    """
    if image_size is not None and image_size < 1:
        raise UserError(f"--image-size is {image_size}; it must be at least 1")
    if shard_bytes < 1:
        raise UserError("--shard-mb must be at least 1")
    source = _opened(src, choice or Choice())
    provenance = {"source": source.path.name, "source_fingerprint": source.fingerprint(), "image_size": image_size}
    if isinstance(source, Foreign):
        provenance |= source.provenance
        _say_what_is_lost(source)
    if resume and is_finished(dst, provenance=provenance, episodes=len(source.lengths)):
        return
    if codec == "auto":
        codec = choose_codec(_resized(source.frames(0, np.arange(min(TRIAL_FRAMES, source.lengths[0]))), image_size))
    writer = EpisodeWriter(dst, codec=codec, shard_bytes=shard_bytes, resume=resume, provenance=provenance)
    if writer.keys_done != source.keys[: writer.done]:
        raise UserError(f"the finished shards in {dst} are not the first episodes of {src}; choose another folder")
    with writer:
        writer.expect({**provenance, "codec": codec})
        for e in track(range(writer.done, len(source.lengths)), "converting episodes"):
            frames = _resized(source.frames(e, np.arange(source.lengths[e])), image_size)
            writer.add(frames, _columns(source, e), key=source.keys[e])


def _opened(src: str | Path, choice: Choice) -> Source:
    if "://" not in str(src):
        if (foreign := open_foreign(src, choice)) is not None:
            return foreign
        path = Path(src)
        if path.is_dir() and not (path / MANIFEST).exists() and not any(path.glob("*.tar")):
            raise UserError(f"{src} is no data set of {', '.join(LAYOUTS)}, and no shards; give the set's own folder")
    if choice != Choice():
        raise UserError(f"--camera, --action and --fps are for other tools' layouts; {src} has one of each")
    return open_source(src)


def _say_what_is_lost(source: Foreign) -> None:
    if source.lossy:
        print(f"notice: the frames of {source.path} have been through {source.lossy}, which is lossy")
    if source.left_out:
        print(f"notice: left out, being neither numbers nor words: {', '.join(source.left_out)}")


def _columns(source: Source, episode: int) -> dict[str, np.ndarray]:
    return {name: source.column(name, episode) for name in source.columns}


def _resized(frames: np.ndarray, image_size: int | None) -> np.ndarray:
    """Frames whose sides are `image_size`, by averaging areas."""
    if image_size is None or frames.shape[1:3] == (image_size, image_size):
        return frames
    size = (image_size, image_size)
    grey = frames.shape[-1] == 1
    images = (Image.fromarray(f[..., 0] if grey else f).resize(size, Image.Resampling.BOX) for f in frames)
    return np.stack([np.asarray(image).reshape(*size, frames.shape[-1]) for image in images])
