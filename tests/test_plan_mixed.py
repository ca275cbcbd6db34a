"""Rollouts in bfloat16: near the plain ones, in every thread, and nothing else in bfloat16."""

from __future__ import annotations

from dataclasses import replace

import torch
from test_plan_problem import candidates, problem_of

from lewm.plan.cost import sum_over_steps
from lewm.plan.mixed import Mixed, lowered


def test_costs_of_mixed_rollouts_are_near_the_plain_ones_and_so_are_gradients(tiny_model):
    problem = problem_of(tiny_model.requires_grad_(False))
    mixed = replace(problem, rougher=Mixed(tiny_model))
    u = candidates(problem, s=64)
    assert not torch.equal(mixed.costs(u), problem.costs(u))
    torch.testing.assert_close(mixed.costs(u), problem.costs(u), rtol=0.03, atol=0.03)
    gradients = [one.costs_and_gradients(u)[1] for one in (problem, mixed)]
    assert not torch.equal(*gradients)
    assert torch.cosine_similarity(*(x.flatten() for x in gradients), dim=0) > 0.999


def test_weights_held_in_bfloat16_give_the_numbers_of_autocast_alone(tiny_model):
    problem = problem_of(tiny_model.requires_grad_(False))
    future = problem.space.raw(candidates(problem))
    before = {name: x.clone() for name, x in tiny_model.state_dict().items()}
    found = Mixed(tiny_model).rollout(problem.z, problem.past, future)
    with torch.autocast("cpu", torch.bfloat16):
        expected = tiny_model.rollout(problem.z, problem.past, future)
    assert torch.equal(found, expected) and found.dtype == torch.float32
    assert all(torch.equal(x, before[name]) for name, x in tiny_model.state_dict().items())  # the model is not touched


def test_candidates_are_rolled_out_under_autocast_in_every_thread_and_nothing_else_is(tiny_model):
    seen = []

    class Watched:
        interface = tiny_model.interface

        def rollout(self, z, past, future):
            seen.append((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), z.dtype))
            return tiny_model.rollout(z, past, future).bfloat16()  # as of a model whose last product it is

    def cost(predicted, goal, actions):
        assert predicted.dtype == goal.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return sum_over_steps(predicted, goal, actions)

    watched = Watched()
    assert lowered(watched) is watched
    problem = replace(problem_of(tiny_model), model=watched, rougher=Mixed(watched), threads=2, cost=cost)
    problem.costs(candidates(problem))
    assert seen == [(True, torch.bfloat16, torch.float32)] * 2
    problem.predicted(problem.space.raw(candidates(problem, s=1))[:, 0])
    assert not seen[-1][0]
