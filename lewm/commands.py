"""What each command takes, says of itself and calls; the flags are made from signatures and docstrings.

Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from lewm.errors import UserError


def collect(
    env: str,
    out: str,
    episodes: int = 100,
    seed: int = 0,
    image_size: int = 64,
    policy: str | None = None,
    workers: int = 0,
    codec: Literal["auto", "raw", "zstd", "zlib", "png", "jpeg"] = "auto",
    resume: bool = False,
    triples: int = 0,
    kinds: str | None = None,
) -> None:
    """Run a behaviour policy in a world and write what it saw and did.

    Example: lewm collect two_room --out data/two_room --episodes 500 --image_size 64 --workers 2

    Args:
        env: the world: two_room, push_t, reacher, cube, or a Gymnasium id, as Pendulum-v1 (docs/planning.md, Worlds).
        out: folder of shards to write; with --triples, the HDF5 file to write.
        episodes: how many episodes.
        seed: seed of starts and behaviour; the written bytes depend on it, not on the number of workers.
        image_size: side of the square frames.
        policy: behaviour, null for the world's own: of two_room expert, wander or random (docs/planning.md, Worlds).
        workers: processes; 0 for none beside this one.
        codec: how frames are stored; auto takes zstd where it halves them, else raw.
        resume: keep the finished shards of an interrupted run.
        triples: write this many triples of clips (unperturbed, colour change, teleport) instead of episodes.
        kinds: with --triples, other events than these two, by commas, as moved,heavier,wall_colour; all for every one
            that the world can do.
    """
    from functools import partial

    from lewm.datasets.clip_writer import collect_clips, collect_triples
    from lewm.datasets.collect import closing
    from lewm.datasets.collect import collect as run
    from lewm.envs import make_policy, make_world, policies_of

    world = partial(make_world, env, image_size=image_size)
    policy = policy or next(iter(policies_of(env)))
    behaviour = partial(make_policy, env, policy)
    with closing(world()):  # a wrong name is said before any process starts
        behaviour()
    provenance: dict[str, Any] = {"env": env, "policy": policy, "seed": seed, "image_size": image_size}
    if kinds is not None and not triples:
        raise UserError("--kinds are of clips, and --triples says how many; add it, as --triples 100")
    if kinds is not None:
        named = [name.strip() for name in kinds.split(",") if name.strip()]
        with closing(world()) as made:
            collect_clips(made, behaviour(), out, clips=triples, kinds=named, seed=seed, provenance=provenance)
    elif triples:
        with closing(world()) as made:
            collect_triples(made, behaviour(), out, triples=triples, seed=seed, provenance=provenance)
    else:
        how = {"seed": seed, "workers": workers, "codec": codec, "resume": resume, "provenance": provenance}
        run(world, behaviour, out, episodes=episodes, **how)
    print(f"written: {out}")


def convert(
    src: str,
    dst: str,
    codec: Literal["auto", "raw", "zstd", "zlib", "png", "jpeg"] = "auto",
    image_size: int | None = None,
    resume: bool = False,
    shard_mb: int = 256,
    camera: str | None = None,
    action: list[str] | None = None,
    fps: float | None = None,
) -> None:
    """Write any readable source as shards: every column in its own dtype, every episode with its key.

    Example: lewm convert pusht.h5 data/pusht --codec zstd

    Args:
        src: an HDF5 file, a folder of shards, the URL of one, or another tool's data set: LeRobot's, a zarr replay
            buffer, Minari's, a Lance table, DINO-WM's, a folder of npz files (docs/data.md).
        dst: folder to write.
        codec: how frames are stored; auto takes zstd where it halves them, else raw; jpeg is lossy.
        image_size: side of the written frames, by averaging areas; null for their own.
        resume: keep the finished shards of an interrupted run.
        shard_mb: size in MiB after which a new shard is begun.
        camera: of a data set with several, the one to take.
        action: columns that together are the action, where the data set does not say so, as '[arm, gripper]'.
        fps: frames a second to keep; the actions between two of them stand side by side in one row.
    """
    from lewm.datasets.convert import convert as run
    from lewm.datasets.foreign import Choice

    choice = Choice(camera=camera, action=tuple(action or ()), fps=fps)
    run(src, dst, codec=codec, image_size=image_size, resume=resume, shard_bytes=shard_mb * 2**20, choice=choice)
    print(f"written: {dst}")


def inspect(path: str, verify: bool = False, as_json: bool = False, sheet: str | None = None) -> None:
    """Say what is in a data set: episodes, lengths, columns, action statistics, NaNs.

    Example: lewm inspect data/two_room --verify --sheet frames.png

    Args:
        path: an HDF5 file, a folder of shards, or the URL of one.
        verify: read every byte and decode every frame; exit code 2 if anything is damaged.
        as_json: print JSON (also as --json).
        sheet: write a contact sheet of frames to this PNG.
    """
    import numpy as np

    from lewm.datasets.schema import open_source
    from lewm.datasets.summary import contact_sheet, print_summary, summarise
    from lewm.datasets.verify import damage_at

    damage = list(damage_at(path)) if verify else []
    if damage:
        for line in damage:
            print(f"damaged: {line}", file=sys.stderr)
        raise UserError(f"{len(damage)} damaged parts in {path}; restore the files or convert again")
    source = open_source(path)
    summary = summarise(source) | ({"damage": []} if verify else {})
    if as_json:
        print(json.dumps(summary, indent=1))
    else:
        print_summary(summary)
    if sheet is not None:
        from PIL import Image

        from lewm.paths import written_atomically

        with written_atomically(sheet) as temporary:
            Image.fromarray(np.squeeze(contact_sheet(source))).save(temporary, format="PNG")
        print(f"contact sheet: {sheet}")


def probe(
    checkpoint: list[str],
    data: str,
    out: str | None = None,
    targets: str | None = None,
    split: Literal["train", "val", "test", "all"] = "test",
    layers: str = "embedding,cls",
    max_frames: int = 20_000,
    seed: int = 0,
    cache: bool = True,
) -> None:
    """Read physical quantities from frozen embeddings, and measure open-loop error.

    Of several checkpoints each is measured on validation episodes; the best there gives the numbers on --split.

    Example: lewm probe runs/demo --data data/two_room

    Args:
        checkpoint: a checkpoint, a run folder (its newest), a folder of checkpoints (all of them); several of these.
        data: an HDF5 file or a folder of shards.
        out: folder for result.json, result.csv and plots; null for report/probe in the run's folder.
        targets: a shipped name (two_room, push_t, reacher, cube) or a YAML file; null for what fits best.
        split: episodes to judge on; all measures every one, in folds of whole episodes.
        layers: read beside the embedding, by commas: cls, or modules of encoder and projector by name, as
            encoder.backbone.blocks.1, or encoder.backbone.blocks.1:mean for the mean over patches.
        max_frames: frames used of each part, evenly spread.
        seed: seed of probes, controls and intervals.
        cache: keep computed embeddings in the run's folder and use those that are there.
    """
    from lewm.probes.probe_run import probe as run

    named = tuple(name.strip() for name in layers.split(",") if name.strip())
    run(
        checkpoint,
        data=data,
        out=out,
        targets=targets,
        split=split,
        layers=named,
        max_frames=max_frames,
        seed=seed,
        cache=cache,
    )


def surprise(
    checkpoint: str,
    data: str | None = None,
    out: str | None = None,
    split: Literal["train", "val", "test", "all"] = "test",
    kinds: str = "all",
    reference: str = "auto",
    depth: int = 4,
    resize: bool = False,
    max_clips: int = 200,
    seed: int = 0,
    watch: str | None = None,
    actions: str | None = None,
) -> None:
    """Show the model impossible events, and paint: how surprised is it, how surely, and when?

    Example: lewm surprise runs/demo --data data/two_room --kinds teleport,freeze,recolour

    Args:
        checkpoint: a checkpoint, a run folder, or a folder of runs.
        data: a data set whose episodes are disturbed, a file of clips (see `lewm collect --triples`), or a folder with
            videos or image sequences (docs/evaluation.md has its layout).
        out: folder for result.json, result.csv and plots; null for report/surprise in the run's folder.
        split: episodes to disturb; with val every second one, as the others say what is ordinary.
        kinds: of disturbed episodes, by commas: teleport, time_jump, reversal, freeze, frame_swap, exchanged_actions;
            recolour, region_colour, brightness, noise, patch. A file has kinds of its own.
        reference: data set whose validation episodes say what is ordinary; auto for --data or what the model was
            trained on; none for no calibrated surprise.
        depth: blocks ahead up to which surprise is measured.
        resize: accept frames of another size than the model's.
        max_clips: clips to judge on at most.
        seed: seed of disturbances and intervals.
        watch: instead of a test, write this video (or folder of images) with its surprise drawn beneath.
        actions: with --watch, the actions taken between its frames: a .npy or .csv file.
    """
    from lewm.probes.surprise_run import surprise as run
    from lewm.probes.watch import watch as watch_video

    if (watch is None) == (data is None):
        raise UserError("lewm surprise takes --data (clips or episodes to judge) or --watch (one video); give one")
    if (watch is None) != (actions is None):
        raise UserError("--watch VIDEO and --actions FILE go together: the actions taken between the video's frames")
    if watch is not None and actions is not None:
        given = {"split": split != "test", "kinds": kinds != "all", "depth": depth != 4, "max_clips": max_clips != 200}
        if wrong := [f"--{name}" for name, is_given in given.items() if is_given]:
            raise UserError(f"{wrong[0]} is for clips that are judged; --watch draws the surprise along one video")
        common = {"out": out, "reference": reference, "resize": resize, "seed": seed}
        print(f"written: {watch_video(checkpoint, video=watch, actions=actions, **common)}")
        return
    assert data is not None
    run(
        checkpoint,
        data=data,
        out=out,
        split=split,
        kinds=kinds,
        reference=reference,
        depth=depth,
        resize=resize,
        max_clips=max_clips,
        seed=seed,
    )


def look(
    checkpoint: str,
    data: str,
    out: str | None = None,
    targets: str | None = None,
    split: Literal["test", "val"] = "test",
    max_frames: int = 4000,
    updates: int = 1500,
    films: int = 3,
    seed: int = 0,
    cache: bool = True,
) -> None:
    """See what a frozen model's embeddings hold: decoded frames, imagined rollouts, maps, spectrum, attention.

    Example: lewm look runs/demo --data data/two_room

    Args:
        checkpoint: a checkpoint, a run folder, or a folder of runs.
        data: an HDF5 file or a folder of shards.
        out: folder for result.json, result.csv, the decoder and pictures; null for report/look in the run's folder.
        targets: what maps are coloured by: a shipped name (two_room, push_t, reacher, cube) or a YAML file; null for
            what fits best.
        split: episodes to look at; the decoder learns from train.
        max_frames: training frames used, evenly spread; of other parts a quarter as many.
        updates: steps of training of a decoder; two are trained, the other for an untrained network.
        films: imagined rollouts shown, as a strip and a film each.
        seed: seed of decoders, maps and intervals.
        cache: keep computed embeddings in the run's folder and use those that are there.
    """
    given = dict(locals())
    from lewm.probes.look_run import look as run

    run(given.pop("checkpoint"), **given)


def plan(
    checkpoint: str,
    env: str,
    data: str,
    out: str | None = None,
    solver: str = "cem",
    protocol: Literal["strict", "moderate", "paper"] = "strict",
    manifest: str | None = None,
    write_manifest: str | None = None,
    split: Literal["auto", "train", "val", "test", "all"] = "auto",
    pairs: int | None = None,
    seeds: int | None = None,
    seed: int = 0,
    horizon: int | None = None,
    execute: int | None = None,
    iterations: int | None = None,
    samples: int | None = None,
    elites: int | None = None,
    std: float | None = None,
    exponent: float | None = None,
    lr: float | None = None,
    starts: int | None = None,
    cost: str = "last",
    action_penalty: float = 0.0,
    goals: int = 1,
    offset: int | None = None,
    budget: int | None = None,
    near: float | None = None,
    batch: int = 64,
    films: int = 4,
    plain: bool = False,
    compile: bool = False,
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
) -> None:
    """Reach goals by planning in latent space, on held-out pairs, beside random actions.

    Example: lewm plan runs/demo --env two_room --data data/two_room --protocol moderate --pairs 30 --seeds 1

    Args:
        checkpoint: a checkpoint, a run folder, or a folder of runs.
        env: the world: two_room, push_t, reacher, cube, or a Gymnasium id, as Pendulum-v1 (docs/planning.md, Worlds).
        data: data set whose episodes give starts and goals; with true states.
        out: folder for result.json, result.csv, pairs.csv and plots; null for report/plan/PROTOCOL in the
            run's folder.
        solver: cem, icem, mppi, gradient, shooting or random.
        protocol: rules of the sample and of success (docs/planning.md): strict, moderate, or paper for comparison.
        manifest: file of frozen pairs; null to draw them.
        write_manifest: write the pairs to this file.
        split: episodes to draw from; auto for the protocol's own (test; paper: all). Of a data set collected with
            other seeds all are held out.
        pairs: fewer or more than the protocol says.
        seeds: number of planner seeds; null for the protocol's.
        seed: of the pairs drawn, of the first planner and of intervals.
        horizon: blocks planned ahead; null for the solver's own, here and below.
        execute: blocks executed before planning again; null for all.
        iterations: of a search.
        samples: candidates of an iteration.
        elites: of them the next iteration is drawn around; null for one in ten.
        std: of the first candidates, in standard deviations of the training actions.
        exponent: colour of the noise of cem, icem and mppi; 0 is white, 2 hangs together in time.
        lr: step of the gradient solver, on the same scale as std.
        starts: searches of the gradient solver beside each other.
        cost: last (distance at the last step), sum, nearest (step), or order (of several goal frames).
        action_penalty: weight of the mean squared action, on the same scale as std, beside the cost.
        goals: goal frames, a block apart, the last being the goal; the protocols have one.
        offset: steps from start to goal; null for the protocol's.
        budget: environment steps; null for the protocol's.
        near: distance to the goal that counts as solved, over the numbers of the state; of a Gymnasium id, where it
            must be given. Worlds by name have rules of their own.
        batch: pairs planned for together; the noise does not depend on it, sums differ by rounding.
        films: pairs of which a film is kept, under the first seed: start, what happened, what was imagined, goal.
        plain: take none of the model's fast paths: the same to rounding, slower.
        compile: compile encoder and predictor with torch.compile: minutes, for long plans on an accelerator. On a CPU
            it needs a C++ compiler and gains nothing: candidates are then not divided among threads.
        precision: of the candidates' rollouts; bf16-mixed is faster where the hardware computes in bfloat16, and gives
            costs of two to three digits. Frames, goals and the chosen plan are computed in float32 in any case.
    """
    given = dict(locals())
    from lewm.probes.plan_run import plan as run

    run(given.pop("checkpoint"), **given)


def report(run: str) -> None:
    """Write one self-contained HTML page of all that is known about a run.

    Example: lewm report runs/demo

    Args:
        run: a run folder, or a folder of runs (then the newest).
    """
    from lewm.probes.report import report as write

    print(f"report: {write(_newest_run(run))}")


def import_(
    source: str,
    out: str,
    image_size: int | None = None,
    frameskip: int | None = None,
    history: int | None = None,
    action_mean: str | None = None,
    action_std: str | None = None,
    data: str | None = None,
    resize: bool = False,
    encoder_heads: int | None = None,
    predictor_heads: int | None = None,
) -> None:
    """Take published LeWM weights, also stable-worldmodel's; what no weight file says is asked for.

    Example: lewm import weights.pt --out runs/pusht --image_size 224 --frameskip 5 --history 3 --data pusht.h5

    Args:
        source: a weight file (.pt or .safetensors), or a folder of one with its config.json.
        out: run folder to write, for lewm.load and all other commands.
        image_size: side of the frames the encoder sees; null for what the config says, here and below.
        frameskip: environment steps between two frames, which make one block of actions.
        history: frames the predictor sees.
        action_mean: mean of each action dimension in training, by commas, as --action_mean=-0.1,0.2.
        action_std: their standard deviations, by commas.
        data: data set of whose training split both are computed instead.
        resize: accept frames of another size and resize them.
        encoder_heads: attention heads of the encoder; null for the config's, else heads 64 wide as the paper's.
        predictor_heads: the same of the predictor.
    """
    given = dict(locals())
    from lewm.importing import import_weights as run

    for name in ("action_mean", "action_std"):
        given[name] = None if given[name] is None else _numbers(given[name], f"--{name}")
    print(f"written: {run(given.pop('source'), given.pop('out'), **given)}")


def export(
    checkpoint: str,
    out: str,
    format: Literal["lewm", "stable-worldmodel"] = "lewm",
    spelling: Literal[5, 4] = 5,
) -> None:
    """Write a model as a folder that others can load: weights, config and a model card.

    Example: lewm export runs/demo --out demo_model

    Args:
        checkpoint: a checkpoint, a run folder, or a folder of runs.
        out: folder to write, for lewm.load and the Hugging Face Hub.
        format: lewm (safetensors), or stable-worldmodel for its load_pretrained.
        spelling: with stable-worldmodel, by which version of transformers the encoder's weights are named.
    """
    from lewm.export import export as run

    print(f"written: {run(checkpoint, out, form=format, spelling=spelling)}")


def doctor() -> None:
    """Print versions, devices, and what is wrong with this installation."""
    from lewm.doctor import diagnose

    print(diagnose())


COMMANDS: dict[str, Callable[..., None]] = {
    "collect": collect,
    "convert": convert,
    "inspect": inspect,
    "probe": probe,
    "surprise": surprise,
    "look": look,
    "plan": plan,
    "report": report,
    "import": import_,
    "export": export,
    "doctor": doctor,
}
POSITIONAL = {
    "collect": ("env",),
    "convert": ("src", "dst"),
    "inspect": ("path",),
    "probe": ("checkpoint",),
    "surprise": ("checkpoint",),
    "look": ("checkpoint",),
    "plan": ("checkpoint",),
    "report": ("run",),
    "import": ("source",),
    "export": ("checkpoint",),
}


def _numbers(words: str, flag: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in words.split(","))
    except ValueError as error:
        raise UserError(f"{flag} is {words!r}; give numbers by commas, as {flag}=-0.1,0.2") from error


def _newest_run(path: str) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"no such run: {folder}")
    runs = [p for p in sorted(folder.iterdir(), reverse=True) if (p / "config.yaml").exists()]
    return folder if (folder / "config.yaml").exists() or not runs else runs[0]
