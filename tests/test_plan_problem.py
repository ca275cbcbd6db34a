"""One decision: costs and gradients of candidates, in chunks, whatever the model returns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lewm.errors import GuardStop, UserError
from lewm.plan.cost import last_step, sum_over_steps
from lewm.plan.noise import Noise
from lewm.plan.problem import Problem
from lewm.plan.space import ActionSpace


def problem_of(model, *, b=3, t=3, g=1, chunk=4096, cost=sum_over_steps) -> Problem:
    gen = torch.Generator().manual_seed(1)
    k, a = model.interface.frameskip, model.interface.action_dim
    return Problem(
        model=model,
        z=torch.randn(b, t, 8, generator=gen),
        past=torch.randn(b, t - 1, k, a, generator=gen),
        goal=torch.randn(b, g, 8, generator=gen),
        cost=cost,
        space=ActionSpace.of(model.interface, [-2.0, -2.0], [2.0, 2.0]),
        noise=Noise(0, tuple(range(b)), 0),
        chunk=chunk,
    )


def candidates(problem, s=7, n=4):
    return problem.space.clip(problem.noise.white(0, *problem.block_shape(s, n)))


@pytest.fixture
def frozen(tiny_model):
    return tiny_model.requires_grad_(False)


def test_costs_are_those_of_the_models_own_rollout_of_raw_actions(frozen):
    problem = problem_of(frozen, g=2)
    u = candidates(problem)
    actions = problem.space.raw(u)
    for b in range(3):
        for s in (0, 6):
            z = frozen.rollout(problem.z[b : b + 1], problem.past[b : b + 1], actions[b : b + 1, s : s + 1])
            expected = ((z[0, 0, :, None] - problem.goal[b]) ** 2).sum(-1).amin(-1).sum()
            torch.testing.assert_close(problem.costs(u)[b, s], expected)


@pytest.mark.parametrize("chunk", [1, 2, 5, 6, 9, 20, 21])
def test_neither_costs_nor_gradients_depend_on_the_chunk(frozen, chunk):
    whole = problem_of(frozen)
    part = replace(whole, chunk=chunk)
    u = candidates(whole)
    torch.testing.assert_close(part.costs(u), whole.costs(u), rtol=1e-5, atol=1e-5)
    for x, y in zip(part.costs_and_gradients(u), whole.costs_and_gradients(u), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


def test_a_chunk_bounds_the_candidates_of_all_episodes_together(frozen):
    seen = []

    class Watched:
        interface = frozen.interface

        def rollout(self, z, past, future):
            seen.append(future.shape[0] * future.shape[1])
            return frozen.rollout(z, past, future)

    problem = replace(problem_of(frozen, chunk=6), model=Watched())
    problem.costs(candidates(problem))
    assert seen == [6, 6, 6, 3]


def test_the_gradient_is_the_slope_of_the_cost(frozen):
    problem = problem_of(frozen, cost=last_step)
    u = 0.5 * candidates(problem)
    costs, gradient = problem.costs_and_gradients(u)
    assert torch.equal(costs, problem.costs(u))
    way = torch.randn(u.shape, generator=torch.Generator().manual_seed(0))
    eps = 1e-2
    slope = (problem.costs(u + eps * way) - problem.costs(u - eps * way)) / (2 * eps)
    torch.testing.assert_close((gradient * way).sum(dim=(2, 3, 4)), slope, rtol=0.02, atol=0.02)


def test_gradients_flow_under_no_grad_and_inference_mode_and_reach_no_weight(frozen):
    problem = problem_of(frozen)
    expected = problem.costs_and_gradients(candidates(problem))[1]
    assert expected.abs().max() > 0
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            problem = problem_of(frozen)
            assert torch.equal(problem.costs_and_gradients(candidates(problem))[1], expected)
    assert all(weight.grad is None for weight in frozen.parameters())


def test_a_rollout_that_lets_no_gradient_through_is_told(frozen):
    class Closed:
        interface = frozen.interface

        @torch.no_grad()
        def rollout(self, z, past, future):
            return frozen.rollout(z, past, future)

    problem = replace(problem_of(frozen), model=Closed())
    with pytest.raises(UserError, match=r"lets no gradient through.*choose another solver"):
        problem.costs_and_gradients(candidates(problem))


def broken_where(frozen, where):
    """A model whose predictions are NaN where the first action of a candidate says so."""

    class Broken:
        interface = frozen.interface

        def rollout(self, z, past, future):
            bad = where(future[:, :, 0, 0, 0])
            return torch.where(bad[..., None, None], torch.nan * future[..., :1, 0].sum(-1, keepdim=True), 1.0) * (
                frozen.rollout(z, past, future)
            )

    return Broken()


def test_a_cost_that_is_not_finite_is_the_worst_and_has_no_gradient(frozen):
    problem = problem_of(frozen)
    problem = replace(problem, model=broken_where(frozen, lambda first: first > 0))
    u = candidates(problem)
    bad = problem.space.raw(u)[:, :, 0, 0, 0] > 0
    assert bad.any() and not bad.all(dim=1).any()
    costs, gradient = problem.costs_and_gradients(u)
    assert torch.equal(torch.isinf(costs), bad) and torch.equal(torch.isinf(problem.costs(u)), bad)
    assert torch.isfinite(gradient).all() and (gradient[bad] == 0).all() and (gradient[~bad] != 0).any()


def test_an_episode_without_any_finite_cost_stops_with_its_key(frozen):
    problem = problem_of(frozen)
    broken = broken_where(frozen, lambda first: torch.arange(3)[:, None].expand_as(first) == 1)
    problem = replace(problem, model=broken, noise=Noise(0, ("a", "b", "c"), 25))
    with pytest.raises(GuardStop, match="no plan for episode b has a finite cost at step 25"):
        problem.costs(candidates(problem))
