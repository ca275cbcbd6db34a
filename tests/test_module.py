"""What the LightningModule wires: what the encoder sees in training, and what it sees in evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import TINY, TINY_FLAGS, flat_columns

from lewm import checkpoint
from lewm.augment import Photometric
from lewm.cli import main
from lewm.clip import ClipBatch
from lewm.module import LeWM

STEP = 7  # the trainer's, unlike the number of any batch below


@pytest.fixture
def batch() -> ClipBatch:
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (4, 4, 16, 16, 3), dtype=torch.uint8, generator=rng)
    return ClipBatch(pixels, torch.randn(4, 3, 2, 2, generator=rng), torch.tensor([3, 11, 2, 30]), torch.ones(4))


@pytest.fixture
def wired(interface, monkeypatch):
    """Makes a module that stands at step `STEP` of a run, and the list of all that its encoder is shown."""

    def make(**arguments):
        torch.manual_seed(0)
        module, seen = LeWM(interface, sigreg_directions=16, **TINY, **arguments), []
        encode = module.model.encode
        monkeypatch.setattr(LeWM, "global_step", STEP)
        monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
        monkeypatch.setattr(module.model, "encode", lambda pixels: (seen.append(pixels), encode(pixels))[1])
        return module, seen

    return make


@pytest.mark.parametrize(("colour", "light"), [(1.0, 0.0), (0.0, 0.4), (0.5, 0.2)])
def test_training_shows_the_encoder_clips_repainted_for_this_step_of_the_run(wired, batch, colour, light):
    module, seen = wired(augment_colour=colour, augment_light=light, seed=5)
    loss = module.training_step(batch, 2)
    expected = Photometric(colour=colour, light=light, seed=5)(batch.pixels, batch.index, STEP)
    assert not torch.equal(expected, batch.pixels)
    assert len(seen) == 1 and torch.equal(seen[0], expected)
    assert loss != wired(seed=5)[0].training_step(batch, 2)


def test_without_augmentation_training_shows_the_encoder_the_clips_themselves(wired, batch):
    module, seen = wired()
    module.training_step(batch, 2)
    assert len(seen) == 1 and seen[0] is batch.pixels


@pytest.mark.parametrize("step", ["validation_step", "test_step", "predict_step"])
def test_evaluation_shows_the_encoder_the_clips_themselves_whatever_training_does(wired, batch, step):
    module, seen = wired(augment_colour=1.0, augment_light=0.5)
    getattr(module, step)(batch, 2)
    assert len(seen) == 1 and seen[0] is batch.pixels


def test_a_resumed_run_with_augmentation_ends_in_the_weights_of_an_uninterrupted_one(write_flat, tmp_path):
    columns = flat_columns([30] * 16)
    columns["pixels"] *= 60  # or all is nearly black
    data = write_flat(columns)

    def weights(name: str, *flags: str) -> dict[str, torch.Tensor]:
        common = [*TINY_FLAGS, f"--data.path={data}", "--data.frameskip=2", "--trainer.max_epochs=-1"]
        common += [f"--trainer.default_root_dir={tmp_path / name}", "--model.schedule_epochs=5"]
        assert main(["fit", *common, "--model.dropout=0.1", *flags]) == 0
        (run,) = (tmp_path / name / "lewm").iterdir()
        return content_of(run)

    repainted = ("--model.augment_colour=0.5", "--model.augment_light=0.1")
    whole = weights("whole", *repainted, "--trainer.max_steps=7")
    weights("part", *repainted, "--trainer.max_steps=4")
    part = weights("part", *repainted, "--trainer.max_steps=7", "--resume=auto")
    assert all(torch.equal(part[name], whole[name]) for name in whole)
    plain = weights("plain", "--trainer.max_steps=7")
    assert any(not torch.equal(plain[name], whole[name]) for name in whole)


def content_of(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(checkpoint.resolve(run))["state_dict"]
