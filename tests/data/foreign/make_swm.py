"""Writes `swm.h5`, `swm.lance` with stable-worldmodel's own writers, and `swm_blosc.h5`, the first one compressed.

    pip install stable-worldmodel==0.1.1 lancedb hdf5plugin
    python tests/data/foreign/make_swm.py

The last action of an episode is NaN, as its collector leaves it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from episodes import episodes
from stable_worldmodel.data.formats.hdf5 import HDF5Writer
from stable_worldmodel.data.formats.lance import LanceWriter

HERE = Path(__file__).parent


def columns() -> list[dict[str, list[np.ndarray]]]:
    """Of each episode, as both writers take them."""
    found = []
    for frames, actions, states in episodes():
        actions[-1] = np.nan
        found.append({"pixels": list(frames), "action": list(actions), "state": list(states)})
    return found


def main() -> None:
    flat, table = HERE / "swm.h5", HERE / "swm.lance"
    flat.unlink(missing_ok=True)
    shutil.rmtree(table, ignore_errors=True)
    with HDF5Writer(flat) as writer:
        writer.write_episodes(columns())
    with LanceWriter(table) as writer:
        writer.write_episodes(columns())
    with h5py.File(flat) as plain, h5py.File(HERE / "swm_blosc.h5", "w") as packed:
        for name, dataset in plain.items():
            packed.create_dataset(name, data=dataset[:], chunks=True, **hdf5plugin.Blosc(cname="zstd"))
    flat.unlink()  # tests/test_example_files.py reads such files


if __name__ == "__main__":
    main()
