"""A loss or gradient that is not finite: the run stops before it reaches the weights, and the step can be run again."""

from __future__ import annotations

import csv
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import TINY_FLAGS, flat_columns
from test_fit import final_weights, fit, losses, run_of

from lewm import checkpoint
from lewm.cli import main
from lewm.clip import ClipBatch
from lewm.guard import gathered
from lewm.health import HealthMeter
from lewm.module import LeWM

STEPS = ("--trainer.max_epochs=-1", "--trainer.max_steps=12", "--trainer.log_every_n_steps=1", "--checkpoint_every=2")
VALIDATED = ("--trainer.val_check_interval=2", "--trainer.check_val_every_n_epoch=null")


@pytest.fixture
def data(write_flat) -> Path:
    return write_flat(flat_columns([30] * 16))


def poison(monkeypatch, step: int, value: float = math.nan) -> None:
    """Give one clip of one step's batch an action that is not finite, as a fault in the loader would."""
    losses_of = LeWM.training_losses

    def poisoned(self, batch: ClipBatch, at: int):
        if at == step:
            batch.actions[3] = value
        return losses_of(self, batch, at)

    monkeypatch.setattr(LeWM, "training_losses", poisoned)


def test_a_nan_loss_is_named_with_step_clips_and_norms_and_its_batch_runs_again(data, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        poison(patched, 5)
        assert fit(data, tmp_path, *STEPS, *VALIDATED) == 3
    run, (line,) = run_of(tmp_path), capsys.readouterr().err.splitlines()
    file = run / "stopped" / "step=5.ckpt"
    for part in (
        "the loss is nan at step 5",
        "prediction nan",
        "gradient norms: encoder nan",
        str(file),
    ):
        assert part in line
    assert re.search(r"of all in the step before \d", line)
    assert line.split("clips ")[1].startswith("[")
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert names == {"step=2.ckpt", "step=4.ckpt", "best.ckpt"}
    for name in names:  # nothing that is not finite was ever saved, or taken for the best
        assert all(torch.isfinite(x).all() for x in checkpoint.read(run / "checkpoints" / name)["state_dict"].values())
    assert main(["fit", "--replay", str(file)]) == 3
    printed = capsys.readouterr().out
    clip = int(checkpoint.read(file)["replay"]["batch"]["index"][3])
    assert "step 5, 8 clips" in printed
    assert f"not finite: the actions of clips [{clip}]" in printed
    assert "not finite first: the output of action_encoder" in printed
    assert fit(data, tmp_path, *STEPS, "--resume=auto") == 0  # without the fault it goes on


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_a_replayed_step_has_the_loss_that_the_run_had(data, tmp_path, monkeypatch, capsys, precision):
    flags = (*STEPS, "--model.dropout=0.1", "--model.augment_colour=0.5", f"--trainer.precision={precision}")
    fit(data, tmp_path / "whole", *flags)
    whole = losses(run_of(tmp_path / "whole"))

    def infinite(module):
        return torch.tensor(math.inf if module.global_step == 7 else 1.0)

    with monkeypatch.context() as patched:
        patched.setattr("lewm.guard.total_norm", infinite)
        patched.setattr("lewm.guard.norms_of_parts", lambda model: {"all": math.inf})
        assert fit(data, tmp_path / "part", *flags) == 3
    capsys.readouterr()
    assert main(["fit", f"--replay={run_of(tmp_path / 'part') / 'stopped' / 'step=7.ckpt'}"]) == 0
    printed = capsys.readouterr().out
    assert f"losses: loss {whole[7]:.6g}," in printed
    assert "everything is finite here" in printed


def test_an_infinite_gradient_under_a_finite_loss_never_reaches_the_weights(data, tmp_path, monkeypatch, capsys):
    def spoil(self, *args):
        for p in self.model.pred_proj.parameters():
            p.grad = torch.full_like(p, math.inf) if self.global_step == 3 else p.grad

    with monkeypatch.context() as patched:
        patched.setattr(LeWM, "on_after_backward", spoil)
        assert fit(data, tmp_path, *STEPS, "--name=gloo") == 3  # a word in torch's errors about lost ranks
    (tmp_path / "gloo").rename(tmp_path / "lewm")
    assert "pred_proj inf" in capsys.readouterr().err
    stopped = checkpoint.read(run_of(tmp_path) / "stopped" / "step=3.ckpt")["state_dict"]
    assert all(torch.isfinite(x).all() for x in stopped.values())
    assert checkpoint.step_of(checkpoint.resolve(run_of(tmp_path))) == 2


def test_the_logged_gradient_norm_is_that_before_clipping(data, tmp_path):
    fit(data, tmp_path / "a", *STEPS)
    fit(data, tmp_path / "b", *STEPS, "--trainer.gradient_clip_val=1e-3", "--trainer.max_steps=1")
    free, clipped = (losses(run_of(tmp_path / name), "train/grad_norm") for name in "ab")
    assert len(free) == 12
    assert clipped[0] == free[0] > 0.1


def test_a_validation_loss_that_is_not_finite_stops_the_run_before_it_is_called_best(
    data, tmp_path, monkeypatch, capsys
):
    compute = HealthMeter.compute
    monkeypatch.setattr(HealthMeter, "compute", lambda self: compute(self) | {"loss": torch.tensor(math.nan)})
    assert fit(data, tmp_path, *STEPS, *VALIDATED) == 3
    assert "the validation loss is nan at step 2" in capsys.readouterr().err
    assert not (run_of(tmp_path) / "checkpoints" / "best.ckpt").exists()


@pytest.mark.filterwarnings("always:step")
def test_a_collapse_warns_with_its_values_and_training_goes_on(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lewm.module.VERDICTS_FROM", 1)
    assert fit(data, tmp_path, *STEPS, *VALIDATED, "--model.sigreg_weight=0") == 0
    assert "warning: step 2: collapse: the embedding's mean std is 0.0" in capsys.readouterr().err


@pytest.mark.parametrize(("limit", "times"), [("0", 1), ("1", 0)])
def test_where_validation_is_off_a_run_says_once_that_a_collapse_passes_unseen(data, tmp_path, capsys, limit, times):
    flags = ("--trainer.max_epochs=-1", "--trainer.max_steps=2", f"--trainer.limit_val_batches={limit}")
    assert fit(data, tmp_path, *flags) == 0
    said = "notice: validation is off; a collapse passes unseen"
    assert capsys.readouterr().out.count(said) == times
    assert (run_of(tmp_path) / "log.txt").read_text().count(said) == times


@pytest.mark.filterwarnings("always:step")
def test_a_collapse_that_no_validation_saw_is_said_by_one_of_the_checkpoint(data, tmp_path, capsys):
    flags = ("--trainer.max_epochs=-1", "--trainer.max_steps=2", "--trainer.limit_val_batches=0")
    assert fit(data, tmp_path, *flags, "--model.sigreg_weight=0", "--model.lr=1e-2") == 0
    assert "collapse:" not in capsys.readouterr().err
    assert main(["validate", f"--resume={run_of(tmp_path)}", "--trainer.limit_val_batches=1.0"]) == 0
    assert "collapse: the embedding's mean std is 0.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--replay"], "takes one file"),
        (["--replay", "a.ckpt", "--trainer.max_steps=3"], "no other flags"),
        (["--replay=absent.ckpt"], "not a readable checkpoint: absent.ckpt"),
    ],
)
def test_what_cannot_be_replayed_is_said_in_one_line(words, said, capsys):
    assert main(["fit", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_checkpoint_without_a_batch_is_not_replayed(tiny_run, capsys):
    assert main(["fit", "--replay", str(checkpoint.resolve(tiny_run))]) == 2
    assert "holds no batch" in capsys.readouterr().err


CHILD = """
import torch
from lewm.cli import main
from lewm.module import LeWM
losses_of = LeWM.training_losses
def poisoned(self, batch, at):
    if at == 4 and self.global_rank == 1:
        batch.actions[1] = float("nan")
    return losses_of(self, batch, at)
LeWM.training_losses = poisoned
if __name__ == "__main__":
    raise SystemExit(main())
"""


def test_two_processes_stop_together_where_one_of_them_meets_a_nan(data, tmp_path):
    child = tmp_path / "program" / "child.py"  # apart from the run's folder, which is named as the package
    child.parent.mkdir()
    child.write_text(CHILD)
    command = [sys.executable, str(child), "fit", *TINY_FLAGS, f"--data.path={data}", "--data.frameskip=2", *STEPS]
    command += [f"--trainer.default_root_dir={tmp_path}", "--trainer.devices=2", "--trainer.strategy=ddp"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3, done.stderr[-2000:]
    assert done.stderr.count("lewm: error") == 1
    run = run_of(tmp_path)
    whole = checkpoint.read(run / "stopped" / "step=4.ckpt")["replay"]["batch"]
    assert len(whole["index"]) == 8
    assert (~torch.isfinite(whole["actions"]).flatten(1).all(1)).nonzero().tolist() == [[3]]  # rank 1's second clip
    assert set(final_weights(run)) and len(rows(run)) == 4


def on_rank(rank: int, world: int, folder: str) -> None:
    """Gather a batch whose first number tells the rank and whose second tells the clip."""
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world)
    largest, gather = [], dist.gather
    dist.all_gather = lambda *args: pytest.fail("sent to every rank")

    def noted(row, received=None, dst=None):
        largest.append(sum(x.numel() for x in received or []))
        gather(row, received, dst=dst)

    dist.gather = noted
    index = torch.arange(3) * world + rank
    pixels = index.to(torch.uint8).view(3, 1, 1, 1, 1).repeat(1, 4, 2, 2, 3)
    whole = gathered(ClipBatch(pixels, index.view(3, 1, 1, 1).float(), index, torch.ones(3)))
    torch.save({"whole": whole and whole._asdict(), "largest": max(largest)}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_the_global_batch_comes_in_its_order_to_the_rank_that_writes_it_and_to_no_other(tmp_path):
    mp.get_context("forkserver").set_forkserver_preload(["lewm.fit"])
    mp.start_processes(on_rank, args=(3, str(tmp_path)), nprocs=3, start_method="forkserver")
    first, *others = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(3))
    assert first["whole"]["index"].tolist() == list(range(9))
    assert first["whole"]["pixels"].shape == (9, 4, 2, 2, 3)
    assert first["whole"]["pixels"][:, 3, 1, 1, 2].tolist() == list(range(9))
    assert first["whole"]["actions"].flatten().tolist() == list(range(9))
    assert first["largest"] == 3 * 48  # one clip of each rank at a time
    assert [other["whole"] for other in others] == [None, None]
    assert [other["largest"] for other in others] == [0, 0]


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["train/loss"]]
