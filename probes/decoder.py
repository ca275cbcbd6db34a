"""The diagnostic decoder: frames from frozen embeddings, for people to look at; the model never learns from it."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor, nn

from lewm.errors import UserError
from lewm.paths import written_atomically
from lewm.probes.mlp import warmup_cosine
from lewm.probes.seams import Scale
from lewm.progress import track

GRID = 14  # patches along a side in the paper: 196 queries
WIDTH, HIDDEN, DEPTH = 128, 256, 3
BATCH = 64  # frames of a step
SOME = 16  # patches of each of them: every query decodes its patch by itself, so some are enough
EVEN = 0.5  # share of them drawn evenly; the others where the frame differs from the mean frame
LR = 2e-3
WEIGHT_DECAY = 1e-4
CHECKS = 5  # times that the validation error is looked at
CHECKED = 128  # validation frames
FORMAT = 1


@dataclass(frozen=True)
class Pictures:
    """Embeddings and the frames that they are of, with the episode of each."""

    z: Float[np.ndarray, "n d"]
    pixels: UInt8[np.ndarray, "n h w c"]
    episode: Int[np.ndarray, " n"]


class Layer(nn.Module):
    """Cross-attention to the embedding, then an MLP, both added to what was there.

    The embedding is the one token there is to attend to. The softmax over it is 1, so attention is the value's
    projection whatever the query: weights of queries and keys would never get a gradient, and there are none.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.value = nn.Linear(embed_dim, WIDTH)
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))

    def forward(self, x: Float[Tensor, "b p e"], z: Float[Tensor, "b d"]) -> Float[Tensor, "b p e"]:
        x = x + self.value(z)[:, None]
        return x + self.mlp(x)


class Decoder(nn.Module):
    """A learned query for each patch of the frame, which attends to the embedding and becomes the patch's pixels [0].

    There are 14 x 14 patches, or the nearest to it that divides the frame's sides. Embeddings are standardised by the
    training frames, and pixels start from those frames' mean.

    [0] LeWorldModel, arXiv 2603.19312, the decoder for pictures.
    """

    def __init__(self, embed_dim: int, frame: tuple[int, int, int]) -> None:
        super().__init__()
        self.embed_dim, self.frame = embed_dim, frame
        self.grid = (patches_along(frame[0]), patches_along(frame[1]))
        num, pixels = math.prod(self.grid), math.prod(frame) // math.prod(self.grid)
        self.queries = nn.Parameter(torch.randn(num, WIDTH))
        self.layers = nn.ModuleList(Layer(embed_dim) for _ in range(DEPTH))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, pixels)
        for name, shape in (("z_mean", embed_dim), ("z_std", embed_dim), ("mean", (num, pixels))):
            self.register_buffer(name, torch.ones(shape))
        self.z_mean: Tensor
        self.z_std: Tensor
        self.mean: Tensor  # patches of the training frames' mean, 0..1

    def forward(
        self, z: Float[Tensor, "b d"], patches: Int[Tensor, "*b p"] | slice = slice(None)
    ) -> Float[Tensor, "b p q"]:
        """Pixels of some patches, the same of all frames or of each its own; 0..1 but for what is overshot."""
        z = (z - self.z_mean) / self.z_std
        x = self.queries[patches]
        for layer in self.layers:
            x = layer(x, z)
        return self.mean[patches] + self.head(self.norm(x))

    @torch.no_grad()
    def frames(self, z: Float[np.ndarray, "n d"]) -> UInt8[np.ndarray, "n h w c"]:
        """What each embedding looks like."""
        parts = torch.from_numpy(np.ascontiguousarray(z, dtype=np.float32)).to(self.mean.device).split(BATCH)
        pixels = [(255 * self(part).clamp(0, 1)).round().byte().cpu().numpy() for part in parts]
        return unpatched(np.concatenate(pixels), self.grid, self.frame) if pixels else np.zeros((0, *self.frame), "u1")


def patches_along(side: int) -> int:
    """The divisor of a side that is nearest to `GRID`; of two equally near the smaller one."""
    return min((n for n in range(1, side + 1) if side % n == 0), key=lambda n: abs(n - GRID))


def patched(pixels: Shaped[np.ndarray, "n h w c"], grid: tuple[int, int]) -> Shaped[np.ndarray, "n p q"]:
    """Frames cut into patches, row by row."""
    return rearrange(pixels, "n (i y) (j x) c -> n (i j) (y x c)", i=grid[0], j=grid[1])


def unpatched(
    patches: UInt8[np.ndarray, "n p q"], grid: tuple[int, int], frame: tuple[int, int, int]
) -> UInt8[np.ndarray, "n h w c"]:
    """The inverse of `patched`."""
    y, x = frame[0] // grid[0], frame[1] // grid[1]
    return rearrange(patches, "n (i j) (y x c) -> n (i y) (j x) c", i=grid[0], j=grid[1], y=y, x=x)


def fit_decoder(
    train: Pictures, val: Pictures, *, updates: int, seed: int = 0, device: torch.device | str = "cpu"
) -> Decoder:
    """The decoder with the lowest error on `val` among those met in training; the same for the same seed.

    It is fitted to arrays: no gradient has a way to the model that made them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = prepared(train).to(device)
        state = optimise(decoder, train, val, updates)
    decoder.load_state_dict(state)
    return decoder.eval().requires_grad_(False)


def prepared(train: Pictures) -> Decoder:
    """A fresh decoder that knows the training frames' mean and the scale of their embeddings."""
    decoder = Decoder(train.z.shape[1], train.pixels.shape[1:])  # type: ignore[arg-type]
    scale = Scale.of(train.z)
    decoder.z_mean.copy_(torch.from_numpy(scale.mean))
    decoder.z_std.copy_(torch.from_numpy(scale.std))
    mean = train.pixels.mean(axis=0, dtype=np.float64)[None] / 255
    decoder.mean.copy_(torch.from_numpy(patched(mean, decoder.grid)[0]))
    nn.init.zeros_(decoder.head.weight)  # it begins with the mean frame
    nn.init.zeros_(decoder.head.bias)
    return decoder


def optimise(decoder: Decoder, train: Pictures, val: Pictures, updates: int) -> dict[str, Tensor]:
    """Weights at the lowest validation error: mean squared pixels, AdamW, warm-up and cosine.

    Most patches of most frames are those of the mean frame, so others are drawn more often, and count less.
    """
    device = decoder.mean.device
    z, targets = torch.from_numpy(train.z).float(), torch.from_numpy(patched(train.pixels, decoder.grid))
    odd = oddness(train, decoder)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warmup_cosine(step, updates))
    best, lowest = copy.deepcopy(decoder.state_dict()), validation_error(decoder, val)
    for step in track(range(1, updates + 1), "fitting the decoder", total=updates):
        rows = torch.randint(len(z), (BATCH,))
        patches, weight = draw(odd[rows])
        wanted = (targets[rows[:, None], patches].float() / 255).to(device)
        errors = (decoder(z[rows].to(device), patches.to(device)) - wanted).square()
        loss = (weight.to(device)[..., None] * errors).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % max(1, updates // CHECKS) == 0 or step == updates:
            error = validation_error(decoder, val)
            if error < lowest:
                best, lowest = copy.deepcopy(decoder.state_dict()), error
    return best


def draw(odd: Float[Tensor, "b p"]) -> tuple[Int[Tensor, "b k"], Float[Tensor, "b k"]]:
    """Patches of each frame, and weights with which the mean over those drawn is that over all, on average."""
    chance = EVEN / odd.shape[1] + (1 - EVEN) * odd
    patches = torch.multinomial(chance, SOME, replacement=True)
    return patches, 1 / (odd.shape[1] * chance.gather(1, patches))


def oddness(train: Pictures, decoder: Decoder) -> Float[Tensor, "n p"]:
    """Each patch's share of its frame's squared difference from the mean frame; even shares where there is none."""
    mean = decoder.mean.cpu()
    found = torch.stack(
        [(torch.from_numpy(one) / 255 - mean).square().sum(dim=1) for one in patched(train.pixels, decoder.grid)]
    )
    return (found + 1e-9) / (found + 1e-9).sum(dim=1, keepdim=True)


def validation_error(decoder: Decoder, val: Pictures) -> float:
    """Mean squared error of at most `CHECKED` validation frames."""
    kept = np.arange(min(CHECKED, len(val.z))) * len(val.z) // min(CHECKED, len(val.z))
    return float(frame_errors(decoder.frames(val.z[kept]), val.pixels[kept]).mean())


def frame_errors(shown: UInt8[np.ndarray, "n h w c"], true: UInt8[np.ndarray, "n h w c"]) -> Float[np.ndarray, " n"]:
    """Mean squared difference of pixels, in units of their whole range, of each frame."""
    return np.array([np.square(a / 255 - b / 255).mean() for a, b in zip(shown, true, strict=True)])


def save_decoder(decoder: Decoder, path: Path) -> None:
    """Write weights and sizes as one safetensors file."""
    from safetensors.torch import save

    about = {"format": FORMAT, "embed_dim": decoder.embed_dim, "frame": decoder.frame}
    state = {name: tensor.cpu().contiguous() for name, tensor in decoder.state_dict().items()}
    with written_atomically(path) as temporary:
        temporary.write_bytes(save(state, metadata={"lewm_decoder": json.dumps(about)}))


def load_decoder(path: str | Path) -> Decoder:
    """The decoder in a file that `lewm look` wrote, frozen."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["lewm_decoder"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        decoder = Decoder(about["embed_dim"], tuple(about["frame"]))
        decoder.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"not a readable decoder: {path} ({reason}); make it again with lewm look") from error
    return decoder.eval().requires_grad_(False)
