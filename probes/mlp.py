"""The MLP probe: two hidden layers, trained with AdamW and a cosine schedule, the best epoch chosen on validation."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lewm.probes.seams import Rows, Scale

HIDDEN = 256
BATCH = 512
LR = 3e-3
WEIGHT_DECAY = 1e-4
WARMUP = 0.05  # of all steps
UPDATES = 2500  # at most; 64 epochs of 20,000 frames
EPOCHS = 100  # at most, where frames are few
PATIENCE = 0.3  # share of the schedule without a better validation error after which training ends


@dataclass(frozen=True)
class MLPProbe:
    """A network on standardised features and quantities."""

    scale: Scale
    net: nn.Sequential
    epochs: int

    @torch.inference_mode()
    def predict(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n c"]:
        """The quantity, standardised by the training rows."""
        batches = torch.from_numpy(self.scale(x).astype(np.float32)).split(4096)
        return torch.cat([self.net(batch) for batch in batches]).double().numpy()


def fit_mlp(train: Rows, val: Rows, *, seed: int = 0) -> MLPProbe:
    """The network after the epoch that does best on `val`; the same for the same seed."""
    scale, target = Scale.of(train.x), Scale.of(train.y)
    x, x_val = (torch.from_numpy(scale(rows.x).astype(np.float32)) for rows in (train, val))
    y, y_val = (torch.from_numpy(target(rows.y).astype(np.float32)) for rows in (train, val))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build(x.shape[1], y.shape[1])
        state, epochs = optimise(net, (x, y), (x_val, y_val))
    net.load_state_dict(state)
    return MLPProbe(scale, net.eval().requires_grad_(False), epochs)


def build(width: int, out: int) -> nn.Sequential:
    """Two hidden layers of `HIDDEN` with GELU."""
    return nn.Sequential(
        nn.Linear(width, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, out)
    )


def optimise(
    net: nn.Sequential, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor]
) -> tuple[dict[str, Tensor], int]:
    """Weights of the epoch with the lowest validation error, and the number of epochs run."""
    batches = math.ceil(len(train[0]) / BATCH)
    epochs = max(1, min(EPOCHS, UPDATES // batches))
    optimiser = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warmup_cosine(step, epochs * batches))
    best, lowest, since = copy.deepcopy(net.state_dict()), math.inf, 0
    for epoch in range(epochs):
        for rows in torch.randperm(len(train[0])).split(BATCH):
            loss = F.mse_loss(net(train[0][rows]), train[1][rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            error = float(F.mse_loss(net(val[0]), val[1]))
        since += 1
        if error < lowest:
            best, lowest, since = copy.deepcopy(net.state_dict()), error, 0
        if since > PATIENCE * epochs:
            return best, epoch + 1
    return best, epochs


def warmup_cosine(step: int, total: int) -> float:
    """Factor of the learning rate: linear from near 0, then a cosine to 0."""
    warm = max(1, int(WARMUP * total))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
