"""A folder behind a URL: its files and ranges of bytes, with bounded retries, timeouts and plain errors."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fsspec.callbacks import Callback

from lewm.errors import UserError
from lewm.paths import DISK_FULL

T = TypeVar("T")
ATTEMPTS = 4  # of each file, in all
PAUSE_S = 0.5  # before the second attempt; doubled before each one after it
SILENCE_S = 60.0  # without a byte, after which an attempt over HTTP has failed
TOGETHER = 64  # ranges asked for at a time
PASSING = (408, 425, 429)  # of the 4xx, those that may pass
NETWORK = {"aiohttp", "botocore", "aiobotocore"}  # packages whose own errors are of the network
FOR_GOOD = {"InvalidURL", "NonHttpUrlClientError", "NoCredentialsError", "PartialCredentialsError"}


class NotFetched(UserError):
    """Data behind a URL could not be had: no fault of the data themselves."""


class UnusableFile(NotFetched):
    """A file that the server does not have, or not as it was announced."""


class Differs(Exception):
    """What came is not what was announced: half a body, or other bytes. It may pass."""


def is_remote(path: str | Path) -> bool:
    """Whether a path is a URL."""
    return "://" in str(path)


def without_secrets(text: str) -> str:
    """Every URL in a text without `user:password@` and without its query, which may hold a signature."""
    text = re.sub(r"://[^/\s'\"]*@", "://", text)
    return re.sub(r"(://[^\s?'\"]*)\?[^\s'\")]*", r"\1", text)


class RemoteFolder:
    """A folder behind a URL that fsspec can read; opened anew in each process, so it may be pickled and forked.

    What may pass (a reset, a server's error, a body cut short or with other bytes, silence) is tried `ATTEMPTS` times
    with doubling pauses. What will not (no such file, no right to read it) is said at once.
    """

    def __init__(self, url: str) -> None:
        folder, mark, query = url.partition("?") if url.startswith("http") else (url, "", "")
        self._folder, self._query = folder.rstrip("/"), mark + query
        self.shown = without_secrets(self._folder)
        self.name = self.shown.rpartition("/")[2] or "data"
        if "::" in url:
            raise UserError(f"{self.shown} is a chain of URLs; give that of a folder, as https://host/folder")

    def fetch(self, name: str, to: Path, *, limit: int, check: Callable[[Path], object]) -> None:
        """Copy a file of at most `limit` bytes to `to`; `check` raises `Differs` if it is not what was announced.

        Raises:
            UnusableFile: the server does not have it, or still not as announced after all attempts.
            NotFetched: it may not be read, or the server fails for longer.
            OSError: the local disk is full.
        """

        def copy(fs: Any, url: str) -> None:
            fs.get_file(url, str(to), callback=_AtMost(limit))
            check(to)

        self._trying(name, copy)

    def ranges(self, name: str, spans: list[tuple[int, int]], *, check: Callable[[list[bytes]], None]) -> list[bytes]:
        """Bytes from low to high of a file, for each span; `check` as in `fetch`.

        Raises:
            UnusableFile: the server has no such file, knows no ranges, or still gives other bytes after all attempts.
            NotFetched: as in `fetch`.
        """

        def read(fs: Any, url: str) -> list[bytes]:
            (first,) = _some_ranges(fs, url, spans[:1])
            if len(first) > spans[0][1] - spans[0][0]:
                raise UnusableFile(f"{self.shown}: the server knows no ranges of bytes")  # it sent the whole file
            found = [first]
            for i in range(1, len(spans), TOGETHER):
                found += _some_ranges(fs, url, spans[i : i + TOGETHER])
            check(found)
            return found

        return self._trying(name, read) if spans else []

    def _trying(self, name: str, action: Callable[[Any, str], T]) -> T:
        where, last = f"{self.shown}/{name}", ""
        differs = False
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE_S * 2 ** (attempt - 1))
            try:
                return action(*self._open(name))
            except UserError:
                raise
            # Errors of libraries may hold the URL with its password: only the cleaned text goes on.
            except Exception as error:
                _raise_unless_it_may_pass(error, where)
                last, differs = _reason(error), isinstance(error, Differs)
        kind = UnusableFile if differs else NotFetched
        what = "restore it there" if differs else "see whether the server is up and run again; what was fetched is kept"
        raise kind(f"cannot fetch {where}: {last} ({ATTEMPTS} attempts); {what}")

    def _open(self, name: str) -> tuple[Any, str]:
        import fsspec

        url = f"{self._folder}/{name}{self._query}"
        try:
            # fsspec keeps one instance for each process and set of options.
            return fsspec.url_to_fs(url, **_options(url.partition(":")[0]))
        except ImportError:
            raise UserError(f"{self.shown} needs what is not installed: pip install 'lewm[remote]'") from None
        except ValueError as error:
            raise UserError(f"{self.shown} is no URL that can be read: {without_secrets(str(error))}") from None


class _AtMost(Callback):
    """Ends a transfer that goes on after the announced size: it would fill the disk."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.count = limit, 0

    def relative_update(self, inc: int = 1) -> None:
        self.count += inc
        if self.count > self.limit:
            raise Differs(f"more than the {self.limit} bytes announced")


def _options(protocol: str) -> dict[str, Any]:
    """Timeouts, where the user's own settings of fsspec say nothing; S3's are shorter already."""
    from fsspec.config import conf

    if protocol not in ("http", "https") or "client_kwargs" in conf.get(protocol, {}):
        return {}
    try:
        from aiohttp import ClientTimeout
    except ImportError:  # said when the file system is opened
        return {}
    silence = ClientTimeout(total=None, sock_connect=SILENCE_S, sock_read=SILENCE_S)
    return {"client_kwargs": {"timeout": silence, "trust_env": True}}


def _some_ranges(fs: Any, url: str, spans: list[tuple[int, int]]) -> list[bytes]:
    lows, highs = zip(*spans, strict=True)
    found = fs.cat_ranges([url] * len(spans), list(lows), list(highs), on_error="return")
    for content in found:
        if isinstance(content, BaseException):
            raise content
    return [bytes(content) for content in found]


def _raise_unless_it_may_pass(error: Exception, where: str) -> None:
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        raise UnusableFile(f"{where} is not there; see whether the URL is a folder that `lewm convert` wrote") from None
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        raise error
    if isinstance(error, PermissionError) or status in (401, 403) or type(error).__name__ in FOR_GOOD:
        raise NotFetched(f"{where} may not be read ({_reason(error)}); see to the credentials or the rights") from None
    if isinstance(status, int) and 400 <= status < 500 and status not in PASSING:
        raise NotFetched(f"{where} is refused by the server ({_reason(error)}); see to the URL") from None
    if not isinstance(error, (OSError, Differs)) and not of_the_network(error):
        raise error


def of_the_network(error: Exception) -> bool:
    """Whether an error is one of the packages that speak HTTP and S3."""
    return bool({kind.__module__.partition(".")[0] for kind in type(error).__mro__} & NETWORK)


def _reason(error: Exception) -> str:
    status, message = getattr(error, "status", None), getattr(error, "message", "")
    if isinstance(status, int):
        return f"{status} {message}".strip()
    text = without_secrets(" ".join(str(error).split()))
    return text if text and isinstance(error, Differs) else f"{type(error).__name__}: {text}".rstrip(": ")
