"""Pieces of a self-contained HTML page; all text is escaped here and nowhere else."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CSS = """
:root { color-scheme: light dark; --back: #f6f7f9; --card: #fff; --text: #1a202c; --soft: #5b6472; --line: #e2e6ec;
  --accent: #0072b2; --good: #00795a; --bad: #b3440a; --code: #f0f2f5; }
@media (prefers-color-scheme: dark) { :root { --back: #12151a; --card: #1b1f27; --text: #e8ebf0; --soft: #9aa4b2;
  --line: #2d333d; --accent: #56b4e9; --good: #3ecf9f; --bad: #ff9a62; --code: #232833; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 .7rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 .4rem; }
p { margin: .4rem 0; }
.warning { color: var(--bad); font-weight: 600; }
.card, .soft, .warning { overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: .9rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 1.2rem; margin: 1rem 0; }
ul { margin: .4rem 0 .9rem; padding-left: 1.2rem; }
.verdict { border-left: 6px solid var(--soft); }
.verdict.good { border-left-color: var(--good); } .verdict.bad { border-left-color: var(--bad); }
.verdict strong { font-size: 1.3rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: .8rem; margin: 1rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: .9rem 1rem; }
.card b { display: block; font-size: 1.55rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
td:nth-child(2):last-child { white-space: normal; overflow-wrap: anywhere; min-width: 10rem; }
thead th { white-space: normal; vertical-align: bottom; }
tbody th { color: var(--text); padding-top: .9rem; }
img { display: block; max-width: 100%; height: auto; margin: .9rem auto; background: #fff; border-radius: 8px; }
figure { margin: 1.4rem 0; }
figcaption { color: var(--soft); font-size: .9rem; }
figure img { margin: .3rem auto; }
pre { background: var(--code); border-radius: 8px; padding: .8rem; margin: .5rem 0; overflow-x: auto;
  font-size: .82rem; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
summary { cursor: pointer; color: var(--accent); }
"""


def page(title: str, body: Iterable[str]) -> str:
    """The whole document; it asks for nothing from any network."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A titled box."""
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(parts) + "\n</section>"


def subsection(title: str, *parts: str) -> str:
    """A titled part of a box."""
    return f"<h3>{escape(title)}</h3>\n" + "\n".join(parts)


def paragraph(text: str, soft: bool = False) -> str:
    """A paragraph of plain text."""
    return f'<p class="soft">{escape(text)}</p>' if soft else f"<p>{escape(text)}</p>"


def warning(text: str) -> str:
    """A paragraph that cannot be overlooked."""
    return f'<p class="warning">{escape(text)}</p>'


def items(texts: Iterable[str]) -> str:
    """A list of sentences, softly; nothing where there are none."""
    lines = "\n".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="soft">\n{lines}\n</ul>' if lines else ""


def card(label: str, value: str, note: str) -> str:
    """One key figure, with its interval or meaning below."""
    return (
        f'<div class="card"><span class="soft">{escape(label)}</span><b>{escape(value)}</b>'
        f'<span class="soft">{escape(note)}</span></div>'
    )


def table(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """A table that scrolls by itself on a narrow screen; a row that is a text is a heading over all columns."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "\n".join(f"<tr>{cells_of(row, len(header))}</tr>" for row in rows)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def cells_of(row: Iterable[object], width: int) -> str:
    """A row's cells, or one as wide as all of them."""
    if isinstance(row, str):
        return f'<th colspan="{width}" scope="colgroup">{escape(row)}</th>'
    return "".join(f"<td>{escape(str(cell))}</td>" for cell in row)


def code(text: str) -> str:
    """Preformatted text."""
    return f"<pre><code>{escape(text)}</code></pre>"


def details(summary: str, *parts: str) -> str:
    """Parts that are folded away."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n" + "\n".join(parts) + "\n</details>"


def image(png: bytes, alt: str) -> str:
    """A PNG inside the page."""
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def image_file(path: Path, alt: str) -> str:
    """A PNG file inside the page; nothing where there is no such file."""
    return image(path.read_bytes(), alt) if path.is_file() else ""


def film(path: Path, caption: str) -> str:
    """A GIF file with a sentence above it; nothing where there is no such file."""
    if not path.is_file():
        return ""
    source = f"data:image/gif;base64,{base64.b64encode(path.read_bytes()).decode()}"
    moving = f'<img alt="{escape(caption)}" src="{source}">'
    return f"<figure>\n<figcaption>{escape(caption)}</figcaption>\n{moving}\n</figure>"


def figure(path: Path, caption: str) -> str:
    """A PNG file with a sentence above it that says what it shows; nothing where there is no such file."""
    drawn = image_file(path, path.stem.replace("_", " "))
    return f"<figure>\n<figcaption>{escape(caption)}</figcaption>\n{drawn}\n</figure>" if drawn else ""


def image_of_figure(figure: Figure, alt: str) -> str:
    """A matplotlib figure inside the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return image(buffer.getvalue(), alt)


def image_of_array(pixels: np.ndarray, alt: str) -> str:
    """An array (h, w, c) uint8 inside the page."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(buffer, format="PNG")
    return image(buffer.getvalue(), alt)
