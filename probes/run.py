"""The two evaluators that `lewm` calls: `probe` and `surprise`; each writes its results and prints a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lewm import checkpoint as checkpoints
from lewm.datasets.schema import Source, open_source
from lewm.errors import UserError
from lewm.probes import plots, tables
from lewm.probes import results as io
from lewm.probes.clips import KINDS, disturbed_triples, is_triples, read_triples
from lewm.probes.controls import CALIBRATED, calibrated, calibration_frames, pixel_reader
from lewm.probes.features import choose_frames, device_of, extract, model_reader, require_finite, together
from lewm.probes.horizon import horizon
from lewm.probes.latent import describe_latent
from lewm.probes.open_loop import Imagined, imagine, open_loop
from lewm.probes.parts import Parts, measured_episodes, parts_of
from lewm.probes.quantities import Observed, Values, observe, rows_of, score_both, score_controls
from lewm.probes.seams import Model, Probe, Scale
from lewm.probes.surprise import Steps, aligned, allow_resize, check_fits, score_triples, scorers, summarise
from lewm.probes.targets import load_quantities
from lewm.progress import track

TITLES = {
    "model": "Model",
    "untrained": "Untrained model",
    "pixel_difference": "Pixel difference",
    "copy_last": "Change of embedding",
}


@dataclass(frozen=True)
class Setting:
    """One evaluation: which model, on which data, and where its results go."""

    checkpoint: Path
    out: Path
    model: Any  # a WorldModel: a seams.Model that is also a torch module
    seed: int

    @property
    def untrained(self) -> Any:
        """The same architecture with random weights, on the same device."""
        return checkpoints.untrained(self.model, self.seed).to(device_of(self.model))

    def describe(self, data: str | Path, fingerprint: str, split: str) -> dict[str, Any]:
        """What every result begins with."""
        return {
            "command": io.command_line(),
            "checkpoint": io.identify(self.checkpoint),
            "data": {"path": str(data), "fingerprint": fingerprint},
            "split": split,
            "split_seed": self.model.interface.split_seed,
            "seed": self.seed,
            "versions": io.versions(),
        }


def prepare(checkpoint: str | Path, out: str | Path | None, kind: str, seed: int) -> Setting:
    """Load the model onto the accelerator, where there is one, and make the folder of results."""
    path = checkpoints.resolve(checkpoint)
    folder = io.out_folder(out, path, kind)
    model = checkpoints.load(path).to("cuda" if torch.cuda.is_available() else "cpu")
    return Setting(path, folder, model, seed)


def probe(
    checkpoint: str | Path,
    *,
    data: str | Path,
    out: str | Path | None = None,
    targets: str | Path | None = None,
    split: str = "test",
    layers: tuple[str, ...] = ("embedding", "cls"),
    max_frames: int = 20_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Read physical quantities from frozen embeddings beside controls, and measure open-loop error."""
    setting, source = prepare(checkpoint, out, "probe", seed), open_source(data)
    check_fits(source.frame_shape, source.action_dim, setting.model.interface, source.path)
    parts = parts_of(source, split, setting.model.interface.split_seed, seed)
    origin, quantities = load_quantities(targets, source)
    frames = {
        part: choose_frames(source.lengths, getattr(parts, part), max_frames) for part in ("train", "val", "test")
    }
    values = [observe(source, quantity, frames) for quantity in quantities]
    others = tuple(layer for layer in layers if layer != "embedding")
    observed = look(setting, source, Observed(frames, {}), ("embedding", *others))
    measured, panels, read = measure(observed, values, others, seed)
    imagined, note = imagine_or_why_not(setting.model, source, parts)
    windows = open_loop(imagined, seed=seed) if imagined else []
    ahead = {
        v.quantity.name: horizon(source, v, probe, imagined, seed=seed) if imagined else []
        for v, probe in zip(values, read, strict=True)
    }
    latent = describe_latent(observed.features["test"]["embedding"])
    result = (
        setting.describe(data, source.fingerprint(), split)
        | {"how": parts.how, "targets_from": origin}
        | {"parts": {part: chosen.describe() for part, chosen in frames.items()}}
        | {"n_train": len(frames["train"].row), "n_test": len(frames["test"].row), "episodes_test": len(parts.test)}
        | measured
        | {"horizon": ahead, "latent": latent, "open_loop": windows, "open_loop_note": note}
    )
    figures = {
        "scatter": plots.scatter(panels),
        "correlations": plots.correlations(measured["targets"]),
        "spectrum": plots.spectrum(latent),
    }
    if windows:
        figures["open_loop"] = plots.open_loop(windows)
    result = io.write_result(result, figures, setting.out)
    tables.print_probe(result)
    return result


def look(setting: Setting, source: Source, observed: Observed, layers: tuple[str, ...]) -> Observed:
    """Features of all chosen frames: the model's, the untrained model's and the pixels' principal components."""
    train, model = observed.frames["train"], setting.model
    first = torch.from_numpy(source.frames(int(train.episode[0]), train.row[:1]))
    width = model.encode(first[None].to(device_of(model))).shape[-1]
    untrained = calibrated(setting.untrained, calibration_frames(source, train))
    reader = together(
        model_reader(model, layers),
        model_reader(untrained, ("embedding",), prefix="untrained/"),
        pixel_reader(source, train, width, seed=setting.seed),
    )
    features = {
        part: extract(source, chosen, reader, what=f"embedding {part} frames")
        for part, chosen in observed.frames.items()
    }
    for found in features.values():
        require_finite(found)
    return Observed(observed.frames, features)


def measure(
    observed: Observed, values: list[Values], others: tuple[str, ...], seed: int
) -> tuple[dict[str, Any], dict[str, Any], list[Probe]]:
    """Scores of every quantity by features and controls, what the scatter plot shows, and the linear probes."""
    targets: dict[str, Any] = {}
    layers: dict[str, Any] = {layer: {"targets": {}} for layer in others}
    panels: dict[str, Any] = {}
    linear: list[Probe] = []
    for each in track(values, "fitting probes"):
        quantity, components = each.quantity, each.quantity.components
        rows = rows_of(observed, each, "embedding")
        scores, probes = score_both(rows, components, seed=seed)
        about = {"unit": quantity.unit, "kind": quantity.kind, "column": quantity.column, "dropped": each.dropped}
        targets[quantity.name] = scores | {"controls": score_controls(observed, each, seed=seed)} | about
        linear.append(probes["linear"])
        true = Scale.of(rows["train"].y)(rows["test"].y)
        for name, fitted in probes.items():
            label = f"{quantity.name}, {'MLP' if name == 'mlp' else name}"
            panels[label] = (true, fitted.predict(rows["test"].x), scores[name])
        for layer in others:
            rows = rows_of(observed, each, layer)
            layers[layer]["targets"][quantity.name] = score_both(rows, components, seed=seed)[0]
    return {"targets": targets, "layers": layers}, panels, linear


def imagine_or_why_not(model: Model, source: Source, parts: Parts) -> tuple[Imagined | None, str | None]:
    """Rollouts on the test part, or none and the reason where its episodes are too short."""
    try:
        return imagine(model, source, parts.test), None
    except UserError as error:
        return None, str(error)


def surprise(
    checkpoint: str | Path,
    *,
    data: str | Path,
    out: str | Path | None = None,
    split: str = "test",
    resize: bool = False,
    seed: int = 0,
    max_clips: int = 200,
) -> dict[str, Any]:
    """Test violation of expectation, on a file of triples or on disturbed episodes of a data set."""
    if max_clips < 1:
        raise UserError(f"--max-clips is {max_clips}; it must be at least 1")
    setting = prepare(checkpoint, out, "surprise", seed)
    if resize:
        allow_resize(setting.model)
    found = triples_of_file if is_triples(data) else triples_of_episodes
    steps, about = found(setting, data, split, max_clips)
    summaries = {name: summarise(s, steps.event, steps.group, seed=seed) for name, s in steps.by_scorer.items()}
    result = (
        setting.describe(data, about.pop("fingerprint"), about.pop("split"))
        | about
        | {"n": len(steps.event), "groups": len(np.unique(steps.group)), "steps": steps.by_scorer["model"].shape[2]}
        | {"resize": resize}
        | summaries.pop("model")
        | {"baselines": summaries}
    )
    result = io.write_result(result, surprise_figures(steps), setting.out)
    tables.print_surprise(result)
    return result


def triples_of_file(setting: Setting, path: str | Path, split: str, max_clips: int) -> tuple[Steps, dict[str, Any]]:
    """Surprise along the clips of a file, all of which are used: they belong to no split."""
    model, k = setting.model, setting.model.interface.frameskip
    first = next(read_triples(path, k, 1))
    check_fits(first.pixels.shape[2:], first.actions.shape[-1], model.interface, path)
    unperturbed = [torch.from_numpy(triple.pixels[0]) for triple in read_triples(path, k, 16)]
    compared = scorers(model, calibrated(setting.untrained, torch.cat(unperturbed)))
    steps = score_triples(read_triples(path, k, max_clips), compared, device_of(model))
    return steps, {"clips": "triples of a file", "fingerprint": io.sha256(Path(path)), "split": "all"}


def triples_of_episodes(setting: Setting, path: str | Path, split: str, max_clips: int) -> tuple[Steps, dict[str, Any]]:
    """Surprise along disturbed clips of a data set's episodes."""
    source, model = open_source(path), setting.model
    check_fits(source.frame_shape, source.action_dim, model.interface, path)
    episodes = measured_episodes(source, split, model.interface.split_seed)
    frames = choose_frames(source.lengths, episodes, CALIBRATED)
    triples = disturbed_triples(source, episodes, model.interface.frameskip, max_clips, setting.seed)
    compared = scorers(model, calibrated(setting.untrained, calibration_frames(source, frames)))
    steps = score_triples(triples, compared, device_of(model))
    about = {"clips": "disturbed episodes", "fingerprint": source.fingerprint(), "split": split}
    return steps, about


def surprise_figures(steps: Steps) -> dict[str, Any]:
    """Curves around the event, and all scores by kind."""
    around = {kind: aligned(steps.by_scorer["model"][:, i], steps.event) for i, kind in enumerate(KINDS)}
    relative, curves = around["physical"][0], {kind: values for kind, (_, values) in around.items()}
    scores = {name: {kind: s[:, i].max(axis=1) for i, kind in enumerate(KINDS)} for name, s in steps.by_scorer.items()}
    return {"curves": plots.surprise_curves(relative, curves), "scores": plots.score_strips(scores, TITLES)}
