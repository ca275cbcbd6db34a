"""What every solver promises, and what each one does of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lewm.clip import Interface
from lewm.errors import UserError
from lewm.plan import SOLVERS, make_solver
from lewm.plan.cem import fit
from lewm.plan.cost import last_step
from lewm.plan.mppi import weights
from lewm.plan.noise import Noise
from lewm.plan.problem import Problem
from lewm.plan.protocol import Warm
from lewm.plan.space import ActionSpace

SMALL = {
    "cem": {"samples": 60, "elites": 8, "iterations": 12},
    "icem": {"samples": 60, "elites": 8, "iterations": 12},
    "mppi": {"samples": 60, "iterations": 12},
    "gradient": {"starts": 3, "iterations": 40},
    "shooting": {"samples": 60, "iterations": 12},
    "random": {},
}
SEARCHING = [name for name in SMALL if name != "random"]
N = 3


class Adder:
    """z grows by the sum of a block's actions: what a plan leads to can be read off."""

    interface = Interface(image_size=8, frameskip=2, history=1, action_mean=(0.5, -1.0), action_std=(0.5, 2.0))

    def encode(self, pixels):
        raise AssertionError("a solver never encodes")

    def rollout(self, z, past, future):
        return z[:, None, -1:] + future.sum(dim=3).cumsum(dim=2)


def problem_of(goals, *, keys=None, model=None, step=0, low=(-1.0, -3.0), high=(1.0, 3.0)) -> Problem:
    model = model or Adder()
    goal = torch.tensor(goals, dtype=torch.float32)[:, None]
    b = len(goal)
    return Problem(
        model=model,
        z=torch.zeros(b, 1, goal.shape[-1]),
        past=torch.zeros(b, 0, model.interface.frameskip, 2),
        goal=goal,
        cost=last_step,
        space=ActionSpace.of(model.interface, low, high),
        noise=Noise(0, tuple(keys or range(b)), step),
    )


def solver_of(name, **settings):
    return make_solver(name, horizon=N, **{**SMALL[name], **settings})


@pytest.mark.parametrize("name", SEARCHING)
def test_it_finds_blocks_that_lead_to_the_goal(name):
    goals = [[2.0, 5.0], [-3.0, -9.0], [5.0, 0.0]]
    problem = problem_of(goals)
    plan = solver_of(name).plan(problem)
    assert plan.blocks.shape == (3, N, 2, 2)
    left = (plan.blocks.sum(dim=(1, 2)) - torch.tensor(goals)).norm(dim=1)
    assert left.max() < (4 if name == "shooting" else 0.3)


@pytest.mark.parametrize("name", SMALL)
def test_actions_stay_within_the_bounds_where_the_goal_is_out_of_reach(name):
    plan = solver_of(name).plan(problem_of([[99.0, -99.0]]))
    low, high = torch.tensor([-1.0, -3.0]), torch.tensor([1.0, 3.0])
    assert ((low <= plan.blocks) & (plan.blocks <= high)).all()
    if name in ("cem", "icem", "gradient"):
        torch.testing.assert_close(plan.blocks.mean(dim=(0, 1, 2)), torch.tensor([1.0, -3.0]), atol=0.15, rtol=0)


@pytest.mark.parametrize("name", SMALL)
def test_plans_are_the_same_alone_and_among_sixteen(name, tiny_model):
    """With a network as the model, whose sums may be taken in another order in another batch."""
    tiny_model.requires_grad_(False)
    g = torch.Generator().manual_seed(2)
    goals = torch.randn(16, 8, generator=g).tolist()
    keys = [10 * i for i in range(16)]
    solver = solver_of(name, **({"iterations": 6} if name == "gradient" else {}))
    together = solver.plan(problem_of(goals, keys=keys, model=tiny_model)).blocks
    for i in (0, 15):
        alone = solver.plan(problem_of(goals[i : i + 1], keys=keys[i : i + 1], model=tiny_model)).blocks
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.01, "episodes have noise of their own"


@pytest.mark.parametrize("name", SMALL)
def test_the_noise_changes_with_the_seeds_and_the_step_and_nothing_else(name):
    goal, tight = [[1.0, 1.0]], {} if name == "random" else {"iterations": 2}
    first = solver_of(name, **tight).plan(problem_of(goal)).blocks
    torch.manual_seed(99)  # the global state plays no part
    assert torch.equal(solver_of(name, **tight).plan(problem_of(goal)).blocks, first)
    assert not torch.equal(solver_of(name, **tight).plan(problem_of(goal, step=25)).blocks, first)
    assert not torch.equal(solver_of(name, **tight).plan(problem_of(goal, keys=[1])).blocks, first)


@pytest.mark.parametrize("name", SEARCHING)
def test_the_trace_holds_least_and_mean_cost_of_every_iteration(name):
    plan = solver_of(name).plan(problem_of([[2.0, 5.0], [-3.0, -9.0]]))
    iterations = SMALL[name]["iterations"]
    assert plan.best.shape == plan.mean.shape == (iterations, 2)
    assert (plan.best <= plan.mean).all()
    if name != "shooting":
        assert (plan.mean[-1] < 0.2 * plan.mean[0]).all()


@pytest.mark.parametrize("name", SEARCHING)
def test_a_warm_start_that_is_already_right_is_found_at_once(name):
    """What is left of the last plan comes first, the mean action fills the rest, which is (0.5, -1) a step."""
    rest = torch.tensor([[1.0, 2.0], [-1.0, 0.0]]).expand(1, 2, 2, 2)
    goal = rest.sum(dim=(1, 2)) + 2 * torch.tensor([0.5, -1.0])
    plan = solver_of(name, iterations=1).plan(problem_of(goal.tolist()), Warm(rest))
    cold = solver_of(name, iterations=1).plan(problem_of(goal.tolist()))
    assert plan.best[0, 0] < 1e-8 < cold.best[0, 0]
    if name in ("icem", "gradient", "shooting"):  # these end at the best seen
        torch.testing.assert_close(plan.blocks[:, :2], rest)


def test_the_paper_settings_of_cem_are_the_defaults():
    solver = make_solver("cem")
    found = (solver.horizon, solver.samples, solver.elites, solver.iterations, solver.std, solver.min_std)
    assert found == (5, 300, 30, 30, 1.0, 0.0) and solver.returns == "mean"


def test_cem_equals_a_naive_one():
    """One episode, loops, and the formulas of the docstring alone."""
    problem = problem_of([[2.0, 5.0]])
    mean, std = torch.zeros(N, 2, 2), torch.ones(N, 2, 2)
    for i in range(4):
        noise = problem.noise.white(i, 40, N, 2, 2)[0]
        u = torch.stack([problem.space.clip(mean + std * one) for one in noise])
        u[0] = mean
        costs = [float(problem.costs(one[None, None])[0, 0]) for one in u]
        elites = u[sorted(range(40), key=costs.__getitem__)[:5]]
        mean, std = elites.mean(dim=0), elites.std(dim=0)
    plan = solver_of("cem", samples=40, elites=5, iterations=4).plan(problem)
    torch.testing.assert_close(plan.blocks[0], problem.space.raw(mean))


def test_cem_with_a_single_elite_and_a_least_width_goes_on():
    plan = solver_of("cem", elites=1, min_std=0.1, iterations=30).plan(problem_of([[2.0, 5.0]]))
    assert torch.isfinite(plan.blocks).all() and plan.best[-1, 0] < 0.3


class Mostly(Adder):
    """Its predictions are finite for the first two candidates alone."""

    def rollout(self, z, past, future):
        z = super().rollout(z, past, future)
        z[:, 2:] = torch.inf
        return z


def test_candidates_without_a_finite_cost_are_no_elites():
    """Of 60 candidates two are finite: the mean action, and one more; the mean of both is what CEM ends at."""
    problem = problem_of([[2.0, 5.0]], model=Mostly())
    u = problem.space.clip(problem.noise.white(0, *problem.block_shape(60, N)))
    u[:, 0] = 0
    plan = solver_of("cem", iterations=1).plan(problem)
    torch.testing.assert_close(plan.blocks, problem.space.raw(u[:, :2].mean(dim=1)))
    kept = solver_of("icem", iterations=1, keep=1.0, exponent=0.0).plan(problem).elites
    assert kept is not None and kept.shape[1] == 8
    raw = problem.space.raw(u[:, :2])
    assert all(any(torch.equal(one, own) for own in raw[0]) for one in kept[0])


def test_the_gaussian_is_fitted_to_the_elites_that_count():
    elites = torch.randn(2, 4, N, 2, 2, generator=torch.Generator().manual_seed(0))
    counted = torch.tensor([[True, True, True, False], [True, False, False, False]])
    mean, std = fit(elites, counted, 0.0)
    torch.testing.assert_close(mean, torch.stack([elites[0, :3].mean(dim=0), elites[1, 0]]))
    torch.testing.assert_close(std, torch.stack([elites[0, :3].std(dim=0), torch.zeros(N, 2, 2)]))


def test_cem_may_end_at_the_best_candidate_instead_of_the_mean():
    problem = problem_of([[2.0, 5.0]])
    plan = solver_of("cem", iterations=2, returns="best").plan(problem)
    cost = last_step(problem.predicted(plan.blocks)[:, None], problem.goal, plan.blocks[:, None])
    torch.testing.assert_close(cost[:, 0], plan.best.amin(dim=0))


def test_icem_keeps_its_elites_in_the_search_and_for_the_next_plan():
    """With elites that compete again the best cost never rises, however coarse the samples."""
    solver = solver_of("icem", keep=1.0, min_std=1.0, iterations=20)
    plan = solver.plan(problem_of([[2.0, 5.0]]))
    assert (plan.best[1:] <= plan.best[:-1]).all()
    forgetful = solver_of("icem", keep=0.0, min_std=1.0, iterations=20).plan(problem_of([[2.0, 5.0]]))
    assert (forgetful.best[1:] > forgetful.best[:-1]).any()
    assert plan.elites is not None and plan.elites.shape == (1, 8, N, 2, 2)
    warm = plan.after(1)
    assert warm is not None and warm.elites is not None and torch.equal(warm.elites, plan.elites[:, :, 1:])


def test_icem_starts_from_the_shifted_elites_of_the_last_plan():
    goal = [[3.0, 6.0]]
    rest = torch.tensor([[0.5, 1.0], [0.5, 1.0]]).expand(1, 2, 2, 2)
    elites = rest[:, None].expand(1, 4, 2, 2, 2)
    plain = solver_of("icem", iterations=1, std=1e-3).plan(problem_of(goal), Warm(rest))
    with_elites = solver_of("icem", iterations=1, std=1e-3).plan(problem_of(goal), Warm(rest, elites))
    # All candidates but the elites end with the mean action; the elites end with blocks drawn anew.
    assert (plain.blocks[:, -1] - torch.tensor([0.5, -1.0])).abs().max() < 0.05
    torch.testing.assert_close(with_elites.blocks[:, :2], rest)
    assert with_elites.best[0, 0] < plain.best[0, 0]


def test_icem_draws_fewer_samples_each_iteration_but_twice_the_elites():
    sizes = []

    class Watched(Adder):
        def rollout(self, z, past, future):
            sizes.append(future.shape[1])
            return super().rollout(z, past, future)

    solver_of("icem", decay=2.0, keep=0.25, iterations=4).plan(problem_of([[1.0, 1.0]], model=Watched()))
    assert sizes == [60, 30 + 2, 16 + 2, 16 + 2]


def test_mppi_weighs_by_the_softmax_of_costs_in_units_of_their_spread():
    costs = torch.tensor([[1.0, 2.0, 4.0], [10.0, 20.0, 40.0]]) + 7
    w = weights(costs, 0.5)
    torch.testing.assert_close(w[0], torch.softmax(-costs[0] / (0.5 * costs[0].std(correction=0)), dim=0))
    torch.testing.assert_close(w[1], w[0], msg="a cost ten times as large means the same")


def test_mppi_gives_no_weight_to_an_infinite_cost_and_equal_weight_to_equal_ones():
    w = weights(torch.tensor([[1.0, float("inf"), 1.0], [3.0, 3.0, 3.0]]), 0.1)
    torch.testing.assert_close(w, torch.tensor([[0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3]]))


def test_mppi_narrows_from_its_first_to_its_last_width():
    spreads = []

    class Watched(Adder):
        def rollout(self, z, past, future):
            spreads.append(float(future[..., 1].std()))
            return super().rollout(z, past, future)

    solver = solver_of("mppi", samples=2000, iterations=3, std=0.4, last_std=0.1, temperature=1e6)
    solver.plan(problem_of([[0.0, 0.0]], model=Watched(), low=(-99, -99), high=(99, 99)))
    assert spreads == pytest.approx([0.8, 0.4, 0.2], rel=0.05)  # times the standard deviation 2 of the data


def test_adam_is_torchs_own_as_long_as_no_bound_is_met():
    problem = problem_of([[0.3, 0.2]], low=(-99, -99), high=(99, 99))
    plan = make_solver("gradient", horizon=N, starts=1, iterations=15, lr=0.02).plan(problem)
    u = problem.origin(N)[:, None].clone().requires_grad_()
    adam = torch.optim.Adam([u], lr=0.02)
    for i in range(15):
        actions = problem.space.raw(u)
        cost = last_step(problem.model.rollout(problem.z, problem.past, actions), problem.goal, actions)
        torch.testing.assert_close(plan.best[i], cost.detach()[:, 0])
        adam.zero_grad()
        cost.sum().backward()
        adam.step()
    torch.testing.assert_close(plan.blocks, problem.space.raw(u.detach())[:, 0])


def test_a_coordinate_that_starts_at_its_bound_is_pulled_inwards():
    """Scaled and back a bound may come out beyond itself by its last digit, where a clamp has no slope."""
    g = torch.Generator().manual_seed(3)
    beyond = 0
    for _ in range(40):
        mean, std = torch.rand(2, generator=g) - 0.5, torch.rand(2, generator=g) + 0.1
        space = ActionSpace([-1.0, -1.0], [1.0, 1.0], mean=mean, std=std)
        beyond += int(((mean + std * ((torch.ones(2) - mean) / std)) > 1).sum())
        problem = replace(problem_of([[0.0, 0.0]]), space=space)
        plan = make_solver("gradient", horizon=N, starts=1, iterations=3).plan(problem, Warm(torch.ones(1, 2, 2, 2)))
        assert (plan.blocks[:, :2] < 0.999).all(), (mean, std)
        assert plan.blocks.abs().max() <= 1
    assert beyond > 0, "the trap was met"


def test_more_starts_of_the_gradient_are_never_worse():
    class Bumpy(Adder):
        def rollout(self, z, past, future):
            z = super().rollout(z, past, future)
            return z + 2 * torch.sin(3 * z)

    problem = problem_of([[4.0, -7.0], [-2.0, 8.0]], model=Bumpy())
    one, many = (make_solver("gradient", horizon=N, starts=s).plan(problem).best.amin(dim=0) for s in (1, 12))
    assert (many <= one).all() and (many < 0.5 * one).any()


def test_the_random_policy_fills_its_bounds_and_asks_no_model():
    class Unused(Adder):
        def rollout(self, z, past, future):
            raise AssertionError("it looks at nothing")

    plan = make_solver("random", horizon=2000).plan(problem_of([[1.0, 1.0]], model=Unused()))
    flat = plan.blocks.flatten(0, 2)
    torch.testing.assert_close(flat.amin(dim=0), torch.tensor([-1.0, -3.0]), atol=0.01, rtol=0)
    torch.testing.assert_close(flat.std(dim=0), torch.tensor([2.0, 6.0]) / 12**0.5, atol=0.05, rtol=0)
    assert plan.best.shape == (0, 1)
    with pytest.raises(UserError, match="finite action bounds"):
        make_solver("random").plan(problem_of([[1.0, 1.0]], low=(-1, float("-inf"))))


@pytest.mark.parametrize(
    ("name", "settings", "why"),
    [
        ("dreamer", {}, "no solver 'dreamer'; one of cem, icem"),
        ("cem", {"colour": 2}, "solver cem has no setting 'colour'; it has horizon, samples, elites"),
        ("cem", {"elites": 301}, "elites must be 1 to its 300 samples, not 301"),
        ("cem", {"elites": 0}, "elites must be 1 to"),
        ("cem", {"returns": "median"}, "returns is one of mean, best"),
        ("icem", {"keep": 1.5}, "1 - keep must be at least 0"),
        ("icem", {"momentum": 1.0}, "1 - momentum must be above 0"),
        ("icem", {"decay": 0.5}, "decay must be at least 1"),
        ("mppi", {"temperature": 0.0}, "temperature must be above 0"),
        ("gradient", {"lr": float("nan")}, "lr must be above 0, not nan"),
        ("gradient", {"starts": 0}, "starts must be at least 1"),
        ("shooting", {"horizon": 0}, "horizon must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(name, settings, why):
    with pytest.raises(UserError, match=why) as caught:
        make_solver(name, **settings)
    assert "\n" not in str(caught.value)


def test_every_solver_is_tested_here():
    assert SMALL.keys() == SOLVERS.keys()
