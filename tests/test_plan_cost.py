"""Costs against loops over candidates, blocks and goal frames."""

from __future__ import annotations

import pytest
import torch

from lewm.errors import UserError
from lewm.plan.cost import COSTS, action_penalty, frames_in_order, last_step, nearest_step, sum_over_steps, weighted
from lewm.plan.space import ActionSpace

B, S, N, D, K, A = 2, 3, 4, 5, 2, 3


@pytest.fixture
def given():
    g = torch.Generator().manual_seed(0)
    return [
        torch.randn(B, S, N, D, generator=g),
        torch.randn(B, 2, D, generator=g),
        torch.randn(B, S, N, K, A, generator=g),
    ]


def by_loops(predicted, goal, judge):
    return torch.tensor([[judge(predicted[b, s], goal[b]) for s in range(S)] for b in range(B)])


def square(x, y):
    return float(((x - y) ** 2).sum())


NAIVE = {
    last_step: lambda z, goal: min(square(z[-1], g) for g in goal),
    sum_over_steps: lambda z, goal: sum(min(square(one, g) for g in goal) for one in z),
    nearest_step: lambda z, goal: min(square(one, g) for g in goal for one in z),
    frames_in_order: lambda z, goal: square(z[-2], goal[0]) + square(z[-1], goal[1]),
}


@pytest.mark.parametrize("cost", NAIVE, ids=lambda c: c.__name__)
def test_it_equals_the_naive_one(given, cost):
    torch.testing.assert_close(cost(*given), by_loops(*given[:2], NAIVE[cost]))


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS.keys())
def test_it_is_float32_and_zero_where_all_blocks_show_the_goal(cost):
    goal = torch.randn(B, 1, D).bfloat16()
    predicted = goal[:, None].expand(B, S, N, D)
    found = cost(predicted, goal, torch.zeros(B, S, N, K, A))
    assert found.dtype == torch.float32 and found.shape == (B, S)
    assert (found == 0).all()


def test_only_the_last_step_counts_for_last_step(given):
    predicted, goal, actions = given
    changed = predicted.clone()
    changed[:, :, :-1] += 1
    assert torch.equal(last_step(changed, goal, actions), last_step(predicted, goal, actions))
    assert not torch.isclose(sum_over_steps(changed, goal, actions), sum_over_steps(predicted, goal, actions)).any()


def test_goal_frames_in_another_order_are_another_goal(given):
    predicted, goal, actions = given
    assert not torch.isclose(frames_in_order(predicted, goal.flip(1), actions), frames_in_order(*given)).any()
    with pytest.raises(UserError, match="5 goal frames in order need a horizon of as many blocks, not 4"):
        frames_in_order(predicted, torch.zeros(B, 5, D), actions)


def test_the_action_penalty_is_the_mean_square_on_the_scale_of_the_search(given):
    predicted, goal, actions = given
    mean, std = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([2.0, 0.5, 1.0])
    penalty = action_penalty(ActionSpace([-9] * 3, [9] * 3, mean=mean, std=std))
    u = (actions - mean) / std
    torch.testing.assert_close(penalty(predicted, goal, actions), (u**2).sum(-1).mean(dim=(-1, -2)))
    assert torch.equal(penalty(predicted, goal, mean.expand_as(actions)), torch.zeros(B, S))


def test_weighted_costs_add_up(given):
    total = weighted((2.0, last_step), (0.5, sum_over_steps), (0.0, nearest_step))(*given)
    torch.testing.assert_close(total, 2 * last_step(*given) + 0.5 * sum_over_steps(*given))
    with pytest.raises(UserError, match="at least one"):
        weighted()
