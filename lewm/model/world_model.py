"""The world model: encoder, projector, action encoder and predictor behind four methods that take raw inputs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lewm.clip import Interface
from lewm.errors import UserError
from lewm.model.actions import ActionEncoder
from lewm.model.class_token import set_whole
from lewm.model.encoder import Encoder
from lewm.model.layers import Layers
from lewm.model.predictor import Memory, Predictor
from lewm.model.projector import Projector

STATISTICS = ("pixel_mean", "pixel_std", "action_mean", "action_std")


class WorldModel(nn.Module):
    """LeWorldModel [0]: what comes after these frames, if these actions are taken.

    Every method takes raw inputs, uint8 frames and actions in the environment's own units, and refuses what is
    inconsistent with `interface`. The embedding is always the projected one. Dropout is active in training mode only.

    [0] LeWorldModel, arXiv 2603.19312, section 3.

    Args:
        interface: what the model is fed with: image size, frameskip, history, statistics.
        encoder: name of any timm backbone.
        encoder_kwargs: further arguments of that backbone (`patch_size`, `depth`, `embed_dim`, `num_heads`, ...).
        positions: how a ViT's position embeddings start: `learned` (at random) or `sincos`.
        embed_dim: width d of the embedding.
        projector_hidden: hidden width of the projector and of the prediction head.
        action_narrow: width to which a block of actions is brought first.
        action_hidden: hidden width of the action encoder.
        predictor_width: width of the predictor; null for embed_dim.
        predictor_depth: number of its blocks.
        predictor_heads: attention heads of each block.
        predictor_head_dim: width of each head.
        predictor_mlp: hidden width of its MLPs.
        dropout: dropout rate inside the predictor; none on embeddings.
    """

    def __init__(
        self,
        interface: Interface,
        *,
        encoder: str = "vit_tiny_patch16_224",
        encoder_kwargs: dict[str, Any] | None = None,
        positions: str = "learned",
        embed_dim: int = 192,
        projector_hidden: int = 2048,
        action_narrow: int = 10,
        action_hidden: int = 768,
        predictor_width: int | None = None,
        predictor_depth: int = 6,
        predictor_heads: int = 16,
        predictor_head_dim: int = 64,
        predictor_mlp: int = 2048,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.remembers = True  # whether rollouts keep what later steps need again; see `Predictor.latest`
        arguments = dict(locals())
        self.config = {name: arguments[name] for name in arguments if name not in ("self", "interface", "__class__")}
        self.interface = interface
        block_size = interface.frameskip * interface.action_dim
        self.encoder = Encoder(
            encoder,
            image_size=interface.image_size,
            channels=interface.channels,
            positions=positions,
            **(encoder_kwargs or {}),
        )
        self.projector = Projector(self.encoder.width, projector_hidden, embed_dim)
        self.action_encoder = ActionEncoder(block_size, narrow=action_narrow, hidden=action_hidden, out=embed_dim)
        self.predictor = Predictor(
            embed_dim,
            history=interface.history,
            width=predictor_width or embed_dim,
            depth=predictor_depth,
            heads=predictor_heads,
            head_dim=predictor_head_dim,
            mlp=predictor_mlp,
            dropout=dropout,
        )
        self.pred_proj = Projector(embed_dim, projector_hidden, embed_dim)
        for name in STATISTICS:
            # Not among the weights: they are rebuilt from the interface, the one place where they are kept.
            self.register_buffer(name, torch.tensor(getattr(interface, name)), persistent=False)
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.action_mean: Tensor
        self.action_std: Tensor

    def adopt(self, interface: Interface) -> None:
        """Take over the statistics a checkpoint was trained with; UserError if it was built to be fed otherwise."""
        for name in ("image_size", "channels", "frameskip", "history", "action_dim"):
            own, given = getattr(self.interface, name), getattr(interface, name)
            if own != given:
                raise UserError(f"the checkpoint was trained with {name} {given}, this model has {own}")
        self.interface = interface
        for name in STATISTICS:
            getattr(self, name).copy_(torch.tensor(getattr(interface, name)))

    def compile_parts(self) -> None:
        """Have encoder and predictor compiled when they are next called; the names of their weights stay.

        Of a deep copy only rollouts are.
        """
        for part in (self.encoder.backbone, self.predictor):
            part.compile()
        self.predictor.transformer.extends_compiled = True

    def take_plain_paths(self) -> None:
        """Compute everything the plain way: slower, the same to rounding. For comparisons."""
        self.remembers = False
        set_whole(self.encoder, True)

    def encode(self, pixels: UInt8[Tensor, "b t h w c"]) -> Float[Tensor, "b t d"]:
        """Projected embedding of each frame."""
        return self.projector(self.encode_cls(pixels))

    def encode_layers(
        self, pixels: UInt8[Tensor, "b t h w c"], layers: tuple[str, ...] = ("embedding", "cls")
    ) -> dict[str, Float[Tensor, "b t _"]]:
        """One vector a frame of each layer, in one pass: `embedding` is the projected output, `cls` the encoder's.

        Others by their dotted names (`encoder.backbone.blocks.1`): the class token where the backbone has one, else the
        mean over patches; with `:mean` always the latter. UserError names a layer that cannot be asked.
        """
        asked = Layers(self, layers)
        with asked.recorded(pixels.shape[:2].numel()) as found:
            cls = self.encode_cls(pixels)
            if asked.beyond_encoder:
                self.projector(rearrange(cls, "b t e -> (b t) 1 e"))
        return {layer: rearrange(found[layer], "(b t) e -> b t e", b=len(pixels)) for layer in layers}

    def encode_cls(self, pixels: UInt8[Tensor, "b t h w c"]) -> Float[Tensor, "b t width"]:
        """The encoder's output for each frame, before the projector."""
        x = self.normalise_pixels(pixels)
        return rearrange(self.encoder(rearrange(x, "b t c h w -> (b t) c h w")), "(b t) e -> b t e", b=len(pixels))

    def predict(self, z: Float[Tensor, "b t d"], actions: Float[Tensor, "b t k a"]) -> Float[Tensor, "b t d"]:
        """Next embedding after each frame, from that frame, those before it and their actions; `history` at most."""
        self._check_actions(actions, z.shape[1], "one block after each of the frames")
        return self.pred_proj(self._predict_windows(z, self.encode_actions(actions)))

    def rollout(
        self,
        z: Float[Tensor, "b t d"],
        past: Float[Tensor, "b t-1 k a"],
        future: Float[Tensor, "b s n k a"],
    ) -> Float[Tensor, "b s n d"]:
        """Open loop: embeddings 1..n blocks after the last frame of the context, for `s` candidates.

        `past` holds the blocks between the context's frames, really executed; the first block of `future` follows the
        context's last frame. Predictions enter the history as frames do. In training, where dropout is drawn anew, and
        with `remembers` set to False every window is computed whole: the same to rounding.
        """
        s, n = future.shape[1:3]
        self._check_actions(past, z.shape[1] - 1, "one block between each two of the frames")
        self._check_actions(future.flatten(0, 1), n, "")
        c = self.encode_actions(torch.cat([repeat(past, "b t k a -> (b s) t k a", s=s), future.flatten(0, 1)], dim=1))
        z = repeat(z, "b t d -> (b s) t d", s=s)[:, -self.interface.history :]
        c = c[:, c.shape[1] - n - z.shape[1] + 1 :]
        memory = self.predictor.remember(c) if self.remembers and not self.training else None
        for _ in range(n):
            z = torch.cat([z, self.pred_proj(self._latest(z, c, memory))], dim=1)
        return rearrange(z[:, z.shape[1] - n :], "(b s) n d -> b s n d", s=s)

    def surprise(
        self, pixels: UInt8[Tensor, "b t h w c"], actions: Float[Tensor, "b t-1 k a"]
    ) -> Float[Tensor, "b t-1"]:
        """s_i = mean((z_hat_{i+1} - z_{i+1})^2) over dimensions: how unexpected each next frame is."""
        z = self.encode(pixels)
        return (self.predict(z[:, :-1], actions) - z[:, 1:]).float().square().mean(-1)

    def normalise_pixels(self, pixels: UInt8[Tensor, "b t h w c"]) -> Float[Tensor, "b t c side side"]:
        """uint8 frames to what the encoder sees, on the device they are on; resized if the interface says so."""
        self._check_pixels(pixels)
        side = self.interface.image_size
        x = (pixels.to(self.pixel_mean.dtype) / 255 - self.pixel_mean) / self.pixel_std
        x = rearrange(x, "b t h w c -> (b t) c h w")
        if x.shape[-2:] != (side, side):
            x = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
        return rearrange(x, "(b t) c h w -> b t c h w", b=len(pixels))

    def encode_actions(self, actions: Float[Tensor, "b t k a"]) -> Float[Tensor, "b t d"]:
        """One vector for each block of raw actions, standardised by the training split's statistics."""
        return self.action_encoder((actions.to(self.action_mean.dtype) - self.action_mean) / self.action_std)

    def _predict_windows(self, z: Float[Tensor, "b t d"], c: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        history = self.interface.history
        first = self.predictor(z[:, :history], c[:, :history])  # every prefix of the first window
        if z.shape[1] <= history:
            return first
        # Later frames each have a full window of their own, of which only the last prediction is new.
        windows = [x.unfold(1, history, 1)[:, 1:] for x in (z, c)]  # (b, t - history, d, history)
        flat = [rearrange(x, "b w d t -> (b w) t d") for x in windows]
        later = rearrange(self.predictor(*flat)[:, -1], "(b w) d -> b w d", b=len(z))
        return torch.cat([first, later], dim=1)

    def _latest(self, z: Float[Tensor, "b t d"], c: Float[Tensor, "b n d"], memory: Memory | None) -> Tensor:
        if memory is not None:
            return self.predictor.latest(z, memory)
        low = max(0, z.shape[1] - self.interface.history)
        return self.predictor(z[:, low:], c[:, low : z.shape[1]])[:, -1:]

    def _check_pixels(self, pixels: Tensor) -> None:
        if pixels.dtype != torch.uint8 or pixels.dim() != 5:
            raise UserError(
                f"frames must be uint8 of shape (b, t, h, w, c), got {pixels.dtype} {tuple(pixels.shape)}; "
                "normalisation is the model's"
            )
        side, channels = self.interface.image_size, self.interface.channels
        if pixels.shape[-1] != channels:
            raise UserError(f"frames have {pixels.shape[-1]} channels, the model takes {channels}")
        if tuple(pixels.shape[2:4]) != (side, side) and not self.interface.resize:
            h, w = pixels.shape[2:4]
            raise UserError(f"frames are {h} x {w}, the model takes {side} x {side} and was not trained to resize")

    def _check_actions(self, actions: Tensor, blocks: int, meaning: str) -> None:
        expected = (blocks, self.interface.frameskip, self.interface.action_dim)
        if tuple(actions.shape[1:]) != expected:
            raise UserError(
                f"actions have (blocks, frameskip, action size) = {tuple(actions.shape[1:])}, the model takes "
                + f"{expected}"
                + (f": {meaning}" if meaning else "")
            )
