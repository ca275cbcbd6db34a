"""Shared fixtures: shape checks at run time, small data sets whose content shows where it came from, a tiny model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from folder_server import serving
from jaxtyping import install_import_hook

os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"  # LightningCLI uses what jsonargparse will move

# Shapes and dtypes of annotated tensors are checked in tests only.
with install_import_hook(["lewm.model", "lewm.loss", "lewm.health", "lewm.clip", "lewm.plan"], "checked.checked"):
    import lewm.health
    import lewm.loss.prediction
    import lewm.loss.sigreg
    import lewm.model.world_model
    import lewm.plan.cem
    import lewm.plan.evaluate
    import lewm.plan.gradient
    import lewm.plan.icem
    import lewm.plan.manifest
    import lewm.plan.mppi
    import lewm.plan.shooting  # noqa: F401

from lewm.checkpoint import save
from lewm.clip import Interface
from lewm.datasets import remote
from lewm.datasets.convert import convert
from lewm.datasets.schema import Column
from lewm.model.world_model import WorldModel

TINY: dict[str, Any] = {
    "encoder_kwargs": {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2},
    "embed_dim": 8,
    "projector_hidden": 16,
    "action_hidden": 16,
    "predictor_depth": 1,
    "predictor_heads": 2,
    "predictor_head_dim": 4,
    "predictor_mlp": 16,
    "dropout": 0.0,
}
TINY_FLAGS = [
    "--model.encoder_kwargs={patch_size: 8, embed_dim: 24, depth: 1, num_heads: 2}",
    *(f"--model.{name}={value}" for name, value in TINY.items() if name != "encoder_kwargs"),
    "--model.sigreg_directions=16",
    "--model.lr=1e-3",
    "--data.num_workers=0",
    "--data.global_batch=8",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def interface() -> Interface:
    return Interface(image_size=16, frameskip=2, history=3, action_mean=(0.5, -1.0), action_std=(2.0, 0.5))


@pytest.fixture
def tiny_model(interface: Interface) -> WorldModel:
    torch.manual_seed(0)
    model = WorldModel(interface, **TINY)
    for block in model.predictor.transformer.layers:  # AdaLN-zero would hide the actions
        torch.nn.init.normal_(block.adaLN_modulation[1].weight, std=0.3)
    return model.eval()


def flat_columns(lengths: list[int], *, side: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
    """Columns of a flat file. A frame's first pixel tells its row; an action is (row, row + 0.5) / 100."""
    rng = np.random.default_rng(seed)
    rows = sum(lengths)
    pixels = rng.integers(0, 4, (rows, side, side, 3), dtype=np.uint8)
    pixels[:, 0, 0, 0] = np.arange(rows) % 256
    row = np.arange(rows, dtype=np.float32)
    lens = np.array(lengths, dtype=np.int32)
    return {
        "pixels": pixels,
        "action": np.stack([row, row + 0.5], axis=1) / 100,
        "state": np.stack([np.sin(row), row], axis=1).astype(np.float64),
        "proprio/pos": row[:, None].astype(np.float64),
        "id": np.repeat(np.arange(len(lengths), dtype=np.int64) * 7919 + 10**15, lens),
        "goal": np.repeat(rng.normal(size=(len(lengths), 2)), lens, axis=0),
        "ep_len": lens,
        "ep_offset": (np.cumsum(lens) - lens).astype(np.int64),
    }


@pytest.fixture
def write_flat(tmp_path: Path) -> Callable[..., Path]:
    """Writes columns to an HDF5 file and returns its path."""

    def write(columns: dict[str, np.ndarray], name: str = "flat.h5") -> Path:
        path = tmp_path / name
        with h5py.File(path, "w", libver="latest") as file:
            for column, values in columns.items():
                file.create_dataset(column, data=values)
        return path

    return write


@pytest.fixture
def flat_file(write_flat: Callable[..., Path]) -> Path:
    """40 episodes of 1 to 30 rows."""
    return write_flat(flat_columns([1 + (7 * i) % 30 for i in range(40)]))


LENGTHS = [20] * 12


@pytest.fixture
def make(write_flat: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Writes the same twelve episodes as shards of a codec and returns the folder."""

    def write(codec: str = "zstd", name: str = "data", shard_bytes: int = 40_000, **changes: np.ndarray) -> Path:
        file = write_flat(flat_columns(LENGTHS) | changes, f"{name}.h5")
        convert(file, tmp_path / name, codec=codec, shard_bytes=shard_bytes)  # type: ignore[arg-type]
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """40 episodes of 1 to 30 rows in nine raw shards or so."""
    folder = tmp_path_factory.mktemp("original")
    with h5py.File(folder / "flat.h5", "w") as file:
        for name, values in flat_columns([1 + (7 * i) % 30 for i in range(40)]).items():
            file[name] = values
    with pytest.MonkeyPatch.context() as quick:
        quick.setattr(os, "fsync", lambda descriptor: None)
        convert(folder / "flat.h5", folder / "set", codec="raw", shard_bytes=60_000)
    return folder / "set"


@pytest.fixture
def shards(original, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "set"))


@pytest.fixture
def server(shards):
    """That copy over HTTP."""
    with serving(shards) as server:
        yield server


@pytest.fixture
def patient(monkeypatch, tmp_path):
    """No pauses between attempts, no syncs to disk, and a cache of the test's own."""
    monkeypatch.setattr(remote, "PAUSE_S", 0.0)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # slow, and no machine loses its power here
    monkeypatch.setenv("LEWM_CACHE", str(tmp_path / "cache"))


def assert_same_content(a, b) -> None:
    """Two sources hold the same episodes, bit for bit."""
    assert a.keys == b.keys
    assert a.lengths.tolist() == b.lengths.tolist()
    assert a.columns == b.columns
    assert a.fingerprint() == b.fingerprint()
    for e in range(len(a.lengths)):
        everything = np.arange(a.lengths[e])
        assert (a.frames(e, everything) == b.frames(e, everything)).all()
        assert a.actions(e).tobytes() == b.actions(e).tobytes()
        for name in a.columns:
            assert a.column(name, e).tobytes() == b.column(name, e).tobytes(), name
            assert a.column(name, e).dtype == b.column(name, e).dtype


class FakeSource:
    """Frames show episode and row; columns as given."""

    path = Path("fake.h5")
    frame_shape = (2, 2, 3)

    def __init__(self, lengths, columns=None):
        self.lengths, self.keys = np.array(lengths), [f"k{e}" for e in range(len(lengths))]
        self._columns = columns or {}
        self.columns = {name: Column(values.dtype, values.shape[1:]) for name, values in self._columns.items()}

    def frames(self, episode, rows):
        out = np.zeros((len(rows), 2, 2, 3), dtype=np.uint8)
        out[..., 0], out[..., 1] = episode, np.asarray(rows)[:, None, None]
        return out

    def column(self, name, episode):
        low = int(self.lengths[:episode].sum())
        return self._columns[name][low : low + int(self.lengths[episode])]

    def fingerprint(self):
        return "fake"


class CountingSource:
    """Episodes whose frame shows the sum of all actions before it; actions are small whole numbers."""

    def __init__(self, lengths, seed=0):
        rng = np.random.default_rng(seed)
        self.lengths, self.path = np.array(lengths), Path("fake")
        self._actions = [rng.integers(0, 4, (n, 1)).astype(np.float32) for n in lengths]
        for actions in self._actions:
            actions[-1] = np.nan  # the last row has no valid action

    def frames(self, episode, rows):
        position = np.concatenate([[0], np.cumsum(self._actions[episode][:-1, 0])])[rows]
        return np.broadcast_to(position[:, None, None, None], (len(rows), 2, 2, 3)).astype(np.uint8)

    def actions(self, episode):
        return self._actions[episode]


class ExactModel:
    """Knows the dynamics: the embedding is the position, the next one adds the block's actions."""

    def __init__(self, history=3, frameskip=2, blind=False):
        self.interface = Interface(
            image_size=2, frameskip=frameskip, history=history, action_mean=(0.0,), action_std=(1.0,)
        )
        self.blind = blind

    def encode(self, pixels):
        return pixels.float().mean(dim=(2, 3, 4))[..., None]

    def rollout(self, z, past, future):
        assert past.shape[1] == z.shape[1] - 1
        assert torch.allclose(z[:, 1:, 0] - z[:, :-1, 0], past.sum(dim=(2, 3)))  # the past fits the context
        step = future.sum(dim=(3, 4)) * (0 if self.blind else 1)
        return (z[:, -1:] + step.cumsum(dim=2))[..., None]


def score_probe(probe, train, test):
    """Scores of a fitted probe on test rows, of a quantity without a name."""
    from lewm.probes.scores import score
    from lewm.probes.seams import Scale
    from lewm.probes.targets import Quantity

    scale, quantity = Scale.of(train.y), Quantity(name="q", column="q", slice=(0, test.y.shape[1]))
    return score(quantity, scale, test.y, scale.undo(probe.predict(test.x)), test.episode)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A run folder with one checkpoint of a tiny model."""
    torch.manual_seed(0)
    interface = Interface(image_size=16, frameskip=2, history=2, action_mean=(0.0, 0.0), action_std=(1.0, 1.0))
    model = WorldModel(
        interface,
        encoder_kwargs={"patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2},
        embed_dim=12,
        projector_hidden=16,
        action_hidden=16,
        predictor_depth=1,
        predictor_heads=1,
        predictor_head_dim=8,
        predictor_mlp=16,
    )
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    (folder / "checkpoints").mkdir(parents=True)
    save(model, folder / "checkpoints" / "step=5.ckpt")
    return folder


@pytest.fixture(scope="session")
def walks(tmp_path_factory):
    """Forty episodes of a bright square that walks by its actions."""
    return write_walks(tmp_path_factory.mktemp("data") / "walk.h5", 40)


def write_walks(path, episodes, length=24, size=16):
    """A file of episodes of a bright square that walks by its actions."""
    rng = np.random.default_rng(0)
    action = rng.uniform(-1, 1, (episodes, length, 2)).astype(np.float32)
    moved = np.concatenate([np.zeros((episodes, 1, 2)), np.cumsum(action[:, :-1], axis=1)], axis=1)
    state = np.clip(rng.uniform(3, size - 4, (episodes, 1, 2)) + moved, 1, size - 3)
    pixels = np.full((episodes, length, size, size, 3), 255, dtype=np.uint8)
    for e, t in np.ndindex(episodes, length):
        x, y = state[e, t].astype(int)
        pixels[e, t, y : y + 3, x : x + 3] = (200, 20, 20)
    with h5py.File(path, "w") as file:
        file["pixels"], file["action"] = pixels.reshape(-1, size, size, 3), action.reshape(-1, 2)
        file["state"] = state.reshape(-1, 2).astype(np.float32)
        file["ep_len"] = np.full(episodes, length, dtype=np.int32)
        file["ep_offset"] = np.arange(episodes, dtype=np.int64) * length
    return path
