"""A proxy before a server on loopback, which loses it, cuts its answers or lets something happen between two requests."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LOST, CUT = "lost", "cut"
"""Faults of an answer: the connection ends without one, or in the middle of its body."""

_OF_A_CONNECTION = ("connection", "transfer-encoding", "content-length")
"""Headers of one connection, which are not handed on."""

Watch = Callable[[str, str], str | None]
"""Method and path of a request -> the fault of its answer, if any."""


class FaultProxy(ThreadingHTTPServer):
    """A proxy on a free port that hands requests on to a server, but for the faults that `watch` asks for."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = port
        self.watch: Watch | None = None
        self.requests: list[tuple[str, str]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *arguments: Any) -> None:
        """Say nothing of a client that has gone."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @contextmanager
    def watched(self, watch: Watch) -> Iterator[None]:
        """Let a function see every request before it is handed on, within the block."""
        self.watch = watch
        try:
            yield
        finally:
            self.watch = None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def log_message(self, *arguments: Any) -> None:
        """Log nothing."""

    def _hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if "chunked" in self.headers.get("transfer-encoding", ""):
            body = b"".join(self._chunks())
        self.server.requests.append((self.command, self.path))
        fault = self.server.watch(self.command, self.path) if self.server.watch else None
        if fault == LOST:
            self.close_connection = True
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_A_CONNECTION}
        upstream.request(self.command, self.path, body, headers | {"content-length": str(len(body))})
        answer = upstream.getresponse()
        content = answer.read()
        self.send_response(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in (*_OF_A_CONNECTION, "server", "date"):
                self.send_header(name, value)
        length = answer.getheader("content-length") if self.command == "HEAD" else len(content)
        self.send_header("content-length", str(length or 0))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if fault == CUT else content)
        self.close_connection = fault == CUT
        upstream.close()

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _hand_on


@dataclass
class ObjectServer:
    """A server behind its proxy, and how a bucket of it is made."""

    scheme: str
    proxy: FaultProxy
    make_bucket: Callable[[str], None]
