"""The part of a report that shows the latent space: decoded frames, imagined rollouts, maps, attention."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lewm.probes import html
from lewm.probes.look_tables import (
    AHEAD,
    DECODER,
    FEW_EPISODES,
    STRAIGHT,
    ahead_rows,
    attention_header,
    attention_rows,
    decoder_rows,
    straight_rows,
)
from lewm.probes.tables import number

Result = dict[str, Any]
DECODED = (
    "A decoder was fitted to make frames from the frozen embeddings of training episodes: a picture of what an "
    "embedding still holds. The model learned nothing from it. Errors are mean squared differences of pixels, in units "
    "of their range, on episodes that the decoder has not seen."
)
MEANINGS = (
    "decoder for the untrained network: the same decoder, fitted to embeddings of the same network before any training",
    "nearest training frame: no decoder; the training frame whose embedding is nearest",
    "mean training frame: always the same picture",
    "R2: 1 for the frame itself, 0 for the mean training frame",
)
PICTURES = {
    "decoded": "Frames, and what is made of the embedding of each.",
    "rollouts": "Open-loop rollouts, a block of actions from column to column. Blue borders: imagined from actions "
    "alone, as the decoder draws it, and as the training frame whose embedding is nearest.",
    "map": "Embeddings of test frames on a plane, coloured by what the frames show. Principal components keep "
    "distances as far as a plane can; t-SNE keeps neighbours, and distances between groups mean nothing.",
    "spectrum": "Variance of the embeddings along each of their principal directions; the dashed line is SIGReg's aim.",
    "straightness": "Mean cosine between one velocity in latent space and the next: 1 is a straight path. Training "
    "does not ask for it.",
    "attention": "What the encoder's class token attends to, by patch: mean over heads of the last two layers, and "
    "heads of the last one. Each map is scaled by its largest weight.",
}
AROUND = (
    "How much more the patch at a thing's place and the eight around it are attended to than even attention over all "
    "patches would (1: no more than others), mean over heads [95 %]."
)


def parts(result: Result, folder: Path) -> list[str]:
    """Everything between a section's head and its end."""
    return [
        html.paragraph(DECODED),
        *unreliable(result),
        html.table(DECODER, decoder_rows(result)),
        html.items(MEANINGS),
        picture(result, folder, "decoded"),
        imagined(result, folder),
        shape(result, folder),
        attention(result, folder),
    ]


def unreliable(result: Result) -> Iterator[str]:
    """A warning where episodes are few."""
    if not result["decoder"]["ci_reliable"]:
        yield html.warning(f"{FEW_EPISODES}.")


def picture(result: Result, folder: Path, name: str) -> str:
    """A figure, where it is this result's own."""
    return html.figure(folder / f"{name}.png", PICTURES[name]) if name in result["figures"] else ""


def imagined(result: Result, folder: Path) -> str:
    """Rollouts as frames: strips, films and errors, or why there are none."""
    if not result.get("rollouts"):
        return html.subsection("Imagined rollouts", html.paragraph(str(result.get("rollouts_note"))))
    films = [
        html.film(folder / "videos" / name, f"Rollout {i + 1}, block by block")
        for i, name in enumerate(result.get("videos", []))
    ]
    table = html.table(AHEAD, ahead_rows(result))
    return html.subsection("Imagined rollouts", picture(result, folder, "rollouts"), table, *films)


def shape(result: Result, folder: Path) -> str:
    """Maps, spectrum and straightness."""
    about, latent = result["map"], result["latent"]
    trust = ", ".join(f"{name} {number(value)}" for name, value in about["trustworthiness"].items())
    rank = f"{number(latent['effective_rank'], 1)} of {latent['dim']}"
    return html.subsection(
        "The shape of the latent space",
        html.paragraph(
            f"Effective rank {rank}, of the untrained network {number(latent['untrained']['effective_rank'], 1)}. "
            f"Trustworthiness of the maps ({about['neighbours']} neighbours, 1 is best): {trust}.",
            soft=True,
        ),
        *(picture(result, folder, name) for name in ("map", "spectrum", "straightness")),
        html.table(STRAIGHT, rows) if (rows := straight_rows(result)) else "",
    )


def attention(result: Result, folder: Path) -> str:
    """Where the class token looks, or why that is not known."""
    if not result.get("attention"):
        return html.subsection("Attention", html.paragraph(str(result.get("attention_note"))))
    header = attention_header(result)
    table = html.table(header, attention_rows(result)) if header else ""
    about = html.paragraph(AROUND, soft=True) if header else ""
    return html.subsection("Attention", picture(result, folder, "attention"), about, table)
