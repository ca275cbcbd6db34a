"""Files that stable-worldmodel wrote: read, converted, and fed to training alike from file and shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED, TINY_FLAGS

from lewm.cli import main
from lewm.datasets.convert import convert
from lewm.datasets.datamodule import ClipDataModule

FLAT = ("tworoom_64", "tworoom_nan_64", "tworoom_224", "pusht_64", "pusht_224", "reacher_64", "cube_64")
pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the example files are not beside this checkout")


def module(path: Path) -> ClipDataModule:
    return ClipDataModule(str(path), global_batch=16, num_workers=0)


@pytest.fixture(scope="module", params=FLAT)
def pair(request, tmp_path_factory) -> tuple[Path, Path]:
    """A file and its shards."""
    source = SHARED / f"{request.param}.h5"
    shards = tmp_path_factory.mktemp("shards") / request.param
    convert(source, shards)
    return source, shards


def test_split_statistics_and_clips_are_bit_identical_from_file_and_shards(pair):
    file, shards = (module(path) for path in pair)
    assert file.interface == shards.interface  # the fingerprint and the statistics among it
    assert file.source.columns == shards.source.columns
    for part in ("train", "val", "test"):
        assert file.episodes(part).tolist() == shards.episodes(part).tolist()
    numbers = np.linspace(0, len(file.train) - 1, 24).astype(int).tolist()
    for one, other in zip(file.train[numbers], shards.train[numbers], strict=True):
        assert one.numpy().tobytes() == other.numpy().tobytes()
    for name in file.source.columns:
        for e in (0, len(file.source.lengths) - 1):
            assert file.source.column(name, e).tobytes() == shards.source.column(name, e).tobytes()


def test_inspect_reads_every_file(pair, capsys):
    for path in pair:
        assert main(["inspect", str(path), "--json"]) == 0
    assert '"episodes"' in capsys.readouterr().out


def test_in_two_room_action_t_leads_from_state_t_to_the_next(pair):
    if "tworoom" not in pair[0].name:
        return
    source = module(pair[0]).source
    inside = moved = 0
    for e in range(len(source.lengths)):
        state, action = source.column("state", e), source.actions(e)
        expected = np.clip(state[:-1] + np.float32(5) * action[:-1], 21, 203)
        inside += int((np.abs(expected - state[1:]).max(1) < 1e-4).sum())
        moved += len(expected)
    assert inside / moved > 0.9  # the rest are stopped by the wall; with the action before it would be 5 %


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:step:UserWarning", "ignore:the (val|test) split:UserWarning")
@pytest.mark.parametrize("which", ["file", "shards"])
def test_fifty_steps_of_training_lower_the_loss(pair, which, tmp_path):
    from test_fit import losses, run_of

    path = pair[0] if which == "file" else pair[1]
    patch = 32 if path.stem.endswith("224") else 8
    flags = [*TINY_FLAGS, f"--data.path={path}", f"--trainer.default_root_dir={tmp_path}", "--data.global_batch=16"]
    flags += [f"--model.encoder_kwargs.patch_size={patch}", "--trainer.max_steps=50", "--trainer.max_epochs=-1"]
    assert main(["fit", *flags, "--trainer.log_every_n_steps=1", "--trainer.limit_val_batches=2"]) == 0
    values = losses(run_of(tmp_path))
    assert np.mean(values[-10:]) < np.mean(values[:10])
