from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from conftest import FakeSource

from lewm.datasets.schema import open_source
from lewm.errors import UserError
from lewm.probes.cache import Cache, identity
from lewm.probes.features import ModelReader, extract, weights_hash
from lewm.probes.frames import Frames, choose_frames, union


class Mean:
    """Reads the mean colour, and counts the frames it was given."""

    def __init__(self, key="mean", scale=1.0):
        self.key, self.names, self.scale, self.read = key, (key,), scale, 0

    def __call__(self, pixels):
        self.read += len(pixels)
        return {self.key: pixels.float().mean(dim=(1, 2)) * self.scale}


class Layered:
    interface = None

    def encode_layers(self, pixels, layers):
        found = {"embedding": pixels.float().mean(dim=(2, 3)), "cls": pixels.float().mean(dim=(2, 3)) + 1}
        return {layer: found[layer] for layer in layers}


def test_features_stand_at_the_frames_they_are_of():
    source = FakeSource([700, 3, 50])
    frames = choose_frames(source.lengths, np.array([0, 1, 2]), 400)
    table = extract(source, frames, [Mean(), ModelReader(Layered(), ("cls",), prefix="other/")])
    assert np.array_equal(table.features["mean"][:, 0], frames.episode)
    assert np.array_equal(table.features["mean"][:, 1], frames.row % 256)
    assert np.array_equal(table.features["other/cls"], table.features["mean"] + 1)
    some = Frames(frames.episode[[7, 3, 390]], frames.row[[7, 3, 390]], 3)
    assert np.array_equal(table.at("mean", some), table.features["mean"][[7, 3, 390]])


def test_several_frames_come_oldest_first_and_a_frameskip_apart():
    source = FakeSource([60, 50])
    chosen = choose_frames(source.lengths, np.arange(2), 20, first=10)
    table = extract(source, union([chosen.before(i * 5) for i in range(3)]), [Mean()])
    seen = table.at("mean", chosen, 3, 5).reshape(len(chosen), 3, 3)
    assert np.array_equal(seen[:, :, 0], np.repeat(chosen.episode[:, None], 3, axis=1))
    assert np.array_equal(seen[:, :, 1], chosen.row[:, None] - [10, 5, 0])


def test_a_diverged_model_is_named():
    source = FakeSource([4])
    with pytest.raises(UserError, match=r"'mean' hold NaN.*diverged"):
        extract(source, choose_frames(source.lengths, np.array([0]), 4), [Mean(scale=float("inf"))])


def test_only_what_the_cache_lacks_is_computed(tmp_path):
    source, cache = FakeSource([40, 30]), Cache(tmp_path, "data")
    first, reader = choose_frames(source.lengths, np.array([0]), 10), Mean()
    extract(source, first, [reader], cache)
    assert reader.read == 10
    every, other = choose_frames(source.lengths, np.arange(2), 100), Mean("other", 2.0)
    table = extract(source, every, [reader, other], cache)
    assert (reader.read, other.read) == (70, 70)
    assert np.array_equal(table.features["mean"][:, 0], every.episode)
    again = extract(source, every, [reader, other], cache)
    assert (reader.read, other.read) == (70, 70)
    assert all(np.array_equal(again.features[name], table.features[name]) for name in ("mean", "other"))
    extract(source, union([first, every]), [Mean()], Cache(tmp_path, "other data"))
    assert len(list(tmp_path.glob("*.npz"))) == 3


def test_cached_features_are_those_of_the_frames_asked_for(tmp_path):
    source, cache = FakeSource([200, 90, 30]), Cache(tmp_path, "data")
    rng = np.random.default_rng(0)
    for _ in range(8):
        pairs = np.unique(np.stack([rng.integers(0, 3, 20), rng.integers(0, 30, 20)], axis=1), axis=0)
        frames = Frames(pairs[:, 0], pairs[:, 1], 0)
        found = extract(source, frames, [Mean()], cache).features["mean"]
        assert np.array_equal(found[:, :2], pairs)


def test_a_damaged_cache_is_made_anew_with_a_warning(tmp_path):
    source, cache = FakeSource([40]), Cache(tmp_path, "data")
    frames = choose_frames(source.lengths, np.array([0]), 10)
    extract(source, frames, [Mean()], cache)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match="damaged"):
        table = extract(source, frames, [Mean()], cache)
    assert np.array_equal(table.features["mean"][:, 1], frames.row)
    reader = Mean()
    extract(source, frames, [reader], cache)
    assert reader.read == 0


def test_a_cache_that_cannot_be_written_costs_nothing_but_a_warning(tmp_path):
    (tmp_path / "file").write_text("")
    source = FakeSource([40])
    with pytest.warns(UserWarning, match="not kept"):
        table = extract(
            source, choose_frames(source.lengths, np.array([0]), 10), [Mean()], Cache(tmp_path / "file", "d")
        )
    assert len(table.features["mean"]) == 10


def test_data_that_was_changed_anywhere_has_another_identity(flat_file):
    """The fingerprint looks at some frames only."""
    before = identity(open_source(flat_file))
    assert identity(open_source(flat_file)) == before
    with h5py.File(flat_file, "r+") as file:
        file["pixels"][3] = 255 - file["pixels"][3]
    assert identity(open_source(flat_file)) != before


def test_the_key_of_a_model_follows_its_weights_and_statistics(tiny_model):
    before = weights_hash(tiny_model)
    assert weights_hash(tiny_model) == before
    own = tiny_model.interface
    tiny_model.interface = replace(own, pixel_mean=(0.5, 0.5, 0.5))
    assert weights_hash(tiny_model) != before
    tiny_model.interface = own
    with torch.no_grad():
        next(m for m in tiny_model.modules() if hasattr(m, "running_mean")).running_mean += 1e-3
    assert weights_hash(tiny_model) != before
