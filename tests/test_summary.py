"""Descriptions and fingerprints."""

import numpy as np
from conftest import flat_columns

from lewm.datasets.schema import open_source
from lewm.datasets.summary import contact_sheet, summarise


def test_the_summary_counts_what_is_not_finite_and_ranges_of_the_rest(write_flat):
    columns = flat_columns([5, 6])
    columns["state"][3, 0] = np.nan
    columns["action"][4] = np.nan
    summary = summarise(open_source(write_flat(columns)))
    assert summary["columns"]["state"]["not_finite"] == 1
    assert summary["columns"]["proprio/pos"] | {"low": 0.0, "high": 10.0} == summary["columns"]["proprio/pos"]
    assert summary["last_actions_nan"] == 1
    assert summary["length"] == {"min": 5, "median": 5.5, "max": 6}


def test_the_fingerprint_feels_actions_keys_types_and_frames(write_flat):
    base = flat_columns([5, 6])

    def print_of(**changes: np.ndarray) -> str:
        return open_source(write_flat(base | changes, "f.h5")).fingerprint()

    action, pixels = base["action"].copy(), base["pixels"].copy()
    action[2, 1] += 1
    pixels[5, 3, 3] += 1
    prints = [print_of(), print_of(action=action), print_of(pixels=pixels), print_of(id=base["id"] + 1)]
    prints.append(print_of(state=base["state"].astype(np.float32)))
    assert len(set(prints)) == len(prints)
    assert print_of() == prints[0]


def test_the_contact_sheet_shows_episodes_down_and_time_across(flat_file):
    sheet = contact_sheet(open_source(flat_file), episodes=3, frames=5)
    assert sheet.shape == (3 * 18, 5 * 18, 3)
