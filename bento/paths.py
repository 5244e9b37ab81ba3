"""Paths that name a customer, kept out of what is counted.

BentoML counts requests by path, on a page that everybody may read: a customer has no place there. So the identifier is taken out of
the path before BentoML sees it, and handed to the route beside it.
"""

from collections.abc import Mapping
from typing import Any

from bento.errors import App, Receive, Scope, Send

RISK_SCORES = "/v1/risk-scores/{customer_id}"
"""The route, and what stands in the place of its path."""

_PREFIX = RISK_SCORES.partition("{")[0]
_NAMED = "finrisk.customer_id"


class UnnamedPaths:
    """ASGI middleware: the path of a look-up without the customer that it names."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and path.startswith(_PREFIX) and path != _PREFIX:
            named = {_NAMED: path.removeprefix(_PREFIX)}
            scope = dict(scope) | {"path": RISK_SCORES, "raw_path": RISK_SCORES.encode()} | named
        await self.app(scope, receive, send)


def customer_of(scope: Mapping[str, Any]) -> str:
    """The customer that the path of a request named."""
    return str(scope[_NAMED])
