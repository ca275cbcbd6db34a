"""Compression filters of HDF5 files: those of h5py, and those that hdf5plugin adds where it is installed."""

from __future__ import annotations

import h5py

from lewm.errors import UserError


def require_filters(dataset: h5py.Dataset, where: str) -> None:
    """UserError naming the filter where this data set's rows cannot be unpacked for want of it."""
    about = dataset.id.get_create_plist()
    for number, _, _, name in (about.get_filter(i) for i in range(about.get_nfilters())):
        if not _available(number):
            called = name.decode(errors="replace").split(";")[0] or "unknown"
            raise UserError(
                f"{where} is compressed by {called} (filter {number}): pip install 'lewm[hdf5]', which reads more"
            )


def _available(number: int) -> bool:
    if h5py.h5z.filter_avail(number):
        return True
    try:
        import hdf5plugin  # noqa: F401  registers its filters
    except ImportError:
        return False
    return h5py.h5z.filter_avail(number)
