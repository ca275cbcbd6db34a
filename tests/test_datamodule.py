"""Clips as training sees them."""

import numpy as np
import pytest
import torch
from conftest import flat_columns

from lewm.datasets.convert import convert
from lewm.datasets.datamodule import ClipDataModule
from lewm.errors import UserError


def module(path, **changes) -> ClipDataModule:
    return ClipDataModule(str(path), **({"global_batch": 6, "frameskip": 3, "num_workers": 0} | changes))


def test_frames_are_uint8_and_every_block_lies_between_its_frames(flat_file):
    data = module(flat_file)
    for batch in data.train_dataloader():
        assert batch.pixels.dtype == torch.uint8
        assert batch.pixels.shape == (6, 4, 16, 16, 3)
        rows = batch.pixels[:, :, 0, 0, 0].long()
        acted = (batch.actions[..., 0] * 100).round().long() % 256
        for i in range(3):
            for j in range(3):
                assert (acted[:, i, j] == (rows[:, i] + j) % 256).all()


def test_no_episode_of_validation_or_test_is_ever_trained_on(flat_file):
    data = module(flat_file)
    owner = np.repeat(np.arange(40), data.source.lengths)
    seen = {}
    for part, loader in (
        ("train", data.train_dataloader()),
        ("val", data.val_dataloader()),
        ("test", data.test_dataloader()),
    ):
        rows = torch.cat([b.pixels[:, :, 0, 0, 0].flatten() for b in loader]).long().tolist()
        seen[part] = (
            {int(owner[r]) for r in rows}
            if len(owner) <= 256
            else {int(e) for b in loader for e in _episodes(data, part, b)}
        )
        assert seen[part] <= set(data.episodes(part).tolist())
    assert not seen["train"] & (seen["val"] | seen["test"])


def _episodes(data, part, batch):
    from lewm.datasets.windows import locate

    clips = data.dataset(part)
    return clips.episodes[locate(batch.index.numpy(), clips.starts)[0]]


def test_file_and_shards_give_bit_identical_split_statistics_and_batches(flat_file, tmp_path):
    convert(flat_file, tmp_path / "out")
    one, other = module(flat_file), module(tmp_path / "out")
    assert one.interface == other.interface
    for part in ("train", "val", "test"):
        assert one.episodes(part).tolist() == other.episodes(part).tolist()
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        a, b = list(getattr(one, name)()), list(getattr(other, name)())
        assert len(a) == len(b)
        assert all((x == y).all() for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True))


def test_workers_do_not_change_the_batches(flat_file):
    alone, helped = (list(module(flat_file, num_workers=n).train_dataloader()) for n in (0, 1))
    assert all((a.pixels == b.pixels).all() and (a.index == b.index).all() for a, b in zip(alone, helped, strict=True))


def test_statistics_come_from_the_training_split_only(flat_file):
    data = module(flat_file)
    rows = np.concatenate([data.source.actions(e)[:-1] for e in data.episodes("train")]).astype(np.float64)
    np.testing.assert_allclose(data.interface.action_mean, rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(data.interface.action_std, rows.std(0), rtol=1e-5)


def test_short_episodes_are_counted(flat_file):
    sheet = module(flat_file).describe()
    assert sum(sheet[p]["too_short"] for p in ("train", "val", "test")) == sum(1 + (7 * i) % 30 < 10 for i in range(40))


def test_no_nan_reaches_a_clip(write_flat):
    columns = flat_columns([20] * 12)
    columns["action"][19::20] = np.nan
    for batch in module(write_flat(columns), global_batch=4).train_dataloader():
        assert torch.isfinite(batch.actions).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_batch": 10_000}, r"global_batch is 10000 .* lower data.global_batch"),
        ({"frameskip": 20}, "need 61 rows, the longest has 30"),
        ({"num_frames": 1}, "at least 2"),
        ({"frameskip": 0}, "frameskip is 0"),
    ],
)
def test_settings_that_the_data_cannot_serve_are_refused(flat_file, changes, message):
    with pytest.raises(UserError, match=message):
        module(flat_file, **changes).train  # noqa: B018


def test_an_empty_part_is_a_notice(write_flat):
    data = module(write_flat(flat_columns([20, 20, 20])), global_batch=1)
    empty = next(part for part in ("val", "test") if len(data.episodes(part)) == 0)
    with pytest.warns(UserWarning, match="holds no clip"):
        assert list(getattr(data, f"{empty}_dataloader")()) == []


def test_frames_that_are_not_square_need_a_size(write_flat):
    columns = flat_columns([20])
    columns["pixels"] = columns["pixels"][:, :, :12]
    path = write_flat(columns)
    with pytest.raises(UserError, match="16 x 12"):
        module(path).interface  # noqa: B018
    assert module(path, image_size=8).interface.resize
