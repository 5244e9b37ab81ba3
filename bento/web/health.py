"""Health of the service: `/livez`, `/readyz`, and the drain after SIGTERM.

The middleware answers before BentoML's own routes of the same names. So the probes need no credentials, `/readyz` says which part is not
ready, and a load balancer stops sending requests while the requests that still come are answered.
"""

import asyncio
import json
import logging
import signal
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from types import FrameType
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bento.context import request_id
from bento.problems import Problem
from schemas.api import FieldError

logger = logging.getLogger("finrisk.service")

READINESS_TTL_S = 1.0
"""Seconds for which the answer of `/readyz` is cached. A longer time costs less and shows a fault later."""

PartFaults = Mapping[str, str | None]
"""Part of the service -> its fault, as a sentence that names no person; None where the part is ready."""


class Health:
    """ASGI middleware that answers `/livez` and `/readyz`, and drains the service after SIGTERM.

    At SIGTERM `/readyz` turns 503 at once. For `drain_s` seconds requests are still answered, and each connection is closed after its
    answer, so that clients and load balancers turn to another instance. Then the server's own handler of the signal ends the service: the
    server accepts no more connections and waits for the requests in flight. A second SIGTERM ends the drain.

    Parameters
    ----------
    app
        Application that answers every other path.
    find_faults
        Returns the fault of each part of the service; None before the service starts.
    drain_s
        Seconds between SIGTERM and the end of accepting: more than a load balancer needs to notice.
    clock
        Seconds of a clock that never goes back.
    """

    def __init__(
        self, app: ASGIApp, find_faults: Callable[[], PartFaults | None], drain_s: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self.app = app
        self.is_draining = False
        self._find_faults = find_faults
        self._drain_s = drain_s
        self._clock = clock
        self._last_check: tuple[float, PartFaults | None] | None = None
        self._lock = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._install_drain_at_startup(send))
        elif scope["type"] == "http" and scope["path"] == "/readyz":
            await _send_json(send, *await self._check_readiness())
        elif scope["type"] == "http" and scope["path"] == "/livez":
            await _send_json(send, 200, b'{"status":"alive"}')
        else:
            await self.app(scope, receive, _close_connection(send) if self.is_draining else send)

    async def _check_readiness(self) -> tuple[int, bytes]:
        """Return the status and the body of `/readyz`: all parts, or an error envelope with the faults."""
        faults: PartFaults | None = {"service": "It is shutting down."} if self.is_draining else await self._cached_faults()
        faults = {"service": "It is starting."} if faults is None else faults
        fields = [FieldError(field=part, reason=fault) for part, fault in faults.items() if fault is not None]
        if fields:
            problem = Problem(503, "not_ready", "The service cannot answer; `fields` says which part of it.", fields)
            return 503, problem.to_json(request_id.get())
        return 200, json.dumps({"status": "ready", "parts": list(faults)}).encode()

    async def _cached_faults(self) -> PartFaults | None:
        """Return the faults, found anew where the last ones are too old: in a thread, and once for all who ask meanwhile."""
        async with self._lock:
            if self._last_check is None or self._clock() - self._last_check[0] > READINESS_TTL_S or self._last_check[1] is None:
                found = await asyncio.to_thread(self._find_faults)
                self._last_check = self._clock(), found
            return self._last_check[1]

    def _install_drain_at_startup(self, send: Send) -> Send:
        """Install the drain when the application has started, which is when the server has its own handler of SIGTERM."""

        async def send_after_install(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete" and threading.current_thread() is threading.main_thread():
                self._install_drain(signal.getsignal(signal.SIGTERM), asyncio.get_running_loop())
            await send(message)

        return send_after_install

    def _install_drain(self, server_handler: Any, loop: asyncio.AbstractEventLoop) -> None:
        """Handle SIGTERM before the server's own handler does."""
        if not callable(server_handler) or not self._drain_s:
            return

        def drain(number: int, frame: FrameType | None) -> None:
            if self.is_draining:
                server_handler(number, frame)
                return
            self.is_draining = True
            loop.call_soon_threadsafe(loop.call_later, self._drain_s, server_handler, number, None)
            loop.call_soon_threadsafe(logger.info, "SIGTERM: no longer ready; ending in %g seconds", self._drain_s)

        signal.signal(signal.SIGTERM, drain)


async def _send_json(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _close_connection(send: Send) -> Send:
    """Tell the client to open its next connection to another instance."""

    async def send_with_close(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await send(message)

    return send_with_close
