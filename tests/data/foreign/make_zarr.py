"""Writes `zarr2.zarr`, a replay buffer, with zarr 2: as diffusion_policy's ReplayBuffer calls it, which is no package.

    pip install 'zarr<3' 'numcodecs<0.16'
    python tests/data/foreign/make_zarr.py

Arrays grow by an episode at a time; pictures are floats of 0 to 255 in `img`, as in its Push-T set. The last action of
an episode is an ordinary number.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numcodecs
import numpy as np
import zarr
from episodes import episodes

PATH = Path(__file__).parent / "zarr2.zarr"


def main() -> None:
    shutil.rmtree(PATH, ignore_errors=True)
    root = zarr.group(zarr.DirectoryStore(str(PATH)))
    data, meta = root.require_group("data"), root.require_group("meta")
    ends = meta.zeros("episode_ends", shape=(0,), dtype=np.int64, compressor=None)
    blosc = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=numcodecs.Blosc.NOSHUFFLE)
    for frames, actions, states in episodes():
        for name, values in {"img": frames.astype(np.float32), "action": actions, "state": states}.items():
            if name not in data:
                data.zeros(
                    name, shape=(0, *values.shape[1:]), chunks=(25, *values.shape[1:]), dtype="f4", compressor=blosc
                )
            data[name].resize((len(data[name]) + len(values), *values.shape[1:]))
            data[name][-len(values) :] = values
        ends.resize(len(ends) + 1)
        ends[-1] = len(data["action"])


if __name__ == "__main__":
    main()
