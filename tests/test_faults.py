"""Damaged, missing, hostile and awkward data: each ends in right data, a plain error or a counted skip."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_FLAGS, flat_columns

from lewm.cli import main
from lewm.datasets.bad_records import FLOOR, IN_A_ROW, BadRecords, substitute
from lewm.datasets.convert import convert
from lewm.datasets.datamodule import ClipDataModule
from lewm.datasets.manifest import checksum_of
from lewm.datasets.pixels import HEADER, PackedFrames, decode_frame, encode_frame
from lewm.datasets.schema import open_source
from lewm.datasets.shard_writer import EpisodeWriter
from lewm.datasets.tar_index import build_index, file_sha256, load_index
from lewm.datasets.tar_shards import ShardSource
from lewm.errors import UserError

LENGTHS = [20] * 12


@pytest.fixture
def make(write_flat, tmp_path):
    """Writes the same episodes as shards of a codec and returns the folder."""

    def write(codec="zstd", name="data", shard_bytes=40_000, **changes) -> Path:
        file = write_flat(flat_columns(LENGTHS) | changes, f"{name}.h5")
        convert(file, tmp_path / name, codec=codec, shard_bytes=shard_bytes)
        return tmp_path / name

    return write


def rot(file: Path, at: int, flip: int = 4) -> None:
    """Flip bits of one byte as a bad disk does it: no time of change tells."""
    content, before = bytearray(file.read_bytes()), file.stat()
    content[at] ^= flip
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def member(folder: Path, episode: int, ext: str):
    tar, members = open_source(folder)._episodes[episode]
    return tar, members[ext]


def rot_frame(folder: Path, episode: int, frame: int) -> None:
    """Damage one frame of a container."""
    tar, m = member(folder, episode, "frames.lwf")
    packed = tar.read_bytes()[m.offset : m.offset + m.size]
    (end,) = struct.unpack_from("<Q", packed, HEADER.size + 8 * (frame + 1))
    rot(tar, m.offset + end - 9)


def refused(capsys, argv: list[str]) -> str:
    capsys.readouterr()
    assert main(argv) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lewm: error: ")]
    return line


def fit(data: Path, out: Path, *flags: str) -> list[str]:
    root = f"--trainer.default_root_dir={out}"
    return ["fit", *TINY_FLAGS, f"--data.path={data}", "--data.frameskip=2", "--trainer.logger=false", root, *flags]


# 1 to 6: files of a data set


@pytest.mark.parametrize("where", ["between members", "inside a header", "inside data"])
def test_a_truncated_shard_is_refused_at_opening_with_both_sizes(make, where):
    folder = make()
    tar, m = member(folder, 2, "action.npy")
    cut = {"between members": m.offset - 512, "inside a header": m.offset - 300, "inside data": m.offset + 7}[where]
    whole = tar.stat().st_size
    with tar.open("r+b") as file:
        file.truncate(cut)
    with pytest.raises(UserError, match=f"{tar.name} has {cut} bytes, manifest.json says {whole}"):
        open_source(folder)
    with pytest.raises(UserError, match=f"{tar.name} is .*truncated"):  # nor does it pass without a manifest
        build_index(tar)


def test_a_flipped_byte_of_a_tar_header_names_shard_episode_and_byte(make):
    folder = make()
    tar, m = member(folder, 3, "frames.lwf")
    rot(tar, m.offset - 512 + 3)
    source = open_source(folder)
    source.frames(2, np.arange(20))
    with pytest.raises(UserError, match=rf"episode 3 \(.*\) in .*{tar.name}: frames.lwf at byte {m.offset}: a header"):
        source.frames(3, np.arange(20))


def test_a_flipped_byte_of_a_compressed_frame_names_shard_episode_and_frame(make):
    folder = make()
    tar, m = member(folder, 3, "frames.lwf")
    rot(tar, m.offset + m.size - 9)
    source = open_source(folder)
    source.frames(3, np.arange(19))
    with pytest.raises(UserError, match=rf"episode 3 \(.*\) in .*{tar.name}: frame 19"):
        source.frames(3, np.arange(20))


@pytest.mark.parametrize("ext", ["action.npy", "meta.json", "col.state.npy"])
def test_a_flipped_byte_of_anything_but_frames_is_found_when_it_is_read(make, ext):
    folder = make(shard_bytes=2**20)  # the first and last episode of a shard are looked at when it is opened
    tar, m = member(folder, 3, ext)
    rot(tar, m.offset + m.size - 2)
    source = open_source(folder)
    with pytest.raises(UserError, match=rf"episode 3 \(.*\) in .*{tar.name}: {ext} at byte {m.offset}"):
        source.actions(3) if ext == "action.npy" else source.column("state", 3)


def test_flipped_bytes_of_an_index_never_change_what_is_read(make):
    folder = make(shard_bytes=2**20)
    (index,) = folder.glob("*.idx.npz")
    (tar,) = folder.glob("*.tar")
    wanted, whole = load_index(index, tar_bytes=tar.stat().st_size), index.read_bytes()
    for at in range(0, len(whole), 37):
        rot(index, at, flip=1 << (at % 8))
        assert list(open_source(folder)._episodes) == [(tar, members) for members in wanted.values()]
        index.write_bytes(whole)


def test_an_index_that_belongs_to_another_shard_is_made_anew(make, capsys):
    folder = make()
    first, second = sorted(folder.glob("*.idx.npz"))[:2]
    first.write_bytes(second.read_bytes())
    assert list(ShardSource(folder).damage()) == []
    assert f"{first.name[:12]}.tar is missing, damaged or older" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["lengths", "keys", "shape", "sha256", "frame_shape"])
def test_a_flipped_digit_of_a_manifest_is_found_by_its_checksum(make, part):
    folder = make()
    manifest = folder / "manifest.json"
    text = manifest.read_text()
    at = next(i for i in range(text.index(f'"{part}"') + len(part) + 3, len(text)) if text[i].isdigit())
    manifest.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    with pytest.raises(UserError, match=r"manifest.json is damaged \(it differs from its checksum\)"):
        open_source(folder)


def test_a_manifest_of_an_earlier_version_has_no_checksum_and_opens(make):
    folder = make()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest.pop("checksum") == checksum_of(manifest)
    for shard in manifest["shards"]:
        del shard["index"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert list(ShardSource(folder).damage()) == []


def test_inspect_lists_all_damage_also_where_the_data_cannot_be_opened(make, capsys):
    folder = make()
    tars = sorted(folder.glob("*.tar"))
    tars[0].unlink()
    tars[1].write_bytes(tars[1].read_bytes()[:-100])
    rot(tars[2], 1000)
    assert main(["inspect", str(folder), "--verify"]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("damaged: ")]
    for tar, words in zip(tars, ["missing", "sha256 differs", "sha256 differs"], strict=False):
        assert any(tar.name in line and words in line for line in said), tar


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
def test_a_flip_in_frames_without_checksum_is_found_by_verify_full_and_not_by_sizes(make, codec):
    folder = make(codec)
    ext = "frames.npy" if codec == "raw" else "frames.lwf"
    tar, m = member(folder, 3, ext)
    if codec == "raw":
        rot(tar, m.offset + m.size - 5)
    else:  # in a frame's comment-free body, where the picture still decodes
        rot(tar, m.offset + m.size - 40, flip=1)
    about = {"global_batch": 6, "frameskip": 3, "num_workers": 0}
    ClipDataModule(str(folder), **about).source.frames(3, np.arange(20))
    with pytest.raises(UserError, match=rf"episode 3 .*{tar.name}: {ext} .* differs from its checksum"):
        ClipDataModule(str(folder), verify="full", **about).source.frames(3, np.arange(20))


def test_verify_full_of_a_file_without_checksums_is_said_to_do_nothing(flat_file):
    with pytest.warns(UserWarning, match="keeps no checksums"):
        _ = ClipDataModule(str(flat_file), verify="full").source


def test_a_missing_shard_and_a_strange_one_are_listed_before_step_0(make):
    folder = make()
    tar = sorted(folder.glob("*.tar"))[1]
    shutil.copy(tar, folder / "shard-000077.tar")
    with pytest.raises(UserError, match=r"holds shard-000077.tar, which manifest.json does not list"):
        open_source(folder)
    (folder / "shard-000077.tar").unlink()
    tar.unlink()
    with pytest.raises(UserError, match=rf"{tar.name} is missing; .*missing in all: {tar.name}"):
        open_source(folder)


def test_shards_that_changed_places_are_refused_before_step_0(make):
    folder = make("raw")
    one, two = (tar.with_suffix(suffix) for tar in sorted(folder.glob("*.tar"))[:2] for suffix in (".tar",))
    for suffix in (".tar", ".idx.npz"):
        a, b = one.with_suffix(suffix), two.with_suffix(suffix)
        kept = a.read_bytes()
        a.write_bytes(b.read_bytes())
        b.write_bytes(kept)
    with pytest.raises(UserError, match=rf"{one.name}.*exchanged"):
        open_source(folder)


def test_a_shard_and_its_index_of_another_data_set_with_the_same_keys_are_refused_before_step_0(make):
    ours, theirs = make("raw"), make("raw", "other", pixels=flat_columns(LENGTHS, seed=1)["pixels"])
    for file in theirs.glob("shard-000001.*"):
        assert file.stat().st_size == (ours / file.name).stat().st_size or file.suffix == ".npz"
        shutil.copy(file, ours / file.name)
    with pytest.raises(UserError, match=r"shard-000001.tar is damaged or exchanged: its sha256"):
        open_source(ours)


CHILD = """
import os, sys
from lewm.cli import main
import lewm.fit
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)  # root may write anywhere
sys.exit(main(sys.argv[1:]))
"""


def test_a_read_only_folder_without_index_whose_name_has_blanks_and_umlauts_trains(make):
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        data, out = Path(place) / "Daten für Übung 日本", Path(place) / "out"
        shutil.copytree(make(), data)
        for index in data.glob("*.idx.npz"):
            index.unlink()
        names = sorted(os.listdir(data))
        out.mkdir()
        os.chmod(out, 0o777)
        for path in (*data.iterdir(), data):
            path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) | stat.S_IROTH)
        argv = fit(data, out, "--trainer.max_steps=1", "--trainer.limit_val_batches=0")
        done = subprocess.run(
            [sys.executable, "-c", CHILD, *argv],
            capture_output=True,
            text=True,
            cwd=place,
            env=os.environ | {"HOME": place},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stderr.count("is missing, damaged or older than it: made anew") == len(names) - 1
        assert sorted(os.listdir(data)) == names
        data.chmod(0o755)


# 8 to 11: what the data say


def test_a_nan_among_the_actions_of_a_shard_names_episode_and_step(make, monkeypatch):
    import lewm.datasets.shard_writer as writer

    columns = flat_columns(LENGTHS)
    columns["action"][3 * 20 + 7, 1] = np.inf
    monkeypatch.setattr(writer, "check_actions", lambda *args: None)
    with EpisodeWriter(path := make().parent / "nan", codec="raw") as opened:
        monkeypatch.setattr(writer, "fingerprint", lambda source: "none")
        for e in range(4):
            rows = slice(20 * e, 20 * e + 20)
            opened.add(columns["pixels"][rows], {"action": columns["action"][rows]}, key=str(e))
    with pytest.raises(UserError, match=r"the action at step 7 of episode 3 \(3\).*only the last row"):
        open_source(path).actions(3)


def test_an_empty_data_set_is_never_written(tmp_path):
    with pytest.raises(UserError, match="no episode was added"), EpisodeWriter(tmp_path / "out"):
        pass
    assert list((tmp_path / "out").iterdir()) == []


# 12: bad records in training


def test_a_bad_record_is_skipped_for_the_same_other_clip_by_any_number_of_workers(make):
    folder = make()
    tar, m = member(folder, 3, "frames.lwf")
    rot(tar, m.offset + m.size - 9)
    about = {"global_batch": 6, "frameskip": 3, "on_bad_record": "skip"}
    with pytest.warns(UserWarning, match=r"clip \d+ is left out, clip \d+ stands in for it: episode 3 .* frame 19"):
        alone, helped = (list(ClipDataModule(str(folder), num_workers=n, **about).train_dataloader()) for n in (0, 1))
    for a, b in zip(alone, helped, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    (bad,) = {int(i) for batch in alone for i in batch.index[batch.weight == 0]}  # the one clip that ends in frame 19
    whole = ClipDataModule(str(make(name="whole")), num_workers=0, **about | {"on_bad_record": "raise"}).train
    wanted = whole[[substitute(bad, 0, len(whole))]]
    shown = next(b.pixels[i] for b in alone for i in torch.flatten((b.index == bad).nonzero()))
    assert torch.equal(shown, wanted.pixels[0])


@pytest.mark.filterwarnings("ignore:clip .* is left out")
def test_training_that_skips_counts_logs_and_resumes_exactly(make, tmp_path, capsys):
    folder = make()
    for e in (3, 6):
        rot_frame(folder, e, 10)  # which four clips of each show

    def run(name: str, *flags: str) -> Path:
        loggers, course = "--trainer.logger=null", "--model.schedule_epochs=1"  # of the learning rate, for both
        always = (
            "--data.on_bad_record=skip",
            "--trainer.max_epochs=-1",
            "--trainer.log_every_n_steps=1",
            loggers,
            course,
        )
        assert main(fit(folder, tmp_path / name, *always, f"--name={name}", *flags)) == 0, capsys.readouterr().err
        (at,) = (tmp_path / name / name).iterdir()
        return at

    whole = run("whole", "--trainer.max_steps=12")
    logged = (whole / "metrics.csv").read_text().splitlines()
    column = logged[0].split(",").index("train/bad_records")
    counts = [float(row.split(",")[column]) for row in logged[1:] if row.split(",")[column]]
    assert max(counts) == counts[-1] >= 1
    half = run("half", "--trainer.max_steps=5")
    again = run("half", "--trainer.max_steps=12", "--resume=auto", "--data.num_workers=1")
    assert again == half
    ends = [max((at / "checkpoints").glob("step=*.ckpt"), key=lambda p: int(p.stem[5:])) for at in (whole, half)]
    a, b = (torch.load(path, weights_only=True)["state_dict"] for path in ends)
    assert ends[0].name == ends[1].name
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_too_many_bad_records_end_training():
    few, nobody = BadRecords(500), np.zeros(8, bool)
    clips = np.arange(8)
    for _ in range(1000):  # the same two in every epoch
        few.note(clips, clips < 2)
    assert few.total == 2000
    few.note(clips + 100, nobody)
    with pytest.raises(UserError, match=rf"11 of 500 training clips cannot be read, more than {FLOOR}"):
        few.note(np.arange(50, 59), np.ones(9, bool))
    many = BadRecords(10**6)
    many.note(np.arange(101), np.arange(101) > 1)
    many.note(np.arange(200, 300), np.arange(100) > 98)
    with pytest.raises(UserError, match=f"{IN_A_ROW} clips in a row"):
        many.note(np.arange(300, 399), np.ones(99, bool))


def test_nothing_but_damage_is_never_skipped_forever(make, capsys, tmp_path):
    folder = make("zstd", shard_bytes=2**20)
    for e in range(len(LENGTHS)):
        tar, m = member(folder, e, "frames.lwf")
        for frame in range(20):
            rot(tar, m.offset + 24 + 8 * frame, flip=255)
    message = refused(capsys, fit(folder, tmp_path / "out", "--data.on_bad_record=skip"))
    assert f"and {IN_A_ROW} others cannot be read" in message or "in a row" in message


# 13: a loader's worker that the system kills


def test_a_killed_worker_is_named_with_what_to_do_and_nothing_hangs(make, capsys, tmp_path):
    folder, killed = make(), []

    def kill() -> None:
        mine = Path(f"/proc/self/task/{os.getpid()}/children")
        while not (children := [int(pid) for pid in mine.read_text().split() if is_worker(int(pid))]):
            time.sleep(0.02)
        time.sleep(0.3)
        killed.append(children[0])
        os.kill(children[0], signal.SIGKILL)

    def is_worker(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes() == Path("/proc/self/cmdline").read_bytes()
        except OSError:
            return False

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    endless = ("--trainer.max_epochs=-1", "--trainer.max_steps=1000000", "--trainer.check_val_every_n_epoch=1000000")
    message = refused(capsys, fit(folder, tmp_path / "out", "--data.num_workers=1", *endless))
    thread.join()
    assert f"{killed[0]}" in message
    assert "/dev/shm" in message
    assert "data.num_workers" in message


# 24: hostile tars


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def plain(name: str, content: bytes = b"", **changes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, content


HOSTILE = {
    "a module": lambda run: [plain("ep000000.pyd", pickle.dumps(Touch(run)))],
    "a pickle": lambda run: [plain("ep000000.pkl", pickle.dumps(Touch(run)))],
    "a torch file": lambda run: [plain("ep000000.pth", pickle.dumps(Touch(run)))],
    "a way out": lambda run: [plain("../x.npy", b"x")],
    "a way out behind a good name": lambda run: [plain("ep000000.col.a/../../x.npy", b"x")],
    "an absolute path": lambda run: [plain(f"{run}.npy", b"x")],
    "a symbolic link": lambda run: [plain("ep000000.action.npy", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
    "a hard link": lambda run: [plain("ep000000.action.npy", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
    "a device": lambda run: [plain("ep000000.action.npy", type=tarfile.CHRTYPE)],
    "a pipe": lambda run: [plain("ep000000.action.npy", type=tarfile.FIFOTYPE)],
    "a folder": lambda run: [plain("ep000000.action.npy", type=tarfile.DIRTYPE)],
    "a sparse file": lambda run: [plain("ep000000.action.npy", b"\0" * 512, type=tarfile.GNUTYPE_SPARSE)],
    "a long GNU name": lambda run: [plain("ep000000.action.npy", b"/etc/passwd\0", type=tarfile.GNUTYPE_LONGNAME)],
    "a pax header": lambda run: [plain("ep000000.action.npy", b"22 path=../../evil.py\n", type=tarfile.XHDTYPE)],
    "a name split in two": lambda run: [plain("a" * 90 + "/" + "ep000000.action.npy", b"x")],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_tar_is_refused_and_executes_and_writes_nothing(tmp_path, kind):
    run, folder = tmp_path / "ran", tmp_path / "data"
    folder.mkdir()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for info, data in HOSTILE[kind](run):
            archive.addfile(info, io.BytesIO(data))
            if info.type not in (tarfile.REGTYPE, b"\0") and data:  # tarfile writes no data of other types
                content.write(data.ljust(512, b"\0"))
                archive.offset += 512
    (folder / "shard-000000.tar").write_bytes(content.getvalue())
    manifest = {
        "format": 1,
        "fingerprint": "x",
        "codec": "raw",
        "frame_shape": [8, 8, 3],
        "columns": {"action": {"dtype": "<f4", "shape": [2]}},
        "shards": [
            {
                "file": "shard-000000.tar",
                "episodes": 1,
                "lengths": [5],
                "keys": ["a"],
                "bytes": len(content.getvalue()),
                "sha256": "",
            }
        ],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"no episode's member|damaged or truncated"):
        open_source(folder)
    assert sorted(tmp_path.rglob("*")) == before
    assert not run.exists()


def test_a_pickle_inside_an_array_is_refused_unread(make, tmp_path):
    folder = make()
    buffer = io.BytesIO()
    np.save(buffer, np.array([Touch(tmp_path / "ran")], dtype=object), allow_pickle=True)
    tar, m = member(folder, 0, "action.npy")
    content = bytearray(tar.read_bytes())
    payload = buffer.getvalue()[: m.size].ljust(m.size, b"\0")
    content[m.offset : m.offset + m.size] = payload
    tar.write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    for shard in manifest["shards"]:  # an attacker knows how checksums are made
        shard.pop("index"), manifest.pop("checksum", None)
        shard["sha256"] = file_sha256(folder / shard["file"])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"action.npy is damaged"):
        open_source(folder).actions(0)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("size", [10 * 2**30, 8**11 - 1])
def test_a_header_that_declares_gigabytes_is_refused_without_room_for_them(tmp_path, size):
    info = tarfile.TarInfo("ep000000.action.npy")
    info.size = size
    (tmp_path / "s.tar").write_bytes(info.tobuf(tarfile.USTAR_FORMAT if size < 8**11 else tarfile.GNU_FORMAT))
    tracemalloc.start()
    with pytest.raises(UserError, match=rf"has 512 bytes, .* byte {size + 512}|at byte 0: .* no octal number"):
        build_index(tmp_path / "s.tar")
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def bomb(codec: str) -> bytes:
    """A small blob that says, or is, far more than a frame."""
    if codec == "zstd":
        return encode_frame(np.zeros((2**12, 2**12, 3), np.uint8), "zstd")
    if codec == "zlib":
        return encode_frame(np.zeros((2**12, 2**12, 3), np.uint8), "zlib")
    blob = bytearray(encode_frame(np.zeros((16, 16, 3), np.uint8), codec))
    if codec == "png":
        struct.pack_into(">II", blob, 16, 60_000, 60_000)
        struct.pack_into(">I", blob, 29, zlib.crc32(blob[12:29]))
    else:
        struct.pack_into(">HH", blob, blob.index(b"\xff\xc0") + 5, 65_500, 65_500)
    return bytes(blob)


@pytest.mark.parametrize("codec", ["zstd", "zlib", "png", "jpeg"])
def test_a_frame_that_swells_to_gigabytes_is_refused_before_there_is_room_for_it(codec):
    blob, out = bomb(codec), np.empty((16, 16, 3), np.uint8)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"another size|does not end|picture of 6|bytes for a frame"):
        decode_frame(blob, codec, out)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_a_container_and_an_index_that_declare_gigabytes_are_refused_before_there_is_room_for_them(tmp_path):
    header = HEADER.pack(b"LWF1", 2**31, 2**15, 2**15, 3, 1)
    with zipfile.ZipFile(tmp_path / "x.idx.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("sample", "ext", "member"):
            archive.writestr(f"{name}.npy", bytes(2**26))
    tracemalloc.start()
    for shape in (None, (20, 16, 16, 3)):
        with pytest.raises(ValueError, match=r"does not fit|holds frames"):
            PackedFrames(lambda low, n: header[low : low + n], len(header), shape=shape)
    with pytest.raises(ValueError, match="too large for its tar"):
        load_index(tmp_path / "x.idx.npz", tar_bytes=100_000)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
