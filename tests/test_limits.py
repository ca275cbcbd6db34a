"""Shortened epochs: each goes on in the order of clips where the last one ended, also over a resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import flat_columns
from test_fit import final_weights, fit, run_of

from lewm.module import LeWM

# 3 of an epoch's 5 batches: epochs end at steps 3 and 6, the order of clips after step 5.
LIMITED = ("--trainer.limit_train_batches=3", "--trainer.limit_val_batches=0", "--trainer.max_epochs=-1")
LIMITED += ("--model.schedule_epochs=2", "--model.dropout=0.1")  # a schedule whatever the run's length


@pytest.fixture
def taken(monkeypatch) -> list[list[int]]:
    """Clips of every step that is begun."""
    found: list[list[int]] = []
    begin = LeWM.on_train_batch_start

    def note(self, batch, batch_idx):
        found.append(batch.index.tolist())
        begin(self, batch, batch_idx)

    monkeypatch.setattr(LeWM, "on_train_batch_start", note)
    return found


@pytest.mark.parametrize("stop", [3, 4])
def test_a_run_of_shortened_epochs_goes_on_with_the_clips_and_to_the_weights_of_an_uninterrupted_one(
    write_flat, tmp_path: Path, taken, stop
):
    data = write_flat(flat_columns([16] * 10))
    assert fit(data, tmp_path / "whole", *LIMITED, "--trainer.max_steps=7") == 0
    whole = list(taken)
    taken.clear()
    assert fit(data, tmp_path / "parts", *LIMITED, f"--trainer.max_steps={stop}") == 0
    assert len(taken) == stop
    assert fit(data, tmp_path / "parts", *LIMITED, "--trainer.max_steps=7", "--resume=auto") == 0
    assert taken == whole
    assert len({clip for batch in whole[:5] for clip in batch}) == 5 * 8  # no clip twice before all had their turn
    expected, weights = (final_weights(run_of(tmp_path / name)) for name in ("whole", "parts"))
    assert all(torch.equal(expected[name], tensor) for name, tensor in weights.items())
