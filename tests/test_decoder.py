"""The diagnostic decoder: it makes frames of what the embedding holds and nothing more; the model learns nothing."""

import numpy as np
import pytest
import torch
from conftest import write_walks

from lewm import checkpoint as checkpoints
from lewm.datasets.schema import open_source
from lewm.errors import UserError
from lewm.probes import decoder as module
from lewm.probes.decoder import (
    Decoder,
    Pictures,
    fit_decoder,
    frame_errors,
    load_decoder,
    patched,
    patches_along,
    save_decoder,
    unpatched,
)
from lewm.probes.decoding import judge


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(module, "WIDTH", 32)
    monkeypatch.setattr(module, "HIDDEN", 64)


def planted(n, seed=0, side=8):
    """Frames that are a linear map of two latents on a fixed ground; the embedding mixes the latents."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    ground, parts = fixed.uniform(80, 170, (side, side, 3)), fixed.normal(0, 25, (2, side, side, 3))
    latent = rng.uniform(-1, 1, (n, 2))
    pixels = np.clip(ground + np.einsum("nl,lhwc->nhwc", latent, parts), 0, 255).astype(np.uint8)
    z = latent @ fixed.normal(size=(2, 6)) + 3
    return Pictures(z.astype(np.float32), pixels, np.arange(n) // 10)


def without_embedding(pictures, seed=1):
    z = np.random.default_rng(seed).normal(size=pictures.z.shape).astype(np.float32)
    return Pictures(z, pictures.pixels, pictures.episode)


def test_a_planted_linear_picture_is_decoded_and_one_that_the_embedding_does_not_tell_is_not():
    train, val, test = planted(400), planted(60, seed=1), planted(60, seed=2)
    mean = np.round(train.pixels.mean(axis=0)).astype(np.uint8)
    decoder = fit_decoder(train, val, updates=300)
    blind = fit_decoder(without_embedding(train), without_embedding(val), updates=300)
    shown = {"decoder": decoder.frames(test.z), "untrained": blind.frames(without_embedding(test).z)}
    found = judge(shown, test, mean, seed=0)
    assert found["r2"] > 0.97 and found["n"] == 60 and found["episodes"] == 6 and not found["ci_reliable"]
    assert found["controls"]["untrained"]["r2"] < 0.1 and found["controls"]["mean_image"]["r2"] == 0
    low, high = found["controls"]["untrained"]["behind_ci95"]
    assert 0 < low < found["controls"]["untrained"]["behind"] < high
    assert found["mse_ci95"][0] < found["mse"] < found["mse_ci95"][1]


def test_before_any_step_it_shows_the_training_frames_mean():
    train = planted(50)
    fresh = module.prepared(train).frames(train.z)
    mean = train.pixels.mean(axis=0)
    assert np.abs(fresh - mean).max() <= 0.5 + 1e-3


def test_no_gradient_reaches_the_model_and_its_weights_and_statistics_stay(tiny_run, tmp_path):
    source = open_source(write_walks(tmp_path / "w.h5", 4))
    model = checkpoints.load(tiny_run).requires_grad_(True)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    pixels = source.frames(0, np.arange(20))
    z = model.encode(torch.from_numpy(pixels)[:, None])[:, 0]
    assert z.requires_grad  # gradients would have a way, were the decoder fitted to this tensor
    pictures = Pictures(z.detach().numpy(), pixels, np.zeros(20, dtype=np.int64))
    with torch.inference_mode(False):
        decoder = fit_decoder(pictures, pictures, updates=5)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())
    assert not any(p.requires_grad for p in decoder.parameters())


def test_the_same_seed_gives_the_same_decoder_another_seed_another_and_the_global_state_stays():
    train = planted(80)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (fit_decoder(train, train, updates=20, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not np.array_equal(first.queries, other.queries)


def test_the_weights_that_do_best_on_validation_are_kept():
    train = planted(60)
    opposite = Pictures(-train.z, train.pixels, train.episode)  # what is learned is wrong here
    kept = fit_decoder(train, opposite, updates=60)
    best = frame_errors(kept.frames(opposite.z), opposite.pixels).mean()
    start = frame_errors(module.prepared(train).frames(opposite.z), opposite.pixels).mean()
    assert best <= start


@pytest.mark.parametrize(("side", "patches"), [(224, 14), (64, 16), (32, 16), (28, 14), (16, 16), (97, 1), (96, 12)])
def test_there_are_as_many_patches_as_in_the_paper_or_as_near_as_the_side_allows(side, patches):
    assert patches_along(side) == patches


def test_patches_are_put_back_where_they_were_cut_out():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 12, 8, 3), dtype=np.uint8)
    patches = patched(pixels, (4, 2))
    assert patches.shape == (3, 8, 3 * 4 * 3)
    assert np.array_equal(patches[1, 3], pixels[1, 3:6, 4:8].ravel())  # row 1, column 1
    assert np.array_equal(unpatched(patches, (4, 2), (12, 8, 3)), pixels)


def test_a_patch_is_decoded_the_same_alone_and_among_all():
    decoder = module.prepared(planted(40))
    torch.nn.init.normal_(decoder.head.weight)
    z, same, own = torch.randn(2, 6), torch.tensor([3, 1]), torch.tensor([[3, 1], [0, 3]])
    every = decoder(z)
    assert torch.allclose(decoder(z, same), every[:, same], atol=1e-6)
    assert torch.allclose(decoder(z, own), torch.stack([every[0, own[0]], every[1, own[1]]]), atol=1e-6)


def test_patches_are_drawn_where_a_frame_differs_from_the_mean_frame():
    train = planted(40, side=14)
    train.pixels[:] = 100
    train.pixels[7, 2, 3] = 200  # one pixel of one frame; a patch is a pixel here
    train.pixels[8, 2, 3] = 0
    odd = module.oddness(train, module.prepared(train))
    assert odd.shape == (40, 14 * 14) and torch.allclose(odd.sum(dim=1), torch.ones(40))
    assert int(odd[7].argmax()) == 2 * 14 + 3 and odd[7].max() > 0.99


def test_what_is_drawn_more_often_counts_less_so_that_the_mean_stays():
    torch.manual_seed(0)
    odd = torch.tensor([[0.9, 0.1, 0.0, 0.0], [0.25] * 4]).repeat(4000, 1)
    values = torch.tensor([5.0, -1.0, 2.0, 0.0])
    patches, weight = module.draw(odd)
    assert (patches[::2] == 0).float().mean() > 0.5
    for own in (slice(0, None, 2), slice(1, None, 2)):
        assert float((weight * values[patches])[own].mean()) == pytest.approx(1.5, abs=0.05)


def test_a_saved_decoder_shows_the_same_and_a_damaged_file_is_one_line(tmp_path):
    train = planted(60)
    decoder = fit_decoder(train, train, updates=10)
    save_decoder(decoder, tmp_path / "d.safetensors")
    again = load_decoder(tmp_path / "d.safetensors")
    assert isinstance(again, Decoder) and np.array_equal(again.frames(train.z), decoder.frames(train.z))
    assert [p.name for p in tmp_path.iterdir()] == ["d.safetensors"]
    (tmp_path / "e.safetensors").write_bytes((tmp_path / "d.safetensors").read_bytes()[:-9])
    for path in (tmp_path / "e.safetensors", tmp_path / "none"):
        with pytest.raises(UserError, match=r"not a readable decoder.*make it again"):
            load_decoder(path)
