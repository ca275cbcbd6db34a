"""Frame codecs and the frame container."""

import numpy as np
import pytest

from lewm.datasets.pixels import CODECS, PackedFrames, choose_codec, pack


def scene(frames: int = 5, channels: int = 3) -> np.ndarray:
    x = np.full((frames, 24, 20, channels), 255, dtype=np.uint8)
    for t in range(frames):
        x[t, 3 + t : 8 + t, 4:9] = 40 * t
    return x


def opened(blob: bytes) -> PackedFrames:
    return PackedFrames(lambda low, size: blob[low : low + size], len(blob))


@pytest.mark.parametrize("codec", [c for c in CODECS if c not in ("raw", "jpeg")])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_codecs_give_every_frame_back_in_any_order(codec, channels):
    frames = scene(channels=channels)
    rows = np.array([4, 0, 2, 2])
    assert (opened(pack(frames, codec))[rows] == frames[rows]).all()


def test_jpeg_is_close():
    frames = scene()
    assert np.abs(opened(pack(frames, "jpeg"))[np.arange(5)].astype(int) - frames).mean() < 4


def test_auto_takes_zstd_for_plain_scenes_and_raw_for_noise():
    assert choose_codec(scene()) == "zstd"
    assert choose_codec(np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)) == "raw"


@pytest.mark.parametrize("codec", ["zstd", "zlib"])
def test_no_flipped_bit_gives_a_wrong_frame_in_silence(codec):
    frames, rows = scene(2), np.arange(2)
    blob = bytearray(pack(frames, codec))
    for position in range(len(blob)):
        damaged = blob.copy()
        damaged[position] ^= 1 << (position % 8)
        try:
            read = opened(bytes(damaged))
            if read.shape == frames.shape:
                assert (read[rows] == frames).all(), position
        except (ValueError, IndexError):
            continue


def test_a_truncated_container_is_refused():
    blob = pack(scene(), "zstd")
    for cut in (0, 3, 10, 30, len(blob) - 1):
        with pytest.raises(ValueError, match=r"container|table"):
            opened(blob[:cut])
