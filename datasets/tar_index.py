"""Where each member of a shard lies, and its checksum: taken from the tar's headers, kept as arrays beside it.

Only plain files of the names below are members. Links, devices, sparse files and the extended headers of pax and GNU
tar are refused by their type, unread; nothing is ever extracted.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lewm.datasets import npy
from lewm.errors import UserError
from lewm.paths import written_atomically

MEMBER = re.compile(r"(ep\d{6,})\.(frames\.npy|frames\.lwf|action\.npy|meta\.json|col\.[^/]+\.npy)")
BLOCK = 512  # of a tar
MAGICS = (b"ustar\x0000", b"ustar  \0")  # POSIX's, and that of GNU tar
READ = 1 << 20
ARRAYS = ("sample", "ext", "member")
REMEDY = "restore it or convert again"


@dataclass(frozen=True)
class Member:
    """Where one member's data lies in its tar, and its checksum."""

    offset: int
    size: int
    crc32: int


Index = dict[str, dict[str, Member]]  # sample -> extension -> member, in stored order


@dataclass(frozen=True)
class Located:
    """An index whose samples all have the same members, as one array: a tenth of the memory.

    `numbers` holds offset, size and checksum (samples, members, 3) of the members named by `exts`.
    """

    exts: tuple[str, ...]
    numbers: np.ndarray

    @classmethod
    def of(cls, index: Index) -> Located:
        """Of an index; KeyError if a sample lacks a member that the first has."""
        exts = tuple(next(iter(index.values()), ()))
        rows = [[(m.offset, m.size, m.crc32) for m in map(members.__getitem__, exts)] for members in index.values()]
        return cls(exts, np.array(rows, dtype=np.int64).reshape(len(rows), len(exts), 3))

    def member(self, number: int, ext: str) -> Member:
        """One of one sample; KeyError if there is none of that name."""
        if ext not in self.exts:
            raise KeyError(ext)
        return Member(*self.numbers[number, self.exts.index(ext)].tolist())

    def members(self, number: int) -> dict[str, Member]:
        """Of one sample."""
        return {ext: Member(*numbers) for ext, numbers in zip(self.exts, self.numbers[number].tolist(), strict=True)}


def build_index(tar: Path) -> Index:
    """Read every header and byte of a shard; UserError for damage, and for what is no episode's member."""
    index: Index = {}
    try:
        with tar.open("rb") as file:
            end = file.seek(0, io.SEEK_END)
            at = 0
            while name_and_size := _next_header(file, at, tar):
                name, size = name_and_size
                match = MEMBER.fullmatch(name)
                if match is None:
                    raise UserError(f"{tar} holds {name!r} at byte {at}, which is no episode's member; not ours")
                if at + BLOCK + size > end:
                    raise UserError(
                        f"{tar} is truncated inside {name}: it has {end} bytes, {name} goes to byte "
                        f"{at + BLOCK + size}; {REMEDY}"
                    )
                if match[2] in index.get(match[1], {}):
                    raise UserError(f"{tar} is damaged at byte {at}: it holds {name} twice; {REMEDY}")
                index.setdefault(match[1], {})[match[2]] = Member(at + BLOCK, size, _crc32(file, size))
                at += BLOCK + -(-size // BLOCK) * BLOCK
            _check_only_zeros_follow(file, at, tar)
    except OSError as error:
        raise UserError(f"not a readable shard: {tar} ({error}); {REMEDY}") from error
    return index


def member_of(header: bytes) -> tuple[str, int]:
    """Name and size that a tar's header of 512 bytes tells; ValueError if it is damaged or of no plain file."""
    if len(header) != BLOCK:
        raise ValueError(f"the shard ends {len(header)} bytes into a header")
    told = header[148:156].strip(b" \0")
    if sum(header) - sum(header[148:156]) + 8 * ord(" ") != _octal(told):
        raise ValueError("a header differs from its checksum")
    name = header[:100].rstrip(b"\0").decode("ascii", errors="replace")
    if header[156:157] not in (b"0", b"\0") or header[257:265] not in MAGICS or header[345:500].strip(b"\0"):
        raise ValueError(f"{name!r} is no plain file, so no episode's member")
    return name, _octal(header[124:136].strip(b" \0"))


def _octal(digits: bytes) -> int:
    if not digits.isdigit() or digits.strip(b"01234567"):
        raise ValueError("a header holds no octal number where one must be")
    return int(digits, 8)


def _next_header(file: BinaryIO, at: int, tar: Path) -> tuple[str, int] | None:
    """Name and size of the member whose header is at this byte, or None at the end of the archive."""
    file.seek(at)
    header = file.read(BLOCK)
    if len(header) == BLOCK and not any(header):
        return None
    try:
        return member_of(header)
    except ValueError as error:
        raise UserError(f"{tar} is damaged or truncated at byte {at}: {error}; {REMEDY}") from error


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0 and (block := file.read(min(size, READ))):
        size -= len(block)
        yield block


def _crc32(file: BinaryIO, size: int) -> int:
    crc = 0
    for block in _blocks(file, size):
        crc = zlib.crc32(block, crc)
    return crc


def _check_only_zeros_follow(file: BinaryIO, at: int, tar: Path) -> None:
    """A zeroed header looks like the end of the archive."""
    file.seek(at)
    length = 0
    for block in iter(lambda: file.read(READ), b""):
        length += len(block)
        if any(block):
            raise UserError(f"{tar} is damaged after byte {at}: it goes on after its end; {REMEDY}")
    if length < 2 * BLOCK:
        raise UserError(f"{tar} is truncated after byte {at}: its end is missing; {REMEDY}")


def index_bytes(index: Index) -> bytes:
    """An index as the arrays of a file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **_arrays(index))  # type: ignore[arg-type]
    return buffer.getvalue()


def save_index(index: Index, path: Path) -> None:
    """Write an index as arrays."""
    content = index_bytes(index)
    with written_atomically(path, needed=len(content)) as temporary:
        temporary.write_bytes(content)


def load_index(path: Path, *, tar_bytes: int) -> Index:
    """Read the index of a tar of so many bytes; ValueError, OSError or the like (`INDEX_RAISES`) if it is damaged."""
    with zipfile.ZipFile(path) as archive:
        # A row takes less room than its member, whose header and data are at least a block each.
        sample, ext, member = (_array(archive, f"{name}.npy", tar_bytes) for name in ARRAYS)
    if sample.dtype.kind != "U" or ext.dtype.kind != "U" or member.dtype.str != "<i8":
        raise ValueError("arrays of other types")
    if not len(sample) == len(ext) == len(member) or member.shape[1:] != (3,):
        raise ValueError("arrays of other shapes")
    index: Index = {}
    for s, e, (offset, size, crc32) in zip(sample.tolist(), ext.tolist(), member.tolist(), strict=True):
        if offset < BLOCK or size < 0 or offset + size > tar_bytes:
            raise ValueError("a member outside its tar")
        index.setdefault(s, {})[e] = Member(offset, size, crc32)
    return index


INDEX_RAISES = (OSError, ValueError, LookupError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def _array(archive: zipfile.ZipFile, name: str, limit: int) -> np.ndarray:
    info = archive.getinfo(name)
    if info.file_size > limit or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("an array too large for its tar")
    with archive.open(info) as file:
        content = file.read(info.file_size)  # never more: what is compressed may be far longer than it says
    if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
        raise ValueError("an array differs from its checksum")
    return npy.loads(content)


def _arrays(index: Index) -> dict[str, np.ndarray]:
    rows = [(sample, ext, m) for sample, members in index.items() for ext, m in members.items()]
    numbers = np.array([(m.offset, m.size, m.crc32) for _, _, m in rows], dtype=np.int64)
    return {"sample": np.array([r[0] for r in rows]), "ext": np.array([r[1] for r in rows]), "member": numbers}


def digest_of(index: Index) -> str:
    """Hash of all that an index says, checksums of the members included: 32 hex digits."""
    digest = blake2b(digest_size=16)
    for name, values in _arrays(index).items():
        digest.update(f"{name}:{values.dtype.str}:{values.shape};".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def index_of(tar: Path, *, digest: str | None, sha256: str) -> Index:
    """The stored index, or one made anew where it is missing, damaged, not of that digest, or of none and older.

    Copies often lose the times of files. One of that digest is the index of the shard that the manifest lists, so it
    stays; whether the newer tar is that shard is asked once and noted in the index's time. In a folder that cannot be
    written it could not be noted: there each member is compared with its checksum when it is read, as anywhere, raw
    and jpeg frames only at `verify: full`.

    Raises:
        UserError: the shard itself is not of that sha256; asked only where all of it is read anyway.
    """
    path = tar.with_suffix(".idx.npz")
    index = stored_index(path, tar)
    if index is not None:
        is_older = path.stat().st_mtime_ns < tar.stat().st_mtime_ns
        if digest_of(index) == digest or (digest is None and not is_older):
            if is_older and os.access(path, os.W_OK):
                print(f"lewm: {tar} is newer than its index: compared with its sha256, once", file=sys.stderr)
                _check_sha256(tar, sha256)
                with contextlib.suppress(OSError):
                    now = max(time.time_ns(), tar.stat().st_mtime_ns)  # a file server's clock may be ahead
                    os.utime(path, ns=(now, now))
            return index
    print(f"lewm: the index of {tar} is missing, damaged or older than it: made anew", file=sys.stderr)
    index = build_index(tar)
    _check_sha256(tar, sha256)
    with contextlib.suppress(UserError):  # a folder that cannot be written
        save_index(index, path)
    return index


def stored_index(path: Path, tar: Path) -> Index | None:
    """The index beside a shard; None where there is none that can be read and fits the shard's size."""
    with contextlib.suppress(*INDEX_RAISES):
        return load_index(path, tar_bytes=tar.stat().st_size)
    return None


def _check_sha256(tar: Path, sha256: str) -> None:
    if file_sha256(tar) != sha256:
        raise UserError(
            f"{tar} is damaged or exchanged: its sha256 is not the manifest's; {REMEDY}, or see all with "
            "`lewm inspect --verify`"
        )


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(READ):
            digest.update(block)
    return digest.hexdigest()
