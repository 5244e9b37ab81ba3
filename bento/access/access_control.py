"""ASGI middleware that lets a request pass where its caller may, and removes its credentials."""

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from bento.access.access import _CREDENTIALS, Access, AccessDenied
from bento.context import current
from bento.problems import Problem

_PROBES = frozenset({"/livez", "/healthz", "/readyz"})
"""Never limited: an orchestrator ends a process whose probes are refused, and others may share its address."""


class Security:
    """ASGI middleware: lets a request pass where who asks may, and says who it is.

    Parameters
    ----------
    access
        Gives the worker's `Access`, or None while there is none: the application is made before the service.
    """

    def __init__(self, app: ASGIApp, access: Callable[[], Access | None]) -> None:
        self.app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # nothing here speaks it
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self.app(scope, receive, send)
            return
        access = self._access()
        try:
            if access is None:
                raise Problem.of(503)
            caller = await access.admit(scope)
        except AccessDenied as refused:
            await refused.answer(send)
            return
        except Problem as problem:
            await AccessDenied("unknown", problem).answer(send)
            return
        current.set(caller)
        headers = [header for header in scope["headers"] if header[0] not in _CREDENTIALS]
        await self.app({**scope, "headers": headers}, receive, send)
