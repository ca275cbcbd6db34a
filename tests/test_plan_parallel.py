"""Candidates divided among threads: the same costs, no gradients kept, nothing of torch's settings changed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from test_plan_problem import candidates, problem_of

from lewm.errors import UserError
from lewm.plan.parallel import in_threads


class Watched:
    """Notes of each rollout which thread ran it, how many candidates it had and with how many threads of torch."""

    def __init__(self, model):
        self.model, self.interface, self.seen = model, model.interface, []

    def rollout(self, z, past, future):
        rows = future.shape[0] * future.shape[1]
        self.seen.append((threading.get_ident(), rows, torch.get_num_threads(), torch.is_grad_enabled()))
        return self.model.rollout(z, past, future)


def threads_of_torch():
    """In this thread, and in one that begins now."""
    with ThreadPoolExecutor(1) as pool:
        return torch.get_num_threads(), pool.submit(torch.get_num_threads).result()


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("threads", "chunk", "rows"), [(2, 4096, [12, 9]), (3, 4096, [9, 9, 3]), (2, 6, [3] * 7)])
def test_threads_change_no_cost_and_share_the_chunk(tiny_model, threads, chunk, rows):
    whole, watched = problem_of(tiny_model), Watched(tiny_model)  # its weights ask for gradients
    u = candidates(whole)
    costs = replace(whole, model=watched, threads=threads, chunk=chunk).costs(u)
    torch.testing.assert_close(costs, whole.costs(u), rtol=1e-5, atol=1e-5)
    where, sizes, inside, graphs = zip(*watched.seen, strict=True)
    assert sorted(sizes, reverse=True) == rows and set(inside) == {1} and set(graphs) == {False}
    assert threading.get_ident() not in where and threads_of_torch() == (3, 3)
    assert not costs.requires_grad


def test_in_inference_mode_the_threads_are_too_and_elsewhere_not():
    def modes():
        return in_threads(lambda _: torch.tensor(torch.is_inference_mode_enabled()), [torch.zeros(1)] * 2, 2)

    assert not any(modes())
    with torch.inference_mode():
        assert all(modes())


def test_the_threads_compute_in_the_callers_precision(tiny_model):
    whole = problem_of(tiny_model)
    u = candidates(whole)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(replace(whole, threads=2).costs(u), whole.costs(u), rtol=1e-5, atol=1e-5)
        assert (whole.costs(u) - torch.autocast("cpu", enabled=False)(whole.costs)(u)).abs().max() > 1e-3


def test_parts_come_back_in_order_whichever_is_done_first():
    first = threading.Event()

    def work(part):
        if part.item() == 0:
            assert first.wait(60)
        first.set()
        return part

    assert torch.cat(in_threads(work, list(torch.arange(4)[:, None]), 2)).tolist() == [0, 1, 2, 3]


def test_an_error_in_a_thread_comes_through_and_leaves_torch_as_it_was():
    def broken(_):
        raise UserError("no such candidate")

    with pytest.raises(UserError, match="no such candidate"):
        in_threads(broken, [torch.zeros(1)] * 3, 2)
    assert threads_of_torch() == (3, 3)


def test_gradients_are_computed_in_one_thread(tiny_model):
    tiny_model.requires_grad_(False)
    whole, watched = problem_of(tiny_model), Watched(tiny_model)
    u = candidates(whole)
    replace(whole, model=watched, threads=2).costs_and_gradients(u)
    assert {thread for thread, *_ in watched.seen} == {threading.get_ident()}
