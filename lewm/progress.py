"""A progress bar for anything that may take over two seconds; on stderr, and only where a person watches."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
SILENT = ContextVar("SILENT", default=False)


@contextmanager
def silence() -> Iterator[None]:
    """No bar is shown inside: another one stands on the screen."""
    before = SILENT.set(True)
    try:
        yield
    finally:
        SILENT.reset(before)


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items, showing how far they are."""
    if SILENT.get() or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(items, what, total=total, console=Console(stderr=True), transient=True)
