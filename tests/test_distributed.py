"""Two and four CPU processes against one: losses, statistics and gradients."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import TINY
from torch import Tensor, nn

from lewm.clip import Interface
from lewm.distributed import (
    BatchNormOverRanks,
    batch_norms_over_ranks,
    mean_over_ranks,
    sum_over_ranks,
    tells_of_a_lost_rank,
)
from lewm.loss.prediction import prediction_loss
from lewm.loss.sigreg import SIGReg
from lewm.model.world_model import WorldModel

WORLDS = (2, 4)
DTYPES = (torch.float32, torch.float64)
INTERFACE = Interface(image_size=16, frameskip=2, history=3, action_mean=(0.0, 0.0), action_std=(1.0, 1.0))


def batch() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(7)
    pixels = torch.randint(0, 256, (8, 4, 16, 16, 3), dtype=torch.uint8, generator=g)
    return pixels, torch.randn(8, 3, 2, 2, generator=g)


def training_step(pixels: Tensor, actions: Tensor, dtype: torch.dtype) -> tuple[Tensor, WorldModel]:
    torch.manual_seed(0)
    model = WorldModel(INTERFACE, **TINY).train().to(dtype)
    for block in model.predictor.transformer.layers:
        nn.init.normal_(block.adaLN_modulation[1].weight, std=0.3)
    z = model.encode(pixels)
    loss = prediction_loss(model.predict(z[:, :-1], actions), z[:, 1:]) + 0.1 * SIGReg(directions=16)(z, 3)
    loss.backward()
    return loss.detach(), model


def average_gradients(model: nn.Module, world: int) -> None:
    """What DDP does."""
    for p in model.parameters():
        dist.all_reduce(p.grad)
        p.grad /= world


def unequal(x: Tensor, rank: int, world: int) -> Tensor:
    """A rank's rows of 10: 3 and 7 on two ranks, 1, 2, 3 and 4 on four."""
    return x.split([3, 7] if world == 2 else [1, 2, 3, 4])[rank]


def on_rank(rank: int, world: int, folder: str) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    ones = torch.ones(3)
    out: dict = {"before": (sum_over_ranks(ones), mean_over_ranks(ones))}
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    out["during"] = (sum_over_ranks(ones), mean_over_ranks(ones))
    pixels, actions = batch()
    for dtype in DTYPES:
        loss, model = training_step(pixels[rank::world], actions[rank::world], dtype)
        average_gradients(model, world)
        out[str(dtype)] = {
            "loss": mean_over_ranks(loss[None]),
            "grads": {n: p.grad for n, p in model.named_parameters()},
            "buffers": dict(model.named_buffers()),
        }
    x = torch.arange(10.0, dtype=torch.float64)
    mine = unequal(x, rank, world).clone().requires_grad_()
    statistic = (mean_over_ranks(mine**2) - 3).square()
    statistic.backward()
    out |= {"statistic": statistic.detach(), "statistic_grad": mine.grad / world}
    rows = unequal(normed_rows(), rank, world).clone().requires_grad_()
    norm = BatchNormOverRanks(4)
    norm(rows)[:, 0].pow(3).sum().backward()
    out |= {"norm_grad": rows.grad, "norm_buffers": dict(norm.named_buffers())}
    dist.destroy_process_group()
    out["after"] = (sum_over_ranks(ones), mean_over_ranks(ones))
    torch.save(out, Path(folder) / f"rank{rank}.pt")


def normed_rows() -> Tensor:
    """10 rows whose std is 1 % of their mean, as an untrained encoder's are."""
    return 1 + 0.01 * torch.randn(10, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=WORLDS)
def ranks(request, tmp_path_factory) -> list[dict]:
    folder, world = tmp_path_factory.mktemp("ranks"), request.param
    mp.get_context("forkserver").set_forkserver_preload(["lewm.fit"])
    mp.start_processes(on_rank, args=(world, str(folder)), nprocs=world, start_method="forkserver")
    return [torch.load(folder / f"rank{r}.pt", weights_only=True) for r in range(world)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_loss_and_every_gradient_equal_those_of_one_process_on_the_whole_batch(ranks, dtype):
    loss, model = training_step(*batch(), dtype)
    relative, absolute = (1e-5, 1e-7) if dtype == torch.float32 else (1e-10, 1e-12)
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    for rank in (r[str(dtype)] for r in ranks):
        assert float(rank["loss"]) == pytest.approx(float(loss), rel=relative)
        for name, p in model.named_parameters():
            difference = (rank["grads"][name] - p.grad).norm()
            assert difference <= relative * p.grad.norm() + absolute * norm, name


def test_batchnorm_tracks_the_statistics_of_the_whole_batch_alike_on_every_rank(ranks):
    _, model = training_step(*batch(), torch.float64)
    first, *others = (r[str(torch.float64)]["buffers"] for r in ranks)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(first[name], buffer)
        assert all(torch.equal(first[name], other[name]) for other in others)


def test_the_reduction_is_exact_for_unequal_batches(ranks):
    x = torch.arange(10.0, dtype=torch.float64, requires_grad=True)
    whole = ((x**2).mean() - 3).square()
    whole.backward()
    assert float(ranks[0]["statistic"]) == pytest.approx(whole.item())
    torch.testing.assert_close(torch.cat([r["statistic_grad"] for r in ranks]), x.grad)


def test_batchnorm_of_unequal_batches_is_that_of_all_rows(ranks):
    rows, norm = normed_rows().requires_grad_(), BatchNormOverRanks(4)
    norm(rows)[:, 0].pow(3).sum().backward()
    torch.testing.assert_close(torch.cat([r["norm_grad"] for r in ranks]), rows.grad, rtol=1e-5, atol=1e-5)
    for name, buffer in norm.named_buffers():
        torch.testing.assert_close(ranks[-1]["norm_buffers"][name], buffer)


def test_reductions_are_identities_before_and_after_there_is_a_process_group(ranks):
    ones = torch.ones(3)
    for rank in ranks:
        for when in ("before", "after"):
            assert torch.equal(rank[when][0], ones)
            assert float(rank[when][1]) == 1
        assert torch.equal(rank["during"][0], ones * len(ranks))
        assert float(rank["during"][1]) == 1


def test_without_a_process_group_the_reduction_is_the_identity():
    x = torch.randn(5, requires_grad=True)
    assert sum_over_ranks(x) is x
    torch.testing.assert_close(mean_over_ranks(x), x.mean())


@pytest.mark.parametrize("shape", [(9, 4), (3, 4, 5, 5)])
def test_alone_our_batchnorm_has_the_values_and_gradients_of_torchs_own(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = BatchNormOverRanks(4).double()
    theirs = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(4).double()
    given = [x.clone().requires_grad_() for _ in range(2)]
    for norm, rows in zip((ours, theirs), given, strict=True):
        nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(1))
        norm(rows).pow(3).sum().backward()
    torch.testing.assert_close(given[0].grad, given[1].grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_what_is_constant_over_all_rows_gets_no_gradient_through_batchnorm():
    """A bias before BatchNorm: in float32 sums the rounding of one row is that of all, and adds up."""
    rows = 1 + 0.01 * torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    bias = torch.zeros(4, requires_grad=True)
    y = BatchNormOverRanks(4)(rows + bias)
    (y * torch.randn(256, 4, generator=torch.Generator().manual_seed(1))).sum().backward()
    assert bias.grad is not None
    assert float(bias.grad.abs().max()) < 1e-3  # torch's own leaves 30 times this, of gradients of about 100 a row


def test_batchnorm_of_one_row_alone_is_refused_as_torch_does():
    with pytest.raises(ValueError, match="more than 1 value"):
        BatchNormOverRanks(4)(torch.zeros(1, 4))


def test_words_of_a_lost_rank_are_told_from_our_own_faults():
    assert tells_of_a_lost_rank(RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer"))
    assert tells_of_a_lost_rank(RuntimeError("Application timeout caused pair closure"))
    assert tells_of_a_lost_rank(dist.DistBackendError("NCCL communicator was aborted on rank 0"))
    assert not tells_of_a_lost_rank(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not tells_of_a_lost_rank(ValueError("gloo/"))


def test_a_convolutional_backbones_batchnorm_is_replaced_with_its_values():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4)))
    net[1][0].running_mean.fill_(3.0)
    batch_norms_over_ranks(net)
    assert isinstance(net[1][0], BatchNormOverRanks)
    assert net[1][0].running_mean.tolist() == [3.0] * 4
    assert net(torch.randn(2, 3, 5, 5)).shape == (2, 4, 5, 5)
