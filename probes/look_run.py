"""`lewm look`: the latent space of a frozen checkpoint made visible, with numbers and controls beside the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lewm import checkpoint as checkpoints
from lewm.datasets.schema import open_source
from lewm.errors import UserError
from lewm.probes import look_figures, look_strips, plots
from lewm.probes import results as io
from lewm.probes.cache import Cache, identity
from lewm.probes.decoder import Decoder, fit_decoder, save_decoder
from lewm.probes.decoding import decoded_ahead, dreams, judge, true_frames
from lewm.probes.frames import few, read_frames
from lewm.probes.latent import describe_latent
from lewm.probes.latent_map import MAPPED, colours, mapped, quantities_of
from lewm.probes.look_parts import attended, attention_or_why_not, embedded, pixel_paths, places_of, straight
from lewm.probes.look_scene import LEAST, Scene, set_up
from lewm.probes.look_tables import print_look
from lewm.probes.open_loop import Imagined, imagine_or_why_not
from lewm.probes.parts import plan
from lewm.probes.report import read_metrics
from lewm.probes.setting import fits, prepare

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WINDOWS = 100  # open-loop rollouts that numbers are of
ATTENDED = 300  # frames of which attention is measured
FRAMES = 5  # of which it is shown
Found = tuple[dict[str, Any], dict[str, "Figure"]]  # a part of the result, and its figures


def look(
    checkpoint: str | Path,
    *,
    data: str | Path,
    out: str | Path | None = None,
    targets: str | None = None,
    split: str = "test",
    max_frames: int = 4000,
    updates: int = 1500,
    films: int = 3,
    seed: int = 0,
    cache: bool = True,
) -> dict[str, Any]:
    """Show what a frozen model's embeddings hold: decoded frames, imagined rollouts, maps, spectrum, attention.

    Args:
        checkpoint: a checkpoint, or a run folder (its newest).
        data: an HDF5 file or a folder of shards.
        out: folder for result.json, result.csv, decoder.safetensors and pictures; None for report/look in the run.
        targets: a shipped name or a YAML file of the quantities that maps are coloured by; None for those that fit.
        split: episodes to look at: test or val. The decoder learns from train, and is chosen on the episodes left.
        max_frames: training frames used, evenly spread; of other parts a quarter as many.
        updates: of a decoder.
        films: rollouts shown.
        seed: seed of decoders, maps, the untrained network and intervals.
        cache: keep computed embeddings beside the run, and use those that are there.

    Raises:
        UserError: for anything that does not fit: checkpoint and data, targets, too few frames or episodes.
    """
    for name, value, least in (("max_frames", max_frames, LEAST), ("updates", updates, 1), ("films", films, 1)):
        if value < least:
            raise UserError(f"--{name} is {value}; it must be at least {least}")
    if split not in ("test", "val"):
        raise UserError(f"--split is {split!r}; one of test, val")
    path = checkpoints.resolve(checkpoint)
    folder = io.out_folder(out, [path], "look")
    source = open_source(data)
    origin, quantities = quantities_of(targets, source)
    setting = prepare(path, folder, seed)
    fits(setting.model.interface, source)
    parts = plan(source, split, setting.model.interface.split_seed, seed).folds[0]
    kept = Cache(io.cache_folder([path], folder) if cache else None, identity(source) if cache else "")
    scene = set_up(setting, source, parts, quantities, max_frames, kept)
    imagined, note = imagine_or_why_not(setting.model, source, parts.test, WINDOWS)
    result, figures, decoder = decoded(scene, updates)
    save_decoder(decoder, folder / "decoder.safetensors")
    about = {"targets_from": origin, "rollouts_note": note}
    about["trained_on_this_data"] = setting.model.interface.fingerprint == source.fingerprint()
    result = setting.describe(data, source.fingerprint(), split) | about | result
    found = [on_maps(scene), spectra(scene), attention(scene)]
    if imagined is not None:
        found += [rollouts(scene, imagined, decoder, films), paths(scene, imagined, checkpoints.run_folder(path))]
    for part, drawn in found:
        result, figures = result | part, figures | drawn
    result = io.write_result(result, figures, folder)
    print_look(result)
    return result


def decoded(scene: Scene, updates: int) -> tuple[dict[str, Any], dict[str, Figure], Decoder]:
    """The decoder, judged on test frames beside the same one for an untrained network, nearest and mean frames."""
    how = {"updates": updates, "seed": scene.setting.seed, "device": scene.device}
    fitted = {
        name: fit_decoder(scene.pictures("train", feature), scene.pictures("val", feature), **how)
        for name, feature in (("decoder", "embedding"), ("untrained", "untrained/embedding"))
    }
    test = scene.pictures("test")
    shown = {
        "decoder": fitted["decoder"].frames(test.z),
        "untrained": fitted["untrained"].frames(scene.pictures("test", "untrained/embedding").z),
        "nearest": scene.neighbours.frames(test.z),
    }
    mean = np.round(scene.pixels["train"].mean(axis=0)).astype(np.uint8)
    scores = judge(shown, test, mean, seed=scene.setting.seed)
    about = {part: frames.describe() for part, frames in scene.frames.items()}
    parameters = sum(p.numel() for p in fitted["decoder"].parameters())
    scores |= {"updates": updates, "parameters": parameters, "file": "decoder.safetensors", "parts": about}
    return {"decoder": scores}, {"decoded": look_strips.decoded(test.pixels, shown)}, fitted["decoder"]


def rollouts(scene: Scene, imagined: Imagined, decoder: Decoder, films: int) -> Found:
    """Imagined rollouts as frames, and their error by horizon."""
    shown = dreams(scene.source, imagined, decoder, scene.neighbours, films)
    rows = decoded_ahead(scene.source, imagined, decoder, seed=scene.setting.seed)
    names = look_strips.write_films(shown, scene.setting.out)
    return {"rollouts": rows, "videos": names}, {"rollouts": look_strips.rollouts(shown)}


def on_maps(scene: Scene) -> Found:
    """Test embeddings on a plane, coloured by what the frames show."""
    frames, interface = few(scene.frames["test"], MAPPED), scene.setting.model.interface
    maps, about = mapped(scene.table.at("embedding", frames), scene.setting.seed)
    how = {"history": interface.history, "frameskip": interface.frameskip}
    coloured = colours(scene.source, scene.quantities, frames, **how)
    about["colours"] = [colour.name for colour in coloured]
    return {"map": about}, {"map": look_figures.maps_figure(maps, coloured, about)}


def spectra(scene: Scene) -> Found:
    """How many directions test embeddings fill, beside the untrained network's."""
    latent, untrained = (
        describe_latent(scene.pictures("test", name).z) for name in ("embedding", "untrained/embedding")
    )
    return {"latent": latent | {"untrained": untrained}}, {"spectrum": plots.spectrum(latent, untrained)}


def paths(scene: Scene, imagined: Imagined, run: Path | None) -> Found:
    """How straight latent paths are, beside the untrained network's and those of pixels."""
    pixels = true_frames(scene.source, imagined)
    kinds = {
        "embedding": imagined.real,
        "imagined": imagined.path("imagined"),
        "untrained": embedded(scene.untrained, pixels),
        "pixels": pixel_paths(pixels),
    }
    found = straight(kinds, imagined.windows.episode, seed=scene.setting.seed)
    logged = read_metrics(run / "metrics.csv").get(look_figures.LOGGED) if run else None
    about = {"windows": len(imagined.windows.start), "frames": imagined.windows.num_frames}
    return {"straightness": found | about}, {"straightness": look_figures.straightness_figure(found, logged)}


def attention(scene: Scene) -> Found:
    """Where the class token looks in its last layers, and whether that is where things are."""
    frames, model, skip = few(scene.frames["test"], ATTENDED), scene.setting.model, scene.setting.model.interface
    pixels = read_frames(scene.source, frames)
    weights, why = attention_or_why_not(model, pixels)
    if weights is None:
        return {"attention": None, "attention_note": why}, {}
    without, _ = attention_or_why_not(scene.untrained, pixels)
    assert without is not None
    places = places_of(scene.source, scene.quantities, frames, skip.frameskip)
    both = {"trained": weights, "untrained": without}
    layers = []
    for layer in range(weights.shape[1]):
        means = {who: own[:, layer].mean(axis=1) for who, own in both.items()}  # over heads
        at = {
            name: {who: attended(own, place, frames.episode, seed=scene.setting.seed) for who, own in means.items()}
            for name, place in places.items()
        }
        layers.append({"layer": layer + 1, "at": at})
    kept = np.arange(FRAMES) * len(pixels) // FRAMES
    drawn = look_strips.attention(pixels[kept], look_strips.named(weights[kept]))
    return {"attention": layers, "attention_note": None}, {"attention": drawn}
