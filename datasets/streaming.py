"""Plain streaming of shards through webdataset: no index, no cache, any number of readers, and nothing exact."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from braceexpand import braceexpand
from webdataset.filters import shuffle as shuffled
from webdataset.gopen import gopen
from webdataset.pipeline import DataPipeline
from webdataset.shardlists import ResampledShards

from lewm.clip import ClipBatch
from lewm.datasets import npy
from lewm.datasets.pixels import PackedFrames
from lewm.datasets.remote import is_remote, of_the_network, without_secrets
from lewm.datasets.split import PARTS, part_of
from lewm.datasets.stats import check_actions
from lewm.datasets.tar_index import BLOCK, MEMBER, member_of
from lewm.datasets.windows import action_blocks, frame_rows, num_starts
from lewm.errors import UserError

MEMBER_BYTES = 2**31  # more is no episode's member: it would have to be held in memory
FRAME_BYTES = 2**26
PIPE = re.compile(r"\s*pipe:", re.IGNORECASE)


class Clip(NamedTuple):
    """One clip: frames (t, h, w, c) uint8 and blocks of actions (t - 1, k, a) float32."""

    pixels: np.ndarray
    actions: np.ndarray


def webdataset_pipeline(
    urls: str | list[str],
    *,
    batch: int = 128,
    num_frames: int = 4,
    frameskip: int = 5,
    batches_per_epoch: int = 1000,
    part: str = "train",
    split_seed: int = 0,
    clips_per_episode: int = 8,
    shuffle: int = 1000,
    allow_pipe: bool = False,
) -> DataPipeline:
    """Batches of clips (`ClipBatch`) from shards drawn at random, with replacement, for ever or so.

    Not exact, unlike `ClipDataModule`: which clips come, how often, and in what order differs from run to run and with
    the number of workers and ranks; nothing can be resumed; neighbours of a batch come from few episodes, the more so
    the smaller `shuffle` is, and SIGReg is a statistic of the batch. An epoch is `batches_per_epoch` batches in every
    worker of every rank. `index` is -1 throughout: a clip has no number here. Give it to a DataLoader with
    `batch_size=None`.

    Members are decoded by our own readers, never by webdataset's `decode`, which unpickles what it finds; other
    members than an episode's are refused. URLs are opened by fsspec, never by a shell.

    Args:
        urls: paths or URLs of shards, with braces if wanted, as `data/pusht/shard-{000000..000009}.tar`.
        batch: clips of a batch.
        num_frames: frames of a clip.
        frameskip: rows between two frames.
        batches_per_epoch: length of an epoch.
        part: of the split by episode: train, val, test or all.
        split_seed: seed of that split.
        clips_per_episode: clips cut from an episode each time that it comes by, at most.
        shuffle: clips held in memory to be mixed.
        allow_pipe: run `pipe:COMMAND` URLs in a shell, which lets whoever wrote the list of URLs run anything.

    Raises:
        UserError: for such a URL without `allow_pipe`; while streaming, for damage and for members of other kinds.
    """
    if part not in (*PARTS, "all"):
        raise UserError(f"unknown part {part!r}; one of {', '.join(PARTS)}, all")

    def clips(samples: Iterable[tuple[str, dict[str, bytes]]]) -> Iterator[Clip]:
        rng = np.random.default_rng()
        for where, members in samples:
            yield from _clips(where, members, num_frames, frameskip, clips_per_episode, (part, split_seed), rng)

    stages = (
        ResampledShards(expand(urls, allow_pipe=allow_pipe)),
        _samples,
        clips,
        shuffled(shuffle, initial=shuffle),
        lambda found: _batches(found, batch),
    )
    return DataPipeline(*stages).with_epoch(batches_per_epoch)


def expand(urls: str | list[str], *, allow_pipe: bool = False) -> list[str]:
    """Each URL that lists, braces and `::` stand for; UserError if one is a `pipe:` that is not allowed."""
    given = [urls] if isinstance(urls, str) else urls
    found = [url for text in given for part in text.split("::") for url in braceexpand(part)]
    for url in found:
        if PIPE.match(url) and not allow_pipe:
            raise UserError("a URL that begins with pipe: runs a command; if you trust the list, allow_pipe=True")
    if not found:
        raise UserError("no URL of a shard was given")
    return found


def _samples(sources: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Every episode of every shard that comes: where it lies, and its members by extension."""
    for source in sources:
        url = source["url"]
        try:
            with closing(_opened(url)) as stream:
                yield from _episodes(stream, without_secrets(url))
        except UserError:
            raise
        except Exception as error:
            if not isinstance(error, OSError) and not of_the_network(error):
                raise
            text = without_secrets(" ".join(str(error).split()))
            raise UserError(f"cannot read {without_secrets(url)}: {type(error).__name__}: {text}") from None


def _opened(url: str) -> Any:
    if PIPE.match(url):
        return gopen(url.strip(), "rb")
    if not is_remote(url):
        return open(url, "rb")
    import fsspec

    # Over HTTP one request, read as it comes: without blocks, and with some size given, so that none is asked for.
    options = {"block_size": 0, "size": 1} if url.startswith("http") else {}
    try:
        fs, path = fsspec.url_to_fs(url)
        return fs.open(path, "rb", **options)
    except ImportError:
        raise UserError(f"{without_secrets(url)} needs what is not installed: pip install 'lewm[remote]'") from None


def _episodes(stream: BinaryIO, where: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Read a tar from its beginning; UserError for damage, a missing end, and for what is no episode's member."""
    sample, members = "", {}
    while (header := _exactly(stream, BLOCK, where)).strip(b"\0"):
        try:
            name, size = member_of(header)
        except ValueError as error:
            raise UserError(f"{where} is damaged or no shard of ours: {error}") from error
        match = MEMBER.fullmatch(name)
        if match is None or size > MEMBER_BYTES:
            raise UserError(
                f"{where} holds {name!r} of {size} bytes, which is no episode's member; not a shard of ours"
            )
        if match[1] != sample and members:
            yield f"{sample} in {where}", members
            members = {}
        sample, members[match[2]] = match[1], _exactly(stream, size, where)
        _exactly(stream, -size % BLOCK, where)
    if _exactly(stream, BLOCK, where).strip(b"\0"):
        raise UserError(f"{where} is damaged: it goes on after its end")
    if members:
        yield f"{sample} in {where}", members


def _exactly(stream: BinaryIO, size: int, where: str) -> bytes:
    """So many bytes, asked for a piece at a time: a header may claim any size."""
    pieces, missing = [], size
    while missing and (piece := stream.read(min(missing, 2**20))):
        pieces.append(piece)
        missing -= len(piece)
    if missing:
        raise UserError(f"{where} is truncated: {missing} bytes are missing")
    return b"".join(pieces)


def _clips(
    where: str,
    members: dict[str, bytes],
    num_frames: int,
    frameskip: int,
    most: int,
    split: tuple[str, int],
    rng: np.random.Generator,
) -> Iterator[Clip]:
    """Clips from random rows of an episode, if it is of the part that is wanted."""
    part, split_seed = split
    try:
        key = json.loads(members["meta.json"])["key"]
        if part != "all" and part_of(split_seed, key) != part:
            return
        actions = npy.loads(members["action.npy"]).astype(np.float32)
        actions = actions.reshape(len(actions), -1)
        check_actions(actions, where)
        starts = int(num_starts(np.array([len(actions)]), num_frames, frameskip)[0])
        frames = _frames(members)
        if frames.shape[0] != len(actions):
            raise ValueError(f"{frames.shape[0]} frames for {len(actions)} actions")
        for start in rng.choice(starts, min(most, starts), replace=False).tolist() if starts else ():
            pixels = np.array(frames[frame_rows(start, num_frames, frameskip)])
            yield Clip(pixels, action_blocks(actions, start, num_frames, frameskip).copy())
    except UserError:
        raise
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{where} is damaged ({type(error).__name__}: {error})") from error


def _frames(members: dict[str, bytes]) -> Any:
    """Frames (t, h, w, c) of an episode, decoded where they are looked at."""
    if "frames.npy" in members:
        frames: Any = npy.loads(members["frames.npy"])
        if frames.dtype != np.uint8 or frames.ndim != 4:
            raise ValueError(f"frames {frames.shape} of {frames.dtype}")
        return frames
    content = members["frames.lwf"]
    frames = PackedFrames(lambda low, size: content[low : low + size], len(content))
    height, width, channels = frames.shape[1:]
    if height * width * channels > FRAME_BYTES:
        raise ValueError(f"frames of {height} x {width} x {channels}")
    return frames


def _batches(clips: Iterable[Clip], size: int) -> Iterator[ClipBatch]:
    held: list[Clip] = []
    for clip in clips:
        held.append(clip)
        if len(held) < size:
            continue
        if len({(c.pixels.shape, c.actions.shape) for c in held}) > 1:
            raise UserError("shards of different data sets: their frames or actions differ in size")
        pixels, actions = (torch.from_numpy(np.stack(values)) for values in zip(*held, strict=True))
        yield ClipBatch(pixels, actions, torch.full((size,), -1), torch.ones(size))
        held = []
