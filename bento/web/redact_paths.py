"""Redaction of paths that name a customer.

BentoML counts requests by path, on a page that other people may read, where a customer's identifier does not belong. The middleware takes
the identifier out of the path before BentoML sees the request, and passes it on in the scope.
"""

from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

RISK_SCORES = "/v1/risk-scores/{customer_id}"
EXPORT = "/v1/people/{customer_id}/export"
PERSON = "/v1/people/{customer_id}"
_CUSTOMER_KEY = "finrisk.customer_id"
_TEMPLATES = tuple((path, *path.split("{customer_id}")) for path in (RISK_SCORES, EXPORT, PERSON))
"""Templates of the routes, each with its parts before and after the identifier. The first match counts."""


class RedactCustomerPath:
    """ASGI middleware that replaces a path that names a customer by the template of its route."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and path.startswith("/v1/"):
            for template, before, after in _TEMPLATES:
                if path.startswith(before) and path.endswith(after) and len(path) > len(before) + len(after):
                    customer_id = path[len(before) : len(path) - len(after)]
                    scope = dict(scope) | {"path": template, "raw_path": template.encode(), _CUSTOMER_KEY: customer_id}
                    break
        await self.app(scope, receive, send)


def find_customer_id(scope: Mapping[str, Any]) -> str:
    """Return the customer's identifier that the path of a request named."""
    return str(scope[_CUSTOMER_KEY])
