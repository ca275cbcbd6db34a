"""What mkdocs has to be told: which pages lie outside docs/, how links to them read there, and where the package is."""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "RESULTS.md": "results.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
}
PAGES = OUTSIDE | {"README.md": "index.md"}  # by their place in the checkout
PACKAGE = ROOT / "build" / "docs" / "lewm"  # mkdocs.yml names its folder
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")


def on_startup(**_: Any) -> None:
    """Copy the package for the reader of docstrings, which passes over folders without `__init__.py`: two of ours."""
    shutil.rmtree(PACKAGE, ignore_errors=True)
    shutil.copytree(ROOT / "lewm", PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("datasets", "probes"):
        (PACKAGE / name / "__init__.py").touch()


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside docs/."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links from a file's place in the checkout become links from its page's place in the site.

    What they name outside the site stays as it is, for `--strict` to refuse.
    """
    uri = page.file.src_uri
    place = {page: source for source, page in OUTSIDE.items()}.get(uri, f"docs/{uri}")

    def moved(link: re.Match[str]) -> str:
        named = posixpath.normpath(posixpath.join(posixpath.dirname(place), link[1]))
        target = PAGES.get(named) or (named.removeprefix("docs/") if named.startswith("docs/") else None)
        return posixpath.relpath(target, posixpath.dirname(uri) or ".") if target else link[1]

    return LINK.sub(moved, markdown)
