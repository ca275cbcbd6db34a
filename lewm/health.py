"""Signs of life that the loss does not show: collapse, and a model that is blind to its actions."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lewm.clip import ClipBatch
from lewm.distributed import sum_over_ranks
from lewm.loss.sigreg import SIGReg

COLLAPSED_STD = 0.1  # a healthy embedding has std 1 in every dimension


def effective_rank(covariance: Float[Tensor, "d d"]) -> Float[Tensor, ""]:
    """exp(entropy of the normalised singular values) of centred embeddings, between 1 and d [0].

    [0] O. Roy and M. Vetterli, The effective rank, EUSIPCO 2007.
    """
    singular = torch.linalg.eigvalsh(covariance.double()).clamp(min=0).sqrt()
    p = singular / singular.sum().clamp(min=1e-12)
    return torch.exp(-(p * p.clamp(min=1e-12).log()).sum())


def straightness(z: Float[Tensor, "b t d"]) -> Float[Tensor, " b"]:
    """Mean cosine between consecutive latent velocities of each clip; 1 for a straight path. Needs 3 frames."""
    v = z.diff(dim=1)
    return F.cosine_similarity(v[:, 1:], v[:, :-1], dim=-1).mean(1)


@runtime_checkable
class Model(Protocol):
    """What is asked of a world model here."""

    def encode(self, pixels: Tensor) -> Tensor: ...

    def predict(self, z: Tensor, actions: Tensor) -> Tensor: ...


class HealthMeter:
    """Sums over evaluation batches, and over ranks, of everything that tells whether a model is alive."""

    def __init__(self, sigreg: SIGReg, weight: float) -> None:
        self.sigreg, self.weight = sigreg, weight
        self.sums: dict[str, Tensor] = {}

    def update(self, model: Model, batch: ClipBatch, step: int) -> None:
        """Add a batch of clips; those of weight 0 are padding and do not count."""
        z = model.encode(batch.pixels).float()
        context, target, w = z[:, :-1], z[:, 1:], batch.weight

        def error_of(predicted: Tensor) -> Tensor:
            return (predicted.float() - target).square().mean((1, 2))

        predicted = model.predict(context, batch.actions)

        shuffled = batch.actions.roll(1, dims=0)  # every clip gets another clip's actions
        others = w if len(w) > 1 else 0 * w  # alone it would get its own
        flat = z[w > 0].flatten(0, 1).double()
        added = {
            "clips": w.sum(),
            "pred_loss": (error_of(predicted) * w).sum(),
            "copy_last": (error_of(context) * w).sum(),
            "zero_action": (error_of(model.predict(context, torch.zeros_like(batch.actions))) * w).sum(),
            "shuffled_action": (error_of(model.predict(context, shuffled)) * others).sum(),
            "shuffled_from": (error_of(predicted) * others).sum(),
            "sigreg": self.sigreg(z, step, w) * w.sum(),
            "rows": flat.new_tensor(float(len(flat))),
            "z": flat.sum(0),
            "zz": flat.T @ flat,
        }
        if z.shape[1] > 2:
            added["straightness"] = (straightness(z) * w).sum()
        for name, value in added.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def compute(self) -> dict[str, Tensor]:
        """Means over all clips of all ranks; empties the meter."""
        total = {name: sum_over_ranks(value.double()) for name, value in self.sums.items()}
        self.sums = {}
        clips, rows = total["clips"], total["rows"]
        mean = total["z"] / rows
        covariance = total["zz"] / rows - torch.outer(mean, mean)
        std = covariance.diagonal().clamp(min=0).sqrt()
        names = ("pred_loss", "sigreg", "copy_last", "straightness")
        found = {name: total[name] / clips for name in names if name in total}
        found["zero_action_ratio"] = total["zero_action"] / total["pred_loss"]
        found["shuffled_action_ratio"] = (
            total["shuffled_action"] / total["shuffled_from"]
        )  # NaN if nothing was shuffled
        return found | {
            "loss": found["pred_loss"] + self.weight * found["sigreg"],
            "sigreg_gaussian": mean.new_tensor(self.sigreg.gaussian_value()),
            "effective_rank": effective_rank(covariance),
            "std_min": std.min(),
            "std_mean": std.mean(),
            "std_max": std.max(),
        }


def verdicts(health: dict[str, float]) -> list[str]:
    """What is wrong, in words, each with its value; empty for a healthy model."""
    found = []
    if health["std_mean"] < COLLAPSED_STD:
        found.append(f"collapse: the embedding's mean std is {health['std_mean']:.3g}, healthy is 1")
    if health["effective_rank"] < 2:
        found.append(f"collapse: the embedding's effective rank is {health['effective_rank']:.3g}")
    if health["pred_loss"] >= health["copy_last"]:
        found.append(
            f"no prediction: error {health['pred_loss']:.3g}, copying the last embedding {health['copy_last']:.3g}"
        )
    if health["shuffled_action_ratio"] < 1.01:
        found.append(f"blind to actions: shuffled ones change the error by {health['shuffled_action_ratio']:.3f}")
    return found
