"""The tables of `lewm look`, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lewm.probes.tables import HORIZONS, make_console, number, with_interval

Result = dict[str, Any]
Rows = list[tuple[str, ...]]
DECODER = ("", "MSE [95 %]", "PSNR (dB)", "R2", "error above the decoder's [95 %]")
AHEAD = ("blocks ahead", "imagined, MSE [95 %]", "from the real frame", "copy last")
STRAIGHT = ("paths", "mean cosine [95 %]")
WAYS = {
    "untrained": "decoder for the untrained network",
    "nearest": "nearest training frame",
    "mean_image": "mean training frame",
}
PATHS = {"imagined": "imagined", "encoded": "from the real frame", "copy_last": "copy last"}
KINDS = {
    "embedding": "embeddings",
    "imagined": "imagined embeddings",
    "untrained": "untrained network",
    "pixels": "pixels",
}
FEW_EPISODES = "fewer than 20 episodes: these intervals are not reliable"
TINY = 5  # digits of errors, which are far below 1


def decoder_rows(result: Result) -> Rows:
    """The decoder and its controls."""
    scores = result["decoder"]
    ways = {"decoder": scores} | {WAYS[name]: found for name, found in scores["controls"].items()}
    return [
        (
            name,
            with_interval(found["mse"], found["mse_ci95"], TINY),
            number(found["psnr"], 1),
            number(found["r2"]),
            with_interval(found.get("behind"), found.get("behind_ci95") or [], TINY),
        )
        for name, found in ways.items()
    ]


def ahead_rows(result: Result) -> Rows:
    """Errors of decoded frames by horizon."""
    rows = result.get("rollouts") or []
    return [
        (str(row["h"]), *(with_interval(row[f"{path}_mse"], row[f"{path}_mse_ci95"], TINY) for path in PATHS))
        for i, row in enumerate(rows)
        if row["h"] in HORIZONS or i == len(rows) - 1
    ]


def straight_rows(result: Result) -> Rows:
    """Straightness of each kind of paths."""
    found = result.get("straightness") or {}
    return [(KINDS[name], with_interval(row["mean"], row["ci95"])) for name, row in found.items() if name in KINDS]


def attention_header(result: Result) -> tuple[str, ...]:
    """A column for each thing, trained and untrained; () where there is no attention or no place is known."""
    layers = result.get("attention") or [{"at": {}}]
    names = [f"{name}, {who}" for name in layers[0]["at"] for who in ("trained", "untrained")]
    return ("layer", *names) if names else ()


def attention_rows(result: Result) -> Rows:
    """How much more things are attended to than other patches."""
    return [
        (
            str(row["layer"]),
            *(
                with_interval(scores["ratio"], scores["ci95"], 2)
                for both in row["at"].values()
                for scores in both.values()
            ),
        )
        for row in result.get("attention") or []
    ]


def tables_of(result: Result) -> Iterator[tuple[str, tuple[str, ...], Rows]]:
    """Title, header and rows of every table that has rows."""
    decoder = result["decoder"]
    title = f"Decoder, {decoder['episodes']} episodes, {decoder['n']} frames, split {result['split']}"
    yield title, DECODER, decoder_rows(result)
    yield "Imagined rollouts, decoded", AHEAD, ahead_rows(result)
    yield "Straightness of paths", STRAIGHT, straight_rows(result)
    if header := attention_header(result):
        yield "Attention at things, over even attention", header, attention_rows(result)


def print_look(result: Result) -> None:
    """All tables, and the shape of the latent space in a line."""
    from rich.table import Table

    console = make_console()
    for title, header, rows in tables_of(result):
        if rows:
            table = Table(*header, title=title)
            for row in rows:
                table.add_row(*row)
            console.print(table)
    if not result["decoder"]["ci_reliable"]:
        console.print(FEW_EPISODES)
    latent = result["latent"]
    console.print(
        f"effective rank {number(latent['effective_rank'], 1)} of {latent['dim']}, untrained "
        f"{number(latent['untrained']['effective_rank'], 1)}"
    )
    if result["rollouts_note"]:
        console.print(result["rollouts_note"])
