"""Any layer of encoder and projector as one vector a frame, read by forward hooks while frames are encoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from lewm.errors import UserError
from lewm.model.class_token import all_tokens

OWN_NAMES = {"embedding": "projector", "cls": "encoder"}  # outputs of whole modules, by the names probes use
MEAN = ":mean"


class Layers:
    """The layers asked of a world model: `embedding`, `cls`, or a module of encoder or projector by its dotted name.

    Of (frames, tokens, width) a layer is the class token where there is one, else the mean over patches; with the
    suffix `:mean` always the latter. Of a map it is the mean over the places. UserError for a name that is unknown.
    """

    def __init__(self, model: nn.Module, layers: tuple[str, ...]) -> None:
        self.modules = dict(model.named_modules())
        self.tokens = Tokens.of(self.modules.get("encoder.backbone"))
        self.names = {layer: self._name(layer) for layer in layers}
        self.beyond_encoder = any(_within(name, "projector") for name in self.names.values())

    @contextmanager
    def recorded(self, frames: int) -> Iterator[dict[str, Tensor]]:
        """A dict that fills with (frames, width) of each layer during one pass; UserError for what has no such form."""
        found: dict[str, Tensor] = {}
        encoder = self.modules.get("encoder", nn.Module())
        with ExitStack() as hooks:
            if any(_within(name, "encoder.backbone") for name in self.names.values()):
                hooks.enter_context(all_tokens(encoder))  # a mean over patches may be asked of the last block too
            for layer, name in self.names.items():
                handle = self.modules[name].register_forward_hook(self._hook(layer, frames, found))
                hooks.callback(handle.remove)
            yield found
        for layer in self.names:
            if layer not in found:
                raise self._refusal(f"layer {layer!r} is never run by itself when frames are encoded")

    def _name(self, layer: str) -> str:
        """The dotted name of a layer's module; UserError if there is none."""
        asked = layer.removesuffix(MEAN)
        name = OWN_NAMES.get(asked, asked)
        if name not in self.modules or not name:
            raise self._refusal(f"no layer {layer!r} to probe", near=asked)
        if not (_within(name, "encoder") or _within(name, "projector")):
            raise self._refusal(f"layer {layer!r} is no part of encoder or projector")
        if layer != asked and not name.startswith("encoder."):
            raise self._refusal(f"layer {asked!r} is one vector a frame, {layer!r} has no patches to average")
        return name

    def _hook(self, layer: str, frames: int, found: dict[str, Tensor]) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if layer in found:
                raise self._refusal(f"layer {layer!r} is run several times when frames are encoded")
            # Now, and never a view of it: what runs next may write into this output (`nn.ReLU(inplace=True)`).
            found[layer] = self._vectors(layer, output, frames).clone()

        return hook

    def _vectors(self, layer: str, output: Any, frames: int) -> Float[Tensor, "n d"]:
        name, mean = self.names[layer], layer.endswith(MEAN)
        if not isinstance(output, Tensor) or not output.is_floating_point():
            raise self._refusal(f"layer {layer!r} puts out a {type(output).__name__}, not one tensor of floats")
        if len(output) == frames and output.dim() == 2 and not mean:
            return output
        if len(output) == frames and output.dim() == 3:
            return self.tokens.pool(output, mean)
        if len(output) == frames and output.dim() == 4 and not self._in_attention(name):
            return output.mean((1, 2) if self._channels_last(name, output) else (2, 3))
        wanted = "tokens or a map, to average" if mean else "a vector, tokens or a map"
        raise self._refusal(
            f"layer {layer!r} puts out {tuple(output.shape)} for {frames} frames, not {wanted} for each"
        )

    def _in_attention(self, name: str) -> bool:
        """Whether four dimensions are heads and tokens, or windows: no map of the frame."""
        above = [self.modules[parent] for parent in _parents(name)]
        return any(hasattr(module, "num_heads") and not hasattr(module, "mlp") for module in above)

    def _channels_last(self, name: str, x: Float[Tensor, "n _ _ _"]) -> bool:
        """Frames are square, so the two equal sides are the places; where that does not tell, timm's `output_fmt`."""
        if isinstance(self.modules[name], nn.Conv2d):
            return False
        first, second, third = x.shape[1:]
        if (first == second) != (second == third):
            return first == second
        formats = [getattr(self.modules[n], "output_fmt", None) for n in (name, *_parents(name))]
        return next((str(getattr(f, "value", f)) == "NHWC" for f in formats if f is not None), False)

    def _refusal(self, why: str, near: str | None = None) -> UserError:
        can = [name for name in self.modules if name.startswith(("encoder.", "projector."))]
        ending = [name for name in can if near and name.endswith(f".{near}")]
        close = ending or (get_close_matches(near, [*OWN_NAMES, *can], n=3) if near else [])
        names = dict.fromkeys([*close[:3], *OWN_NAMES, *self._blocks()])
        return UserError(f"{why}; one of {', '.join(names)}, or another module of encoder or projector")

    def _blocks(self) -> list[str]:
        """The backbone's blocks as timm lists them, else its children; the middle of a long list left out."""
        backbone = self.modules.get("encoder.backbone", nn.Module())
        info = getattr(backbone, "feature_info", None)
        listed = [entry["module"] for entry in info] if isinstance(info, list) else []
        names = [f"encoder.backbone.{name}" for name in listed or dict(backbone.named_children())]
        names = [name for name in dict.fromkeys(names) if not isinstance(self.modules.get(name), nn.ModuleList | None)]
        return names if len(names) <= 6 else [*names[:2], "...", names[-1]]


@dataclass(frozen=True)
class Tokens:
    """How a backbone lines up its tokens: `prefix` of them before the patches, the first a class token or not."""

    prefix: int
    has_class: bool
    patches: int | None

    @classmethod
    def of(cls, backbone: nn.Module | None) -> Tokens:
        """As a timm backbone says; no prefix where it says nothing."""
        prefix = getattr(backbone, "num_prefix_tokens", 0)
        has_class = getattr(backbone, "cls_token", None) is not None or getattr(backbone, "has_class_token", False)
        patches = getattr(getattr(backbone, "patch_embed", None), "num_patches", None)
        return cls(prefix, has_class, patches)

    def pool(self, x: Float[Tensor, "n tokens d"], mean: bool) -> Float[Tensor, "n d"]:
        """The class token, or the mean over the patches."""
        # Before the prefix is put on (the patch embedding, CaiT's first blocks) there are patches alone.
        prefix = 0 if x.shape[1] in (1, self.patches) else self.prefix
        return x[:, 0] if prefix and self.has_class and not mean else x[:, prefix:].mean(1)


def _within(name: str, ancestor: str) -> bool:
    return name == ancestor or name.startswith(f"{ancestor}.")


def _parents(name: str) -> list[str]:
    """Dotted names of the modules around one, the nearest first."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]
