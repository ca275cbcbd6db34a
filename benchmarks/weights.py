"""Does a model of ours work in stable-worldmodel, and come back as it went? python benchmarks/weights.py

The paper's model with random weights, awake gates and uneven statistics of BatchNorm goes out by `lewm export`, is
built and filled by the peer's own `load_pretrained`, encodes, predicts and rolls out there, is saved by its own
`save_pretrained`, and comes back by `lewm import`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from peer import guard, peer_python

SIDE, FRAMESKIP, HISTORY = 224, 5, 3
MEAN, STD = (0.25, -0.5), (0.5, 2.0)


def ours(home: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    import lewm
    from lewm import checkpoint
    from lewm.export import export
    from lewm.importing import import_weights

    torch.manual_seed(0)
    interface = lewm.Interface(
        image_size=SIDE, frameskip=FRAMESKIP, history=HISTORY, action_mean=MEAN, action_std=STD, fingerprint="none"
    )
    model = lewm.WorldModel(interface, encoder_kwargs={"patch_size": 14}).eval().requires_grad_(False)
    for name, tensor in model.state_dict().items():
        if "adaLN" in name or name.endswith("running_mean"):
            tensor.normal_(std=0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
    checkpoint.save(model, home / "model.ckpt")
    folder = export(home / "model.ckpt", home / "checkpoints" / "out", form="stable-worldmodel")
    pixels = torch.randint(0, 256, (1, HISTORY, SIDE, SIDE, 3), dtype=torch.uint8)
    future = torch.randn(1, 2, 4, FRAMESKIP, len(MEAN))
    past = torch.randn(1, HISTORY - 1, FRAMESKIP, len(MEAN))
    blocks = torch.cat([past[:, None].expand(-1, 2, -1, -1, -1), future], dim=2)
    fed = {"pixels": model.normalise_pixels(pixels), "blocks": (blocks - model.action_mean) / model.action_std}
    save_file({name: x.contiguous() for name, x in fed.items()}, home / "fed.safetensors")
    subprocess.run([peer_python(), __file__, str(home)], check=True)

    theirs = load_file(home / "theirs.safetensors")
    z = model.encode(pixels)
    found = {
        "emb": z,
        "pred": model.predict(z, torch.cat([past, future[:, 0, :1]], dim=1)),
        "rollout": model.rollout(z, past, future),
    }
    for name, value in found.items():
        print(
            f"{name:8s} differs by {float((value - theirs[name]).abs().max()):.1e} at most, of {value.abs().max():.2f}"
        )
    went, came = (torch.load(p / "weights.pt", weights_only=True) for p in (folder, folder.with_name("back")))
    assert went.keys() == came.keys() and all(torch.equal(went[n], came[n]) for n in went)
    flags = {"frameskip": FRAMESKIP, "action_mean": MEAN, "action_std": STD}
    back = lewm.load(import_weights(folder.with_name("back"), home / "run", **flags)).state_dict()
    assert all(torch.equal(x, back[name]) for name, x in model.state_dict().items())
    print(f"{len(went)} tensors came back bit for bit")


def theirs(home: Path) -> None:
    import json

    import torch
    from einops import rearrange
    from omegaconf import OmegaConf
    from safetensors.torch import load_file, save_file
    from stable_worldmodel.wm.utils import load_pretrained, save_pretrained

    fed = load_file(home / "fed.safetensors")
    with torch.no_grad():
        model = load_pretrained("out", cache_dir=str(home)).eval()
        blocks = rearrange(fed["blocks"], "b s t k a -> b s t (k a)")
        emb = model.encode({"pixels": fed["pixels"]})["emb"]
        pred = model.predict(emb, model.action_encoder(blocks[:, 0, :HISTORY]))
        frames = fed["pixels"][:, None].expand(-1, 2, -1, -1, -1, -1)
        rolled = model.rollout({"pixels": frames}, blocks)["predicted_emb"][:, :, HISTORY:]
    found = {"emb": emb, "pred": pred, "rollout": rolled}
    save_file({name: x.contiguous() for name, x in found.items()}, home / "theirs.safetensors")
    config = OmegaConf.create(json.loads((home / "checkpoints" / "out" / "config.json").read_text()))
    save_pretrained(model, "back", config=config, filename="weights.pt", cache_dir=str(home))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        guard()
        theirs(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            ours(Path(scratch))
