"""`lewm report`: everything known about a run as one self-contained HTML page, and the same as report.json."""

from __future__ import annotations

import csv
import json
import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lewm import checkpoint as checkpoints
from lewm.errors import UserError
from lewm.paths import make_folder
from lewm.probes import html, plots, report_look, report_plan, report_probe, report_surprise
from lewm.probes.provenance import Checkpoint, newest_checkpoint, origin, outdated
from lewm.probes.results import plain, write_text
from lewm.probes.verdict import Verdict, judge, key_figures

EVALUATIONS = ("probe", "surprise", "look", *report_plan.FOLDERS)
PANELS = {
    "Loss": ("train/loss", "val/loss"),
    "Prediction": ("train/pred_loss", "val/pred_loss", "val/copy_last"),
    "SIGReg (Gaussian: its value for N(0, I))": ("train/sigreg", "val/sigreg", "val/sigreg_gaussian"),
    "Spread of the embedding": ("val/std_mean", "val/std_min", "val/std_max"),
    "Effective rank": ("val/effective_rank",),
    "Error with wrong actions, as a ratio": ("val/zero_action_ratio", "val/shuffled_action_ratio"),
    "Straightness of latent paths": ("val/straightness",),
    "Clips a second": ("train/clips_per_s",),
    "Share of time waiting for data": ("train/data_wait",),
    "Peak memory (GiB)": ("train/peak_gib",),
}
Metrics = dict[str, tuple[np.ndarray, np.ndarray]]  # column: optimiser steps, values


@dataclass(frozen=True)
class Known:
    """All that was found in a run folder."""

    run: Path
    metrics: Metrics
    environment: dict[str, Any]
    config: str
    results: dict[str, dict[str, Any]]
    newest: Checkpoint | None

    @property
    def outdated(self) -> dict[str, str]:
        """Evaluations that are not about the newest checkpoint, and why."""
        found = {name: outdated(result, self.newest) for name, result in self.results.items()}
        return {name: why for name, why in found.items() if why}

    @property
    def health(self) -> dict[str, float]:
        """The last value of every logged number, finite or not."""
        return {name: float(values[-1]) for name, (_, values) in self.metrics.items()}

    @property
    def data(self) -> str:
        """The data's path as in the run's environment, or a placeholder for commands."""
        return str((self.environment.get("data") or {}).get("path") or "DATA")


def report(run_folder: str | Path) -> Path:
    """Write RUN/report/report.html and report.json; returns the page's path."""
    run = Path(run_folder)
    if not run.is_dir():
        raise UserError(f"no such run folder: {run}")
    known = look_into(run)
    verdict = verdict_of(known)
    figures = key_figures(known.health, known.results, known.newest)
    out = make_folder(run / "report")
    content = {
        "run": str(run),
        "verdict": asdict(verdict),
        "figures": [asdict(figure) for figure in figures],
        "health": known.health,
        "environment": known.environment,
        "results": known.results,
        "outdated": known.outdated,
        "missing": missing(known.results),
    }
    colour = {True: "good", False: "bad", None: ""}[verdict.good]
    reasons = "".join(html.paragraph(reason) for reason in verdict.reasons)
    body = [
        f"<header><h1>{html.escape(_title(run))}</h1>{html.paragraph(str(run), soft=True)}</header>",
        f'<section class="verdict {colour}"><strong>{html.escape(verdict.word.capitalize())}</strong>',
        f"{reasons}</section>",
        '<div class="cards">' + "".join(html.card(f.label, f.value, f.note) for f in figures) + "</div>",
        data_section(known),
        training_section(known),
        open_loop_section(known),
        probe_section(known),
        surprise_section(known),
        look_section(known),
        plan_section(known),
        reproduce_section(known),
    ]
    write_text(out / "report.json", json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(out / "report.html", html.page(f"lewm report: {_title(run)}", body))
    return out / "report.html"


def missing(results: dict[str, Any]) -> list[str]:
    """Evaluations that were not made; of planning one protocol is enough."""
    planned = any(name in results for name in report_plan.FOLDERS)
    return [name for name in ("probe", "surprise") if name not in results] + ([] if planned else ["plan"])


def verdict_of(known: Known) -> Verdict:
    """The verdict on the newest checkpoint; evaluations of others are named and left out."""
    kept = {name: result for name, result in known.results.items() if name not in known.outdated}
    verdict = judge(known.health, kept.get("probe"), kept.get("surprise"))
    left_out = [f"Not counted here: {name}, {why}." for name, why in known.outdated.items()]
    return replace(verdict, reasons=[*verdict.reasons, *left_out])


def about_result(known: Known, name: str) -> str:
    """What an evaluation was measured on; visibly where that is not the run's newest checkpoint."""
    text = origin(known.results[name])
    measured = html.paragraph(f"Measured on {text}.", soft=True) if text else ""
    return measured + (html.warning(f"Outdated: {known.outdated[name]}.") if name in known.outdated else "")


def _title(run: Path) -> str:
    """A run's name and when it was begun."""
    return f"{run.resolve().parent.name}, {run.name}"


def look_into(run: Path) -> Known:
    """Read what there is; what is missing is missing, what is damaged is the user's to know."""
    config = run / "config.yaml"
    found = {name: read_json(run / "report" / name / "result.json") for name in EVALUATIONS}
    return Known(
        run,
        read_metrics(run / "metrics.csv"),
        read_json(run / "env.json") or {},
        config.read_text(encoding="utf-8") if config.is_file() else "",
        {name: result for name, result in found.items() if result is not None},
        newest_checkpoint(run),
    )


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON file, None where there is none."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); delete it and run its command again") from error


def read_metrics(path: Path) -> Metrics:
    """Columns of a metrics file, each with the steps at which it has a value, finite or not."""
    if not path.is_file():
        return {}
    columns: dict[str, list[tuple[float, float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for i, row in enumerate(csv.DictReader(file)):
            step = as_number(row.get("step"))
            for name, text in row.items():
                value = as_number(text)
                if name not in (None, "step", "epoch") and value is not None:
                    columns.setdefault(name, []).append((i if step is None or not np.isfinite(step) else step, value))
    return {name: (np.array(pairs)[:, 0], np.array(pairs)[:, 1]) for name, pairs in columns.items()}


def as_number(text: Any) -> float | None:
    """A number, NaN and infinity among them, or None."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def finite(lines: Metrics) -> Metrics:
    """The points that a plot can show; lines without any are left out."""
    kept = {name: np.isfinite(values) for name, (_, values) in lines.items()}
    return {name: (x[kept[name]], y[kept[name]]) for name, (x, y) in lines.items() if kept[name].any()}


def not_yet(title: str, known: Known, command: str, *more: str) -> str:
    """A section for what has not been evaluated: the command that does it."""
    line = shlex.join(["lewm", command, str(known.run), *more, "--data", known.data])
    return html.section(title, html.paragraph("Not evaluated yet. This command does it:"), html.code(line))


def data_section(known: Known) -> str:
    """The data sheet, how it was split, and some frames."""
    sheet = known.environment.get("data") or {}
    rows = [(name, sheet[name]) for name in ("path", "fingerprint") if name in sheet]
    for part in ("train", "val", "test"):
        if part in sheet:
            counts = sheet[part]
            rows.append((part, ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in counts.items())))
    try:
        interface = checkpoints.read(checkpoints.resolve(known.run))["lewm"]["interface"]
        names = ("image_size", "frameskip", "history", "split_seed")
        rows += [(name.replace("_", " "), interface[name]) for name in names if name in interface]
        statistics = {name: interface[name] for name in ("action_mean", "action_std") if name in interface}
        rows += [(name.replace("_", " "), ", ".join(f"{x:.4g}" for x in of)) for name, of in statistics.items()]
    except UserError as error:
        rows.append(("checkpoint", str(error)))
    note = (
        "Split by whole episodes, 80/10/10, by a hash of the split seed and each episode's key; statistics from train."
    )
    return html.section("Data", html.table(("", ""), rows), html.paragraph(note, soft=True), sample_frames(known))


def sample_frames(known: Known) -> str:
    """Six episodes' frames, where the data is still at its place."""
    from lewm.datasets.schema import open_source
    from lewm.datasets.summary import contact_sheet

    try:
        return html.image_of_array(
            contact_sheet(open_source(known.data)), "frames of six episodes, time from left to right"
        )
    except UserError:
        return html.paragraph("The data is not where this run recorded it, so no frames are shown.", soft=True)


def training_section(known: Known) -> str:
    """Curves of everything that was logged."""
    metrics = finite(known.metrics)
    panels = {title: {name: metrics[name] for name in names if name in metrics} for title, names in PANELS.items()}
    panels = {title: lines for title, lines in panels.items() if lines}
    if not panels:
        return html.section("Training", html.paragraph("No metrics.csv with known columns in this run."))
    return html.section("Training", html.image_of_figure(plots.training_curves(panels), "training curves"))


def open_loop_section(known: Known) -> str:
    """Error by horizon beside its baselines."""
    title, result = "Open-loop prediction", known.results.get("probe")
    if result is None:
        return not_yet(title, known, "probe")
    parts = report_probe.open_loop(result, known.run / "report/probe")
    return html.section(title, about_result(known, "probe"), *parts)


def probe_section(known: Known) -> str:
    """What can be read from embeddings, real and imagined, beside the controls."""
    title, result = "Physical quantities", known.results.get("probe")
    if result is None:
        return not_yet(title, known, "probe")
    parts = report_probe.quantities(result, known.run / "report/probe")
    return html.section(title, about_result(known, "probe"), *parts)


def surprise_section(known: Known) -> str:
    """Whether impossible events surprise the model, and new colours less."""
    title, result = "Surprise", known.results.get("surprise")
    if result is None:
        return not_yet(title, known, "surprise")
    parts = report_surprise.parts(result, known.run / "report/surprise")
    return html.section(title, about_result(known, "surprise"), *parts)


def look_section(known: Known) -> str:
    """What the latent space looks like."""
    title, result = "Latent space", known.results.get("look")
    if result is None:
        return not_yet(title, known, "look")
    parts = report_look.parts(result, known.run / "report/look")
    return html.section(title, about_result(known, "look"), *parts)


def plan_section(known: Known) -> str:
    """Whether it reaches goals, under every protocol that was run."""
    title = "Planning"
    found = [name for name in report_plan.FOLDERS if name in known.results]
    if not found:
        return not_yet(title, known, "plan", "--env", "WORLD")
    about = [about_result(known, name) for name in found]
    return html.section(title, *about, *report_plan.parts(known.results, known.run / "report/plan"))


def reproduce_section(known: Known) -> str:
    """The commands that made all this, the environment, and the configuration."""
    fit = known.environment.get("command")
    commands = [shlex.join(map(str, fit)) if isinstance(fit, list) else str(fit)] if fit else []
    commands += [str(result["command"]) for result in known.results.values() if result.get("command")]
    commands.append(shlex.join(["lewm", "report", str(known.run)]))
    parts = [html.code("\n".join(commands))]
    if known.environment:
        parts.append(html.details("env.json", html.code(json.dumps(known.environment, indent=1, ensure_ascii=False))))
    if known.config:
        parts.append(html.details("config.yaml", html.code(known.config)))
    return html.section("Reproduce", *parts)
