import numpy as np
import pytest
import torch

from lewm.augment import Photometric
from lewm.errors import UserError


def clips(b=3, t=4, c=3, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (b, t, 5, 6, c), dtype=np.uint8))


def test_off_it_hands_back_the_very_tensor():
    pixels = clips()
    assert Photometric()(pixels, torch.arange(3), 7) is pixels
    grey = clips(c=1)
    assert Photometric(colour=1.0)(grey, torch.arange(3), 7) is grey


def test_each_clip_is_repainted_alike_whatever_batch_it_stands_in():
    pixels, augment = clips(b=8), Photometric(colour=0.7, light=0.2)
    whole = augment(pixels, torch.arange(8), 5)
    for rows in (slice(0, 4), slice(4, 8), slice(1, None, 2)):  # as ranks would divide it
        assert torch.equal(augment(pixels[rows], torch.arange(8)[rows], 5), whole[rows])
    assert not torch.equal(augment(pixels, torch.arange(8), 6), whole)
    assert not torch.equal(Photometric(colour=0.7, light=0.2, seed=1)(pixels, torch.arange(8), 5), whole)


def test_the_global_random_state_is_neither_used_nor_changed():
    before = torch.random.get_rng_state()
    first = Photometric(colour=1.0, light=0.5)(clips(), torch.arange(3), 1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(123), np.random.seed(5)  # noqa: NPY002
    assert torch.equal(Photometric(colour=1.0, light=0.5)(clips(), torch.arange(3), 1), first)


def test_greys_keep_their_values_and_colours_do_not():
    grey = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16, 1).repeat(1, 6, 1, 1, 3)
    assert torch.equal(Photometric(colour=1.0)(grey, torch.arange(1), 0), grey)
    red = torch.zeros(40, 3, 2, 2, 3, dtype=torch.uint8)
    red[..., 0] = 255
    seen = Photometric(colour=1.0)(red, torch.arange(40), 0)[:, :, 0, 0].double()
    assert seen.mean(dim=(0, 1)).tolist() == pytest.approx([85] * 3, abs=15)  # uniform on the simplex: a third each
    assert (seen.amax(dim=(0, 1)) > 200).all() and (seen.amin(dim=(0, 1)) < 10).all()


def test_greys_keep_their_values_in_half_precision_too():
    grey = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16, 1).repeat(1, 6, 1, 1, 3)
    pixels, augment = clips(), Photometric(colour=1.0, light=0.3)
    full = augment(pixels, torch.arange(3), 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(Photometric(colour=1.0)(grey, torch.arange(1), 0), grey)
        assert torch.equal(augment(pixels, torch.arange(3), 4), full)


def test_frames_of_one_clip_look_different_from_each_other():
    pixels = clips(b=1, t=1).repeat(1, 5, 1, 1, 1)
    seen = Photometric(colour=1.0)(pixels, torch.arange(1), 0)[0]
    assert all(not torch.equal(seen[i], seen[j]) for i in range(5) for j in range(i))


def test_the_share_of_repainted_frames_is_as_asked():
    pixels = clips(b=300)
    seen = Photometric(colour=0.3)(pixels, torch.arange(300), 0)
    share = (seen != pixels).flatten(2).any(dim=2).double().mean().item()
    assert share == pytest.approx(0.3, abs=0.05)


def test_light_turns_about_mid_grey_and_stays_in_range():
    look = Photometric(light=0.4).looks(torch.arange(200), 0, 4, 3)
    assert torch.equal(look.mix, torch.eye(3).expand(200, 4, 3, 3))
    assert look.gain.min() >= 0.6 and look.gain.max() <= 1.4
    shift = look.gain * 127.5 + look.offset - 127.5  # what mid-grey becomes
    assert shift.abs().max() <= 0.4 * 255 + 1e-3 and shift.abs().max() > 80
    white = torch.full((4, 4, 2, 2, 3), 255, dtype=torch.uint8)
    seen = Photometric(light=0.4)(white, torch.arange(4), 0)
    assert seen.dtype == torch.uint8 and seen.max() == 255


@pytest.mark.parametrize("wrong", [{"colour": -0.1}, {"light": 1.5}])
def test_shares_outside_0_to_1_are_refused(wrong):
    with pytest.raises(UserError, match=r"must be in 0\.\.1"):
        Photometric(**wrong)
