"""ASGI middleware that authorizes requests, sets the current caller, and removes credentials."""

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from bento.access.access_control import AccessControl
from bento.access.access_denied import AccessDenied
from bento.access.credentials import CREDENTIAL_HEADERS
from bento.access.roles import PROBE_PATHS
from bento.context import current_caller
from bento.problems import Problem


class AccessMiddleware:
    """ASGI middleware that passes an authorized request on without its credentials and answers every other request with a refusal.

    Parameters
    ----------
    app
        Application that answers authorized requests.
    find_access
        Returns the worker's access rules; None before the service starts, because the application is built before the service.
    """

    def __init__(self, app: ASGIApp, find_access: Callable[[], AccessControl | None]) -> None:
        self.app = app
        self._find_access = find_access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # the service has no websocket
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # answered as GET; the server leaves out the body
            scope = {**scope, "method": "GET"}
        if scope["path"] in PROBE_PATHS:
            if scope["method"] == "GET":
                await self.app(scope, receive, send)
            else:
                await AccessDenied.no_route(Problem.from_status(405), ("GET", "HEAD")).send_answer(send)
            return
        access = self._find_access()
        try:
            if access is None:
                raise Problem.from_status(503)
            caller = await access.authorize(scope)
        except AccessDenied as refusal:
            await refusal.send_answer(send)
            return
        except Problem as problem:
            await AccessDenied("unknown", problem).send_answer(send)
            return
        current_caller.set(caller)
        headers = [header for header in scope["headers"] if header[0] not in CREDENTIAL_HEADERS]
        await self.app({**scope, "headers": headers}, receive, send)
