"""Paths that name a customer, kept out of what is counted.

BentoML counts requests by path, on a page that others may read: a customer has no place there. So the identifier is taken out of the
path before BentoML sees it, and handed to the route beside it.
"""

from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

RISK_SCORES = "/v1/risk-scores/{customer_id}"
EXPORT = "/v1/people/{customer_id}/export"
PERSON = "/v1/people/{customer_id}"
_NAMED = "finrisk.customer_id"
_TEMPLATES = tuple((path, *path.split("{customer_id}")) for path in (RISK_SCORES, EXPORT, PERSON))
"""The routes: what stands in the place of their paths, and what goes before and after the customer. The first that fits counts."""


class RedactCustomerPath:
    """ASGI middleware: the path of a route without the customer that it names."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and path.startswith("/v1/"):
            for template, before, after in _TEMPLATES:
                if path.startswith(before) and path.endswith(after) and len(path) > len(before) + len(after):
                    named = {_NAMED: path[len(before) : len(path) - len(after)]}
                    scope = dict(scope) | {"path": template, "raw_path": template.encode()} | named
                    break
        await self.app(scope, receive, send)


def customer_of(scope: Mapping[str, Any]) -> str:
    """The customer that the path of a request named."""
    return str(scope[_NAMED])
