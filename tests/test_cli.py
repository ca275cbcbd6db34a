"""What a user may get wrong: one line, exit code 2, nothing lost; and what the commands print."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import TINY_FLAGS, flat_columns
from lightning.pytorch.callbacks import Callback

from lewm.cli import HELP, TRAINER_COMMANDS, main
from lewm.commands import COMMANDS
from lewm.datasets.datamodule import ClipDataModule
from lewm.datasets.split import part_of


def refused(capsys, argv: list[str]) -> str:
    """The one line that a refused command prints."""
    capsys.readouterr()
    assert main(argv) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    errors = [line for line in lines if line.startswith("lewm: error: ")]
    assert len(errors) == 1
    assert not any("Traceback" in line for line in lines)
    return errors[0]


def fit(data, *flags: str) -> list[str]:
    return ["fit", *TINY_FLAGS, f"--data.path={data}", "--data.frameskip=2", *flags]


def test_a_missing_file_is_named(capsys, tmp_path):
    for argv in (["inspect", str(tmp_path / "no.h5")], fit(tmp_path / "no.h5"), ["convert", "no.h5", "out"]):
        assert "no such file or folder" in refused(capsys, argv)


def test_a_file_that_is_not_hdf5(capsys, tmp_path):
    (tmp_path / "x.h5").write_bytes(b"text" * 1000)
    assert "not a readable HDF5 file" in refused(capsys, fit(tmp_path / "x.h5"))


def test_a_missing_column(capsys, write_flat):
    columns = flat_columns([30] * 4)
    del columns["pixels"]
    message = refused(capsys, fit(write_flat(columns)))
    assert "no column 'pixels'" in message
    assert "state" in message


def test_offsets_that_disagree_with_lengths(capsys, write_flat):
    message = refused(capsys, fit(write_flat(flat_columns([30, 30]) | {"ep_offset": np.array([0, 29])})))
    assert "episode 1 should start at row 30" in message


def test_ragged_frames(capsys, write_flat):
    columns = flat_columns([3])
    del columns["pixels"]
    path = write_flat(columns)
    with h5py.File(path, "a") as file:
        file.create_dataset("pixels", (3,), dtype=h5py.vlen_dtype(np.uint8))[:] = [
            np.zeros(n, np.uint8) for n in (4, 5, 6)
        ]
    assert "ragged" in refused(capsys, fit(path))


def test_nan_in_an_interior_action(capsys, write_flat):
    columns = flat_columns([30] * 4)
    columns["action"][35] = np.nan
    assert "step 5 of episode 1" in refused(capsys, fit(write_flat(columns)))


def test_every_episode_shorter_than_a_clip(capsys, write_flat):
    message = refused(capsys, fit(write_flat(flat_columns([6] * 9))))
    assert "need 7 rows, the longest has 6" in message


def test_a_batch_larger_than_the_data(capsys, flat_file):
    assert "lower data.global_batch" in refused(capsys, fit(flat_file, "--data.global_batch=100000"))


def test_an_image_size_and_a_patch_that_do_not_fit(capsys, flat_file):
    message = refused(capsys, fit(flat_file, "--model.encoder_kwargs.patch_size=14"))
    assert "image size 16 is not a multiple of the patch size 14" in message


def test_an_unknown_key_in_a_config_or_on_the_command_line(capsys, flat_file, tmp_path):
    (tmp_path / "c.yaml").write_text("model:\n  embed_dims: 3\n")
    assert "embed_dims" in refused(capsys, fit(flat_file, f"--config={tmp_path / 'c.yaml'}"))
    assert "embed_dims" in refused(capsys, fit(flat_file, "--model.embed_dims=3"))
    assert "no shipped config 'nope'; there are: base" in refused(capsys, fit(flat_file, "--config=nope"))


def test_more_devices_than_exist(capsys, flat_file):
    assert "trainer.devices is 512" in refused(capsys, fit(flat_file, "--trainer.devices=512"))
    assert refused(capsys, [*fit(flat_file), "--trainer.accelerator=cuda", "--trainer.devices=64"])


def test_an_output_folder_that_cannot_be_made(capsys, flat_file, tmp_path):
    (tmp_path / "file").write_text("kept")
    message = refused(capsys, fit(flat_file, f"--trainer.default_root_dir={tmp_path / 'file'}"))
    assert "cannot make the folder" in message
    assert "cannot make the folder" in refused(capsys, ["convert", str(flat_file), str(tmp_path / "file" / "x")])
    assert (tmp_path / "file").read_text() == "kept"


class Accumulate(Callback):
    """Accumulates from the second epoch on, without saying so before."""

    def on_train_epoch_start(self, trainer, pl_module):
        trainer.accumulate_grad_batches = 1 + trainer.current_epoch


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        (["--trainer.accumulate_grad_batches=2"], 0),
        (["--trainer.callbacks=GradientAccumulationScheduler", "--trainer.callbacks.scheduling={1: 2}"], 0),
        ([f"--trainer.callbacks={__name__}.Accumulate"], 2),  # known when it happens, before it takes effect
    ],
    ids=["a setting", "a schedule", "a callback"],
)
def test_accumulation_is_refused_with_the_reason(capsys, flat_file, tmp_path, flags, steps):
    flags = [*flags, f"--trainer.default_root_dir={tmp_path}", "--trainer.limit_train_batches=2"]
    flags += ["--trainer.max_epochs=3", "--trainer.limit_val_batches=0", "--trainer.log_every_n_steps=1"]
    message = refused(capsys, fit(flat_file, *flags))
    assert "SIGReg is a statistic of the whole global batch" in message
    assert "trainer.accumulate_grad_batches must be 1" in message
    assert f"ended at step {steps}" in next(tmp_path.glob("lewm/*/log.txt")).read_text()


def test_overfit_batches_is_refused_with_what_to_do_instead(capsys, flat_file, tmp_path):
    flags = ("--trainer.overfit_batches=2", f"--trainer.default_root_dir={tmp_path}")
    message = refused(capsys, fit(flat_file, *flags))
    assert message.startswith("lewm: error: trainer.overfit_batches is 2: ")
    assert "set trainer.limit_train_batches" in message
    assert not list(tmp_path.glob("lewm/*"))


@pytest.mark.parametrize(("batch", "world", "sizes"), [(7, 2, "[6, 8]"), (4, 8, "[8]"), (17, 8, "[16, 24]")])
def test_a_global_batch_that_ranks_cannot_share_is_refused_with_those_that_they_can(
    capsys, flat_file, tmp_path, monkeypatch, batch, world, sizes
):
    monkeypatch.setattr(ClipDataModule, "_rank_and_world", lambda self: (0, world))
    flags = (f"--data.global_batch={batch}", f"--trainer.default_root_dir={tmp_path}")
    assert refused(capsys, fit(flat_file, *flags)) == (
        f"lewm: error: data.global_batch is {batch}, not a multiple of {world} ranks; try {sizes}"
    )


def test_two_ranks_that_cannot_share_a_global_batch_say_so_once(flat_file, tmp_path):
    command = fit(flat_file, "--trainer.devices=2", "--data.global_batch=7", f"--trainer.default_root_dir={tmp_path}")
    done = subprocess.run([sys.executable, "-m", "lewm", *command], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr[-500:]
    assert done.stderr.count("lewm: error: data.global_batch is 7, not a multiple of 2 ranks") == 1


def test_damage_found_by_a_loaders_worker_is_one_line_too(capsys, flat_file, tmp_path):
    main(["convert", str(flat_file), str(tmp_path / "out"), "--codec", "zstd"])
    from lewm.datasets.schema import open_source

    source = open_source(tmp_path / "out")
    tar = tmp_path / "out" / "shard-000000.tar"
    content, before = bytearray(tar.read_bytes()), tar.stat()
    for e in source_episodes(source):
        member = source.located(e)[1]["frames.lwf"]
        content[member.offset + member.size - 3] ^= 1
    tar.write_bytes(content)
    os.utime(tar, ns=(before.st_atime_ns, before.st_mtime_ns))  # else the whole shard is verified when it is opened
    flags = ("--data.num_workers=1", f"--trainer.default_root_dir={tmp_path / 'r'}", "--trainer.max_epochs=1")
    message = refused(capsys, fit(tmp_path / "out", *flags))
    assert "frame" in message
    assert "inspect --verify" in message


def source_episodes(source) -> range:
    return range(len(source.lengths))


@pytest.mark.filterwarnings("ignore:the val split")
def test_an_empty_test_split_is_refused_by_evaluators_and_noticed_by_fit(capsys, write_flat, tmp_path):
    path = write_flat(flat_columns([30, 30, 30]))
    flags = (f"--trainer.default_root_dir={tmp_path / 'r'}", "--trainer.max_steps=1", "--trainer.max_epochs=-1")
    seed = next(s for s in range(99) if all(part_of(s, str(10**15 + 7919 * e)) == "train" for e in range(3)))
    assert main(fit(path, *flags, f"--data.split_seed={seed}")) == 0
    printed = capsys.readouterr().out
    assert "notice: the val split is empty" in printed
    assert "notice: the test split is empty" in printed
    (run,) = (tmp_path / "r" / "lewm").iterdir()
    for command in ("test", "validate", "predict"):
        assert "holds no clip" in refused(capsys, [command, f"--resume={run}"])


def test_a_model_is_needed_to_validate(capsys, flat_file):
    assert "needs a model" in refused(capsys, ["validate", *fit(flat_file)[1:]])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "no such command: 'trian'"),
        (["convert", "a"], "dst"),
        (["convert", "a", "b", "--codec", "mp4"], "mp4"),
        (["collect", "mars", "--out", "x"], "no world 'mars'"),
        (["collect", "two_room", "--out", "x", "--policy", "lazy"], "no policy 'lazy'"),
        (["collect", "two_room", "--out", "x", "--image-size", "1"], "image_size"),
        (["collect", "two_room", "--out", "x", "--episodes", "0"], "at least one"),
        (["probe", "nothing", "--data", "x"], "no such checkpoint or run"),
        (["report", "nothing"], "no such run"),
        (["collect", "two_room", "--out", "x", "--workers", "-1"], "must not be negative"),
        (["collect", "two_room", "--out", "x", "--triples", "-3"], "must not be negative"),
    ],
)
def test_other_slips(capsys, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, argv)
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(capsys):
    assert main(["inspect", "no.h5", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_of_ours_is_not_dressed_up_as_the_users(monkeypatch):
    monkeypatch.setitem(COMMANDS, "doctor", lambda: (_ for _ in ()).throw(ValueError("stray")))
    with pytest.raises(ValueError, match="stray"):
        main(["doctor"])


def test_help_names_every_command_and_each_has_its_own_with_an_example(capsys):
    assert main([]) == 0
    assert capsys.readouterr().out == HELP
    for command in (*COMMANDS, *TRAINER_COMMANDS):
        assert f"\n  {command} " in HELP
    for command in (*COMMANDS, *TRAINER_COMMANDS):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        out = capsys.readouterr().out
        assert f"usage: lewm {command}" in out
        assert "Example:" in out or command == "doctor", command


def test_inspect_prints_what_is_there_and_json(capsys, flat_file, tmp_path):
    assert main(["inspect", str(flat_file), "--sheet", str(tmp_path / "s.png")]) == 0
    assert "proprio/pos" in capsys.readouterr().out
    assert (tmp_path / "s.png").stat().st_size > 100
    assert main(["inspect", str(flat_file), "--json", "--verify"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["episodes"] == 40
    assert facts["damage"] == []


def test_inspect_verify_ends_with_exit_code_2_on_damage(capsys, flat_file, tmp_path):
    main(["convert", str(flat_file), str(tmp_path / "out"), "--codec", "raw"])
    tar = tmp_path / "out" / "shard-000000.tar"
    content = bytearray(tar.read_bytes())
    content[3000] ^= 1
    tar.write_bytes(content)
    assert "damaged" in refused(capsys, ["inspect", str(tmp_path / "out"), "--verify"])


def test_doctor_says_which_case_torchvision_is(capsys):
    assert main(["doctor"]) == 0
    assert "torchvision guard: torchvision" in capsys.readouterr().out


def test_a_lost_worker_is_named_also_where_its_error_became_the_cause_of_another(capsys, monkeypatch):
    def wrapped(command, rest):
        try:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
        except RuntimeError as error:
            raise TypeError("wrong shape") from error

    monkeypatch.setattr("lewm.fit.main", wrapped)
    message = refused(capsys, ["fit"])
    assert message.startswith("lewm: error: DataLoader worker (pid 7) is killed by signal: Killed: memory ran out")
