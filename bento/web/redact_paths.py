"""Redaction of paths that name a customer.

Layers below count, log or trace a request by its path, where a customer's identifier does not belong. The middleware takes the identifier
out of the path before any of them sees the request, and passes it on in the scope.

A path is read as it was sent: an identifier is one percent-encoded segment, so that a customer named ``5/export`` is
``/v1/people/5%2Fexport`` and no other route. Elsewhere in a path an escape fits no route.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from starlette.types import ASGIApp, Receive, Scope, Send

RISK_SCORES = "/v1/risk-scores/{customer_id}"
EXPORT = "/v1/people/{customer_id}/export"
PERSON = "/v1/people/{customer_id}"
_CUSTOMER_KEY = "finrisk.customer_id"
_TEMPLATES = tuple((path, *path.split("{customer_id}")) for path in (RISK_SCORES, EXPORT, PERSON))
"""Templates of the routes, each with its parts before and after the identifier."""


class RedactCustomerPath:
    """ASGI middleware that replaces a path that names a customer by the template of its route."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = _read_raw_path(scope)
            template, segment = _split_path(path)
            if template != scope["path"]:
                scope = {**scope, "path": template, "raw_path": template.encode()}
            if segment is not None:
                # A byte that is no UTF-8 becomes a surrogate, which no stored identifier has.
                scope[_CUSTOMER_KEY] = unquote(segment, errors="surrogateescape")
        await self.app(scope, receive, send)


def find_customer_id(scope: Mapping[str, Any]) -> str:
    """Return the customer's identifier that the path of a request named."""
    return str(scope[_CUSTOMER_KEY])


def _read_raw_path(scope: Scope) -> str:
    """Return the path with its escapes."""
    raw_path = scope.get("raw_path")
    return raw_path.decode("latin-1") if raw_path else quote(scope["path"])


def _split_path(path: str) -> tuple[str, str | None]:
    """Return the template of a path and the segment that names a customer; the path itself and None where no route names a customer."""
    for template, before, after in _TEMPLATES:
        if path.startswith(before) and path.endswith(after):
            segment = path[len(before) : len(path) - len(after)]
            if segment and "/" not in segment:
                return template, segment
    return path, None
