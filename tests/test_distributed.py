"""Two CPU processes against one: losses, statistics and gradients."""

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
from lewm.distributed import BatchNormOverRanks, batch_norms_over_ranks, mean_over_ranks, sum_over_ranks
from lewm.loss.prediction import prediction_loss
from lewm.loss.sigreg import SIGReg
from lewm.model.world_model import WorldModel

WORLD = 2
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


def average_gradients(model: nn.Module) -> None:
    """What DDP does."""
    for p in model.parameters():
        dist.all_reduce(p.grad)
        p.grad /= WORLD


def on_rank(rank: int, folder: str) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD)
    pixels, actions = batch()
    out = {}
    for dtype in DTYPES:
        loss, model = training_step(pixels[rank::WORLD], actions[rank::WORLD], dtype)
        average_gradients(model)
        out[str(dtype)] = {
            "loss": mean_over_ranks(loss[None]),
            "grads": {n: p.grad for n, p in model.named_parameters()},
            "buffers": dict(model.named_buffers()),
        }
    x = torch.arange(10.0, dtype=torch.float64)
    mine = x[:3] if rank == 0 else x[3:]  # ranks hold different numbers of rows
    mine.requires_grad_()
    statistic = (mean_over_ranks(mine**2) - 3).square()
    statistic.backward()
    out |= {"statistic": statistic.detach(), "statistic_grad": mine.grad / WORLD}
    torch.save(out, Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(on_rank, args=(str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"rank{r}.pt", weights_only=True) for r in range(WORLD)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_loss_and_every_gradient_equal_those_of_one_process_on_the_whole_batch(ranks, dtype):
    loss, model = training_step(*batch(), dtype)
    # The tiny batch's BatchNorm blows float32's rounding up; float64 shows that nothing else differs.
    relative, absolute = (1e-4, 1e-6) if dtype == torch.float32 else (1e-10, 1e-12)
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    for rank in (r[str(dtype)] for r in ranks):
        assert float(rank["loss"]) == pytest.approx(float(loss), rel=relative)
        for name, p in model.named_parameters():
            difference = (rank["grads"][name] - p.grad).norm()
            assert difference <= relative * p.grad.norm() + absolute * norm, name


def test_batchnorm_tracks_the_statistics_of_the_whole_batch_alike_on_every_rank(ranks):
    _, model = training_step(*batch(), torch.float64)
    first, second = (r[str(torch.float64)]["buffers"] for r in ranks)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(first[name], buffer)
        assert torch.equal(first[name], second[name])


def test_the_reduction_is_exact_for_unequal_batches(ranks):
    x = torch.arange(10.0, dtype=torch.float64, requires_grad=True)
    whole = ((x**2).mean() - 3).square()
    whole.backward()
    assert float(ranks[0]["statistic"]) == pytest.approx(whole.item())
    torch.testing.assert_close(torch.cat([r["statistic_grad"] for r in ranks]), x.grad)


def test_without_a_process_group_the_reduction_is_the_identity():
    x = torch.randn(5, requires_grad=True)
    assert sum_over_ranks(x) is x
    torch.testing.assert_close(mean_over_ranks(x), x.mean())


def test_alone_our_batchnorm_is_torchs_own():
    x, ours, theirs = (
        torch.randn(9, 4, generator=torch.Generator().manual_seed(0)),
        BatchNormOverRanks(4),
        nn.BatchNorm1d(4),
    )
    assert torch.equal(ours(x), theirs(x))
    assert ours.state_dict().keys() == theirs.state_dict().keys()


def test_a_convolutional_backbones_batchnorm_is_replaced_with_its_values():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4)))
    net[1][0].running_mean.fill_(3.0)
    batch_norms_over_ranks(net)
    assert isinstance(net[1][0], BatchNormOverRanks)
    assert net[1][0].running_mean.tolist() == [3.0] * 4
    assert net(torch.randn(2, 3, 5, 5)).shape == (2, 4, 5, 5)
