"""The worker's own `/livez`, `/readyz` and `/metrics`, in a thread of their own. They ask for no key and name nobody."""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from time import monotonic

from bento.problems import Problem
from bento.stream.kafka_clients import StreamError
from bento.web.health import READINESS_TTL_S, PartFaults
from schemas.api import FieldError

REQUEST_TIMEOUT_S = 5.0
"""Seconds for which a connection may send nothing."""


class ProbeServer:
    """An HTTP server of probes and metrics.

    Parameters
    ----------
    address
        Host and port to listen on.
    find_faults
        Returns the fault of each part of the worker.
    is_alive
        Returns whether the worker's loop goes round.
    render_metrics
        Returns the metrics' page and its content type.

    Raises
    ------
    StreamError
        Where the port is taken, or the address is not of this machine.
    """

    def __init__(
        self,
        address: tuple[str, int],
        find_faults: Callable[[], PartFaults],
        is_alive: Callable[[], bool],
        render_metrics: Callable[[], tuple[bytes, str]],
    ) -> None:
        self._find_faults = find_faults
        self._is_alive = is_alive
        self._render_metrics = render_metrics
        self._last_check: tuple[float, PartFaults] | None = None
        self._lock = Lock()
        try:
            self._server = ThreadingHTTPServer(address, self._handler())
        except OSError as error:
            message = f"the worker cannot listen on {address[0]}, port {address[1]}: {error.strerror}"
            raise StreamError(f"{message}; set another FINRISK_STREAM_PORT, or FINRISK_STREAM_HOST") from None
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="finrisk-probes", daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End the server and its thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str) -> tuple[int, bytes, str]:
        """Return status, body and content type of a path."""
        kind = "application/json"
        if path == "/metrics":
            return 200, *self._render_metrics()
        if path == "/livez":
            return (200, b'{"status":"alive"}', kind) if self._is_alive() else (503, b'{"status":"stuck"}', kind)
        if path != "/readyz":
            return 404, Problem.from_status(404).to_json("-"), kind
        faults = self._cached_faults()
        fields = [FieldError(field=part, reason=fault) for part, fault in faults.items() if fault is not None]
        if fields:
            return 503, Problem(503, "not_ready", "The worker cannot decide; `fields` says which part of it.", fields).to_json("-"), kind
        return 200, json.dumps({"status": "ready", "parts": list(faults)}).encode(), kind

    def _cached_faults(self) -> PartFaults:
        with self._lock:
            if self._last_check is None or monotonic() - self._last_check[0] > READINESS_TTL_S:
                faults = self._find_faults()
                self._last_check = monotonic(), faults
            return self._last_check[1]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Probe(BaseHTTPRequestHandler):
            timeout = REQUEST_TIMEOUT_S

            def do_GET(self) -> None:
                status, body, kind = server.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Write no line for each probe."""

        return Probe
