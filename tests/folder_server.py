"""A folder served over HTTP on loopback, by a server that counts what is asked for and fails as it is told."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FOREVER = 99


class FolderServer(ThreadingHTTPServer):
    """`faults[name]` is what the next answers for that file are: a status, or half, wrong, silent, endless, reset."""

    daemon_threads = True

    def __init__(self, folder: Path, *, ranges: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.ranges = folder, ranges
        self.faults: dict[str, list[str]] = {}
        self.whole: Counter[str] = Counter()  # requests for a file
        self.parts: Counter[str] = Counter()  # requests for a range of one
        self.heard: list[tuple[str, str | None]] = []  # path with query, and Authorization
        self.gate = threading.Event()  # what is silent goes on when it is set
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error here."""


class _Handler(BaseHTTPRequestHandler):
    server: FolderServer

    def do_GET(self) -> None:
        server, name = self.server, self.path.partition("?")[0].rpartition("/")[2]
        asked = self.headers.get("Range") if server.ranges else None
        with server.lock:
            (server.parts if asked else server.whole)[name] += 1
            server.heard.append((self.path, self.headers.get("Authorization")))
            faults = server.faults.get(name, [])
            fault = faults.pop(0) if faults else ""
        path = server.folder / name
        if fault.isdigit() or not path.is_file():
            self.send_error(int(fault) if fault else 404)
            return
        content = path.read_bytes()
        if asked:
            low, high = asked.removeprefix("bytes=").split("-")
            content = content[int(low) : int(high) + 1]
        self._answer(content, 206 if asked else 200, fault)

    def _answer(self, content: bytes, status: int, fault: str) -> None:
        if fault == "silent":
            self.server.gate.wait(20)
        if fault == "reset":
            self.connection.close()
            return
        self.send_response(status)
        if fault != "endless":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "wrong":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if fault == "half":
            content = content[: len(content) // 2]
        self.wfile.write(content)
        while fault == "endless":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""


@contextmanager
def serving(folder: Path, **changes: Any) -> Iterator[FolderServer]:
    """The server, until the block ends."""
    server = FolderServer(folder, **changes)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
