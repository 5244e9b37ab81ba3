"""Whether the service lives, is ready, and is about to go: `/livez`, `/readyz`, and what happens at SIGTERM.

These answer before BentoML's own routes of the same names, so that they need no credentials, say which part is not ready, and tell a load
balancer to send no more requests while those that come all the same are still answered.
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

REMEMBERED_S = 2.0
"""Seconds for which the answer of `/readyz` holds, so that asking it often costs nothing."""

Parts = Mapping[str, str | None]
"""Part of the service -> what is wrong with it, as a sentence that names nobody; None where nothing is."""


class Health:
    """ASGI middleware: answers `/livez` and `/readyz`, and drains at SIGTERM.

    At SIGTERM `/readyz` turns 503 at once. For `drain_s` seconds requests are answered as before, each connection being closed after its
    answer, so that clients and balancers go elsewhere. Then the server's own handler of the signal ends it: it takes no more connections
    and waits for the requests in flight. A second SIGTERM ends the drain.

    Parameters
    ----------
    app
        What answers everything else.
    parts
        Asks every part of the service; None while there is no service yet.
    drain_s
        Seconds between SIGTERM and the end of accepting: longer than a load balancer needs to notice.
    clock
        Tells seconds.
    """

    def __init__(self, app: ASGIApp, parts: Callable[[], Parts | None], drain_s: float, clock: Callable[[], float] = monotonic) -> None:
        self.app = app
        self.draining = False
        self._parts = parts
        self._drain_s = drain_s
        self._clock = clock
        self._asked: tuple[float, Parts | None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._starting(send))
        elif scope["type"] == "http" and scope["path"] in ("/livez", "/readyz"):
            await self._answer(send, *(self._ready() if scope["path"] == "/readyz" else (200, b'{"status":"alive"}')))
        else:
            await self.app(scope, receive, self._leaving(send) if self.draining else send)

    def _ready(self) -> tuple[int, bytes]:
        """Status and body: every part, or the envelope that names those that fail."""
        parts: Parts | None = {"service": "It is shutting down."} if self.draining else self._look()
        parts = {"service": "It is starting."} if parts is None else parts
        wrong = [FieldError(field=part, reason=reason) for part, reason in parts.items() if reason is not None]
        if wrong:
            problem = Problem(503, "not_ready", "The service cannot answer; `fields` says which part of it.", wrong)
            return 503, problem.body(request_id.get())
        return 200, json.dumps({"status": "ready", "parts": list(parts)}).encode()

    def _look(self) -> Parts | None:
        now = self._clock()
        if self._asked is None or now - self._asked[0] > REMEMBERED_S or self._asked[1] is None:
            self._asked = now, self._parts()
        return self._asked[1]

    async def _answer(self, send: Send, status: int, body: bytes) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _leaving(self, send: Send) -> Send:
        """Ask the client to open its next connection elsewhere."""

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        return closing

    def _starting(self, send: Send) -> Send:
        """Stand before the server's own handler of SIGTERM once it has one, which is when the application has started."""

        async def started(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete" and threading.current_thread() is threading.main_thread():
                self._stand_before(signal.getsignal(signal.SIGTERM), asyncio.get_running_loop())
            await send(message)

        return started

    def _stand_before(self, server: Any, loop: asyncio.AbstractEventLoop) -> None:
        if not callable(server) or not self._drain_s:
            return

        def drain(number: int, frame: FrameType | None) -> None:
            if self.draining:
                server(number, frame)
                return
            self.draining = True
            loop.call_soon_threadsafe(loop.call_later, self._drain_s, server, number, None)
            loop.call_soon_threadsafe(logger.info, "SIGTERM: no longer ready; ending in %g seconds", self._drain_s)

        signal.signal(signal.SIGTERM, drain)
