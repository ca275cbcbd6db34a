"""Actions on the scale of the search, and the environment's bounds."""

from __future__ import annotations

import pytest
import torch

from lewm.clip import Interface
from lewm.errors import UserError
from lewm.plan.space import ActionSpace

INF = float("inf")


def test_raw_actions_have_the_statistics_of_the_data_and_never_leave_the_bounds():
    space = ActionSpace([-1.3, -INF], [1.5, INF], mean=[0.1, 20.0], std=[0.4, 7.0])  # 3.5 std from the mean
    u = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0))
    raw = space.raw(u)
    assert raw[:, 0].min() == torch.tensor(-1.3) and raw[:, 0].max() == torch.tensor(1.5), "of so many some are cut"
    assert raw.mean(dim=0).tolist() == pytest.approx([0.1, 20.0], abs=0.1)
    assert raw.std(dim=0).tolist() == pytest.approx([0.4, 7.0], rel=0.03)


def test_the_bounds_hold_to_the_last_bit_whatever_the_scale():
    g = torch.Generator().manual_seed(0)
    for _ in range(200):
        low, gap, mean, std = torch.rand(4, 3, generator=g) + 0.01
        space = ActionSpace(low, low + gap, mean=mean, std=std)
        raw = space.raw(space.clip(10 * torch.randn(50, 3, generator=g)))
        assert (raw >= low).all() and (raw <= low + gap).all()


def test_a_clipped_number_is_within_the_bounds_before_the_clamp_of_raw():
    """So that no gradient is lost at a bound."""
    g = torch.Generator().manual_seed(0)
    for scale in (1e-3, 1.0, 1e3):
        for _ in range(100):
            low, gap, mean, std = torch.rand(4, 3, generator=g) + 0.01
            space = ActionSpace(scale * low, scale * (low + gap), mean=mean, std=std)
            u = space.clip(torch.tensor([[-1e9], [1e9]]).expand(2, 3))
            unclamped = space.mean + space.std * u
            assert torch.equal(unclamped, space.raw(u))
            torch.testing.assert_close(unclamped, torch.stack([space.low, space.high]), rtol=1e-5, atol=1e-6)


def test_scaled_is_the_inverse_of_raw_and_clip_changes_nothing_inside():
    space = ActionSpace([-1, -2], [1, 5], mean=[0.2, 1.0], std=[0.5, 2.0])
    u = torch.rand(100, 2) * 1.5
    torch.testing.assert_close(space.scaled(space.raw(u)), u)
    assert torch.equal(space.clip(u), u)
    outside = torch.tensor([[9.0, -9.0]])
    torch.testing.assert_close(space.raw(space.clip(outside)), torch.tensor([[1.0, -2.0]]))


def test_without_statistics_u_runs_from_minus_one_to_one():
    space = ActionSpace([-1, 0], [3, 10])
    assert torch.equal(
        space.raw(torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]])), torch.tensor([[-1.0, 0], [1, 5], [3, 10]])
    )


def test_it_takes_the_scale_of_the_model_and_refuses_an_environment_with_other_actions():
    interface = Interface(image_size=8, frameskip=5, history=1, action_mean=(0.5, 1.0), action_std=(2.0, 3.0))
    space = ActionSpace.of(interface, [-9, -9], [9, 9])
    assert space.mean.tolist() == [0.5, 1.0] and space.std.tolist() == [2.0, 3.0] and space.dim == 2
    with pytest.raises(UserError, match="environment's actions have 3 numbers, the model was trained on 2"):
        ActionSpace.of(interface, [-1] * 3, [1] * 3)


def test_a_model_of_actions_that_are_on_average_out_of_bounds_is_refused():
    interface = Interface(image_size=8, frameskip=5, history=1, action_mean=(0.5, 256.0), action_std=(2.0, 90.0))
    with pytest.raises(UserError, match=r"mean .*256.* outside the bounds") as caught:
        ActionSpace.of(interface, [-1, -1], [1, 1])
    assert "\n" not in str(caught.value)
    assert ActionSpace.of(interface, [0.5, -INF], [1, 256]).dim == 2, "at a bound"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (dict(low=[0], high=[0]), "low < high"),
        (dict(low=[0], high=[1, 2]), "low < high"),
        (dict(low=[float("nan")], high=[1]), "one number for each"),
        (dict(low=[], high=[]), "one number for each"),
        (dict(low=[-INF], high=[INF]), "finite and above 0"),
        (dict(low=[0], high=[1], mean=[0]), "one of them is missing"),
        (dict(low=[0], high=[1], mean=[0], std=[0]), "finite and above 0"),
        (dict(low=[0], high=[1], mean=[0, 1], std=[1, 1]), "bounds have 1 numbers, their mean 2"),
    ],
)
def test_bounds_and_scales_that_make_no_sense_are_refused_in_one_line(arguments, why):
    with pytest.raises(UserError, match=why) as caught:
        ActionSpace(**arguments)
    assert "\n" not in str(caught.value)
