"""A CEM search against the peer's: milliseconds an iteration. python benchmarks/plan.py [--episodes 50]

The paper's model, 64 x 64 frames in patches of 8 unless told otherwise, 300 candidates of 5 blocks, 30 elites, from one
frame; encoding the frame and the goal is included. In float32, and where the hardware computes in bfloat16 in that too:
of our side the rollouts (`lewm plan --precision bf16-mixed`), of the peer's all of it. Several episodes are planned for
together on our side, and one after the other on the peer's, where more at once is no faster a plan.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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
from floors import matrix_rate
from peer import guard

DIM, FRAMESKIP, ACTIONS, HISTORY = 192, 5, 2, 3
SAMPLES, HORIZON, ELITES = 300, 5, 30


def frames(given: Any) -> Any:
    """A frame and a goal of each episode. uint8 (b, 2, h, w, c)"""
    import torch

    shape = (given.episodes, 2, given.image, given.image, 3)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).to(given.device, torch.uint8)


def awake(model: Any) -> None:
    """Give the actions a say: gates that start at zero would not change the work, but its numbers."""
    import torch

    for name, parameter in model.named_parameters():
        if "adaLN" in name:
            torch.nn.init.normal_(parameter, std=0.02)


def ours(given: Any) -> None:
    import torch

    from lewm.allocator import keep_freed
    from lewm.clip import Interface
    from lewm.model.world_model import WorldModel
    from lewm.plan.cem import CEM
    from lewm.plan.cost import last_step
    from lewm.plan.mixed import Mixed
    from lewm.plan.noise import Noise
    from lewm.plan.problem import Problem
    from lewm.plan.space import ActionSpace

    interface = Interface(
        image_size=given.image,
        frameskip=FRAMESKIP,
        history=HISTORY,
        action_mean=(0.0,) * ACTIONS,
        action_std=(1.0,) * ACTIONS,
    )
    model = WorldModel(interface, encoder_kwargs={"patch_size": given.patch}).eval().to(given.device)
    awake(model.requires_grad_(False))  # frozen, as `lewm.load` gives it
    plain = given.side.startswith("plain")
    if plain:
        model.take_plain_paths()
    elif given.device == "cpu":
        keep_freed()
    seen = frames(given)
    space = ActionSpace.of(interface, (-3.0,) * ACTIONS, (3.0,) * ACTIONS).to(given.device)
    solver = CEM(horizon=HORIZON, samples=SAMPLES, elites=ELITES, iterations=given.iterations)
    noise = Noise(0, tuple(range(given.episodes)), 0, given.device)
    chunk, threads = (512, given.threads) if given.device == "cpu" else (16_384, 1)
    if plain:
        threads = 1
    rougher = Mixed(model) if given.side.endswith("bf16") else None

    @torch.inference_mode()
    def plan() -> None:
        z = model.encode(seen)
        past = torch.zeros(given.episodes, 0, FRAMESKIP, ACTIONS, device=given.device)
        problem = Problem(
            model=model,
            z=z[:, :1],
            past=past,
            goal=z[:, 1:],
            cost=last_step,
            space=space,
            noise=noise,
            chunk=chunk,
            threads=threads,
            rougher=rougher,
        )
        solver.plan(problem)

    serve(lambda: {"seconds": seconds(synchronized(given.device, plan))})


class Horizon(NamedTuple):
    """What the peer's solver asks of its configuration."""

    horizon: int = HORIZON
    action_block: int = FRAMESKIP


def peer(given: Any) -> None:
    guard()
    import numpy as np
    import torch
    from gymnasium.spaces import Box
    from stable_pretraining.backbone.utils import vit_hf
    from stable_worldmodel.solver.cem import CEMSolver
    from stable_worldmodel.wm.lewm import LeWM
    from stable_worldmodel.wm.lewm.module import MLP, Embedder, Predictor

    norm = {"norm_fn": torch.nn.BatchNorm1d}
    model = (
        LeWM(
            vit_hf("tiny", patch_size=given.patch, image_size=given.image, pretrained=False, use_mask_token=False),
            Predictor(num_frames=HISTORY, depth=6, heads=16, mlp_dim=2048, input_dim=DIM, hidden_dim=DIM, dropout=0.1),
            Embedder(input_dim=FRAMESKIP * ACTIONS, emb_dim=DIM),
            MLP(DIM, 2048, DIM, **norm),
            MLP(DIM, 2048, DIM, **norm),
        )
        .eval()
        .to(given.device)
    )
    awake(model)
    solver = CEMSolver(model, num_samples=SAMPLES, n_steps=given.iterations, topk=ELITES, device=given.device)
    box = Box(-3, 3, (given.episodes, ACTIONS), dtype=np.float32)
    solver.configure(action_space=box, n_envs=given.episodes, config=Horizon())
    seen = (frames(given).float() / 255).permute(0, 1, 4, 2, 3)
    still = torch.zeros(given.episodes, 1, FRAMESKIP * ACTIONS, device=given.device)
    info = {"pixels": seen[:, :1], "goal": seen[:, 1:], "action": still}

    def plan() -> None:
        with torch.autocast(given.device, torch.bfloat16, enabled=given.side.endswith("bf16")):
            solver.solve(dict(info))

    serve(lambda: {"seconds": seconds(synchronized(given.device, plan))})


def gflop(remembers: bool) -> float:
    """Multiplications and additions of one iteration's rollouts of one episode, in 10^9."""
    inner, mlp, hidden = 1024, 2048, 2048
    qkv, out, ff, modulation = DIM * 3 * inner, inner * DIM, 2 * DIM * mlp, DIM * 6 * DIM
    if remembers:
        filling = HISTORY * 6 * (qkv + out + ff) - 6 * qkv / 3  # a frame a step; the first has no queries
        # the window anew; its first frame has no queries, and of the last layer it has keys and values for all frames
        # but the rest for one
        sliding = 5 * (HISTORY * (qkv + out + ff) - qkv / 3) + HISTORY * qkv * 2 / 3 + qkv / 3 + out + ff
        each = filling + (HORIZON - HISTORY) * sliding + HORIZON * 6 * modulation
        heads = HORIZON
    else:
        tokens = sum(min(n, HISTORY) for n in range(1, HORIZON + 1))
        each, heads = tokens * 6 * (qkv + out + ff + modulation), tokens
    return 2 * SAMPLES * (each + heads * 2 * DIM * hidden) / 1e9


def main() -> None:
    """Run a side, or all of them."""
    parser = arguments(__doc__)
    add_precisions(parser)
    parser.add_argument("--episodes", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--image", type=int, default=64)
    parser.add_argument("--patch", type=int, default=8)
    given = parser.parse_args()
    use_threads(given.threads)
    if given.side:
        return (peer if given.side.startswith("peer") else ours)(given)
    kinds = ("ours", "plain", "peer") if given.episodes == 1 else ("ours", "peer")
    sides = alternate([f"{kind}-{precision}" for precision in precisions(given) for kind in kinds], given)
    rates = {precision: matrix_rate(given.device, precision) for precision in precisions(given)}
    best = best_of(sides, "peer")
    for side in sides.values():
        kind, precision = side.name.split("-")
        plan, work, rate = side.median() / given.episodes, gflop(kind == "ours"), rates[precision]
        print(
            f"{side.name:10s} {1000 * plan:.0f} ms a plan, {1000 * plan / given.iterations:.1f} ms an iteration "
            f"({side.spread()} s in all), {best.median() / side.median():.2f} x {best.name}'s speed; "
            f"{work:.0f} GFLOP an iteration, floor {1000 * work / rate:.0f} ms at {rate:.0f} GFLOP/s"
        )


if __name__ == "__main__":
    main()
