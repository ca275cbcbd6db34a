"""The model card of an exported model: what it is, what it must be fed with, where it comes from."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from lewm import __version__, checkpoint
from lewm.clip import Interface
from lewm.datasets.remote import without_secrets
from lewm.weights import WEIGHTS, sha256

HEAD = """---
library_name: lewm
tags:
- world-model
- jepa
---

# A LeWorldModel

A world model of frames and actions ([LeWorldModel](https://arxiv.org/abs/2603.19312)), {parameters:.1f} M parameters,
embedding of {width} numbers, written by lewm {version}. What comes after these frames, if these actions are taken?
"""
USE = {
    "lewm": """```python
import lewm

model = lewm.load("FOLDER")  # this folder; frozen
z = model.encode(frames)  # uint8 (b, t, {side}, {side}, {channels}) -> (b, t, {width})
ahead = model.rollout(z, past, future)  # raw blocks of actions (b, t-1, {k}, {a}) and (b, s, n, {k}, {a})
```
""",
    "stable-worldmodel": """`weights.pt` and `config.json` are for stable-worldmodel's `load_pretrained`. What it is fed
with must be normalized already: frames as (pixels / 255 - mean) / std, actions as (action - mean) / std, {k} steps to a
block of {block} numbers.
""",
}
LICENSE = "Left to whoever publishes it: add `license:` above, and see the terms of the data.\n"


def card(model: Any, path: Path | None = None, form: str = "lewm") -> str:
    """The text of a card, in Markdown; `path` is the checkpoint that the model was loaded from, if there is one."""
    i = model.interface
    sizes = {"side": i.image_size, "channels": i.channels, "k": i.frameskip, "a": i.action_dim}
    sizes |= {"width": model.config["embed_dim"], "block": i.frameskip * i.action_dim}
    number = sum(p.numel() for p in model.parameters()) / 1e6
    parts = [HEAD.format(parameters=number, version=__version__, **sizes), USE[form].format(**sizes)]
    parts.append("## Interface\n\n" + _table(_interface(i)))
    about = _training(i, path)
    parts.append("## Training\n\n" + (_table(about) if about else "Nothing is known of it.\n"))
    if figures := _figures(path):
        parts.append("## Results\n\n" + _table(figures))
    parts.append("## License\n\n" + LICENSE)
    return "\n".join(parts)


def _table(rows: dict[str, str]) -> str:
    lines = [f"| {name} | {_cell(value)} |\n" for name, value in rows.items()]
    return "| | |\n|---|---|\n" + "".join(lines)


def _cell(value: str) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _interface(i: Interface) -> dict[str, str]:
    numbers = {name: ", ".join(f"{x:.6g}" for x in getattr(i, name)) for name in ("action_mean", "action_std")}
    other = "are resized to it" if i.resize else "are refused"
    return {
        "frames": f"{i.image_size} x {i.image_size}, {i.channels} channels, uint8; others {other}",
        "frameskip": f"{i.frameskip} environment steps between two frames",
        "history": f"{i.history} frames",
        "action mean": numbers["action_mean"],
        "action std": numbers["action_std"],
        "pixel mean, std": f"{list(i.pixel_mean)}, {list(i.pixel_std)}",
    }


def _training(i: Interface, path: Path | None) -> dict[str, str]:
    rows = {"fingerprint of the data": i.fingerprint, "seed of the split": str(i.split_seed)} if i.fingerprint else {}
    if path is None:
        return rows
    content = checkpoint.read(path)
    if imported := content["lewm"].get("imported"):
        return rows | {"imported from": f"{imported['file']}, sha256 {imported['sha256']}"}
    rows |= {"optimizer steps": str(checkpoint.steps_trained(path)), "lewm": str(content["lewm"].get("version"))}
    run = checkpoint.run_folder(path)
    environment = _json(run / "env.json") if run is not None else {}
    if isinstance(command := environment.get("command"), list):
        rows["command"] = f"`{' '.join(shlex.quote(without_secrets(str(word))) for word in command)}`"
    return rows


def _figures(path: Path | None) -> dict[str, str]:
    """The report's key numbers, if there is one and all that it evaluated is this very checkpoint."""
    run = checkpoint.run_folder(path) if path is not None and path.name != WEIGHTS else None
    report = _json(run / "report" / "report.json") if run is not None else {}
    results = report.get("results") or {}
    if path is None or not results:
        return {}
    measured = {(result.get("checkpoint") or {}).get("sha256") for result in results.values()}
    if measured != {sha256(path)}:
        return {"a report": "is of another checkpoint, and its numbers are left out"}
    return {figure["label"]: f"{figure['value']} {figure['note']}".strip() for figure in report["figures"]}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
