"""A training step against the peer's: frames a second. python benchmarks/step.py [--compile]

The paper's model, 64 x 64 frames in patches of 8 and 32 clips of 4 frames unless told otherwise, dropout 0.1: forward,
backward, clipping of the gradient, AdamW; in float32, and on both sides in bfloat16 too where the hardware computes in
it. Both sides get the same frames and actions; their losses are printed after as many steps, from weights of their own,
so they agree only in size. With --losses 100 nothing is timed: our fast paths, in each precision, and the plain way in
float32 are trained from the same weights on the same fresh clips, and it says how far their losses are apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from itertools import count
from typing import Any

from alternation import (
    add_precisions,
    alternate,
    arguments,
    best_of,
    precisions,
    seconds,
    serve,
    synchronized,
    use_threads,
)
from floors import matrix_rate, step_gflop
from peer import guard

FRAMES, DIM, FRAMESKIP, ACTIONS = 4, 192, 5, 2
LAMBDA = 0.09


def clips(given: Any, seed: int = 0) -> tuple[Any, Any]:
    """Smooth blobs that move with their actions. uint8 (b, t, h, w, c), float32 (b, t - 1, k, a)"""
    import torch

    g, b, side = torch.Generator().manual_seed(seed), given.clips, given.image
    actions = torch.randn(b, FRAMES - 1, FRAMESKIP, ACTIONS, generator=g)
    places = torch.cat([torch.zeros(b, 1, 2), actions.sum(2).cumsum(1)], dim=1) * 3 + side / 2
    grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), dim=-1).float()
    blobs = torch.exp(-(grid - places[:, :, None, None]).square().sum(-1) / 40)  # (b, t, h, w)
    colours = torch.rand(b, 1, 1, 1, 3, generator=g)
    return (255 * blobs[..., None] * colours).to(given.device, torch.uint8), actions.to(given.device)


def stepper(parameters: list[Any], losses: Callable[..., Any], given: Any) -> Callable[..., Any]:
    """A training step, which gives its loss; it takes what `losses` takes."""
    import torch

    optimizer = torch.optim.AdamW(parameters, lr=5e-5, weight_decay=1e-3)
    context = torch.autocast(given.device, torch.bfloat16) if given.side.endswith("bf16") else nullcontext()

    def step(*which: int) -> Any:
        optimizer.zero_grad()
        with context:
            loss = losses(*which)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss

    return step


def train(parameters: list[Any], losses: Callable[[], Any], given: Any) -> None:
    """Serve training steps: seconds of one, and its loss."""
    step = stepper(parameters, losses, given)

    def once() -> dict[str, float]:
        found = []
        took = seconds(synchronized(given.device, lambda: found.append(step())))
        return {"seconds": took, "loss": float(found[0].detach())}

    serve(once)


def lewm(given: Any, plain: bool) -> tuple[list[Any], Callable[[int, int], Any]]:
    """Our parameters, and the loss of the clips of a seed at a step."""
    import torch

    from lewm.clip import ClipBatch, Interface
    from lewm.module import LeWM

    torch.manual_seed(0)
    interface = Interface(
        image_size=given.image,
        frameskip=FRAMESKIP,
        history=FRAMES - 1,
        action_mean=(0.0,) * ACTIONS,
        action_std=(1.0,) * ACTIONS,
    )
    module = LeWM(interface, sigreg_weight=LAMBDA, plain=plain, encoder_kwargs={"patch_size": given.patch})
    module = module.train().to(given.device)
    if given.side.startswith("compiled"):
        module.model.compile_parts()
    rows = torch.arange(given.clips), torch.ones(given.clips, device=given.device)
    batch_of = lru_cache(1)(lambda seed: ClipBatch(*clips(given, seed), *rows))
    return list(module.parameters()), lambda seed, step: module.training_losses(batch_of(seed), step)["loss"]


def ours(given: Any) -> None:
    from lewm.allocator import keep_freed

    plain = given.side.startswith("plain")
    if not plain and given.device == "cpu":
        keep_freed()  # as `lewm fit` does
    parameters, loss = lewm(given, plain)
    steps = count()
    train(parameters, lambda: loss(0, next(steps)), given)


def compare_losses(given: Any) -> None:
    """Train the fast ways and the plain one in turn, step by step."""
    import torch

    ways = {}
    for name in ("plain-fp32", *(f"ours-{precision}" for precision in precisions(given))):
        way = argparse.Namespace(**{**vars(given), "side": name})
        parameters, loss = lewm(way, name.startswith("plain"))
        ways[name] = stepper(parameters, loss, way)
    found = {name: [] for name in ways}
    for step in range(given.losses):
        for name, way in ways.items():
            torch.manual_seed(step)  # dropout
            found[name].append(float(way(step, step).detach()))
    plain = found.pop("plain-fp32")
    for name, losses in found.items():
        apart = [abs(one / other - 1) for one, other in zip(losses, plain, strict=True)]
        print(
            f"{name}: loss after {given.losses} steps {losses[-1]:.5f}, the plain way {plain[-1]:.5f}: "
            f"{100 * apart[-1]:.3f} % apart, at most {100 * max(apart):.3f} % at any step"
        )


def peer(given: Any) -> None:
    guard()
    import torch
    from stable_pretraining.backbone.utils import vit_hf
    from stable_worldmodel.wm.lewm import LeWM
    from stable_worldmodel.wm.lewm.module import MLP, Embedder, Predictor
    from stable_worldmodel.wm.loss import SIGReg

    torch.manual_seed(0)
    pixels, actions = clips(given)
    norm = {"norm_fn": torch.nn.BatchNorm1d}
    model = LeWM(
        vit_hf("tiny", patch_size=given.patch, image_size=given.image, pretrained=False, use_mask_token=False),
        Predictor(num_frames=FRAMES - 1, depth=6, heads=16, mlp_dim=2048, input_dim=DIM, hidden_dim=DIM, dropout=0.1),
        Embedder(input_dim=FRAMESKIP * ACTIONS, emb_dim=DIM),
        MLP(DIM, 2048, DIM, **norm),
        MLP(DIM, 2048, DIM, **norm),
    )
    model = model.train().to(given.device)
    sigreg = SIGReg(num_proj=1024).to(given.device)
    mean, std = (torch.tensor(x, device=given.device) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def losses() -> Any:
        x = ((pixels / 255 - mean) / std).permute(0, 1, 4, 2, 3)
        info = model.encode({"pixels": x, "action": actions.flatten(2)})
        z = info["emb"]
        ahead = model.predict(z[:, :-1], info["act_emb"])
        return (ahead - z[:, 1:]).square().mean() + LAMBDA * sigreg(z.transpose(0, 1))

    train(list(model.parameters()), losses, given)


def main() -> None:
    """Run a side, or all of them."""
    parser = arguments(__doc__)
    add_precisions(parser)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--image", type=int, default=64)
    parser.add_argument("--patch", type=int, default=8)
    parser.add_argument("--compile", action="store_true", help="ours compiled by torch.compile as well")
    parser.add_argument("--losses", type=int, default=0, help="compare the losses of as many steps instead")
    given = parser.parse_args()
    use_threads(given.threads)
    if given.losses:
        return compare_losses(given)
    if given.side:
        return (peer if given.side.startswith("peer") else ours)(given)
    kinds = ("ours", *(("compiled",) if given.compile else ()), "plain", "peer")
    sides = alternate([f"{kind}-{precision}" for precision in precisions(given) for kind in kinds], given)
    best = best_of(sides, "peer")
    for side in sides.values():
        print(
            f"{side.name:13s} {given.clips * FRAMES / side.median():.1f} frames/s, {side.median():.3f} s a step "
            f"({side.spread()}), {best.median() / side.median():.2f} x {best.name}'s speed, "
            f"loss at the last step {side.found[-1]['loss']:.4f}"
        )
    for precision in precisions(given):
        rate = matrix_rate(given.device, precision)
        work = step_gflop(given.image, given.patch, given.clips)
        print(f"{precision}: {work:.0f} GFLOP, floor {work / rate:.3f} s a step at {rate:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
