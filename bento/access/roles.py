"""Which role may call which route: the one table. A route that does not stand in it is refused to everybody.

What a role is for stands in docs/access.md, whose table is checked against this one.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from bento.context import ROLES
from bento.problems import Problem

OPEN: frozenset[str] = frozenset()
"""Nobody needs a credential: the route tells nothing of a person, a model or a decision."""
ANY = ROLES
"""Any role will do, but somebody must be known to ask."""


class Route(NamedTuple):
    """One line of the table.

    Attributes
    ----------
    method, path
        As HTTP has them; what stands in braces is an identifier, of any characters.
    roles
        Those that may call it, or `OPEN`.
    """

    method: str
    path: str
    roles: frozenset[str]


def _for(*roles: str) -> frozenset[str]:
    """These roles, and `admin`, who may do everything."""
    return frozenset({"admin", *roles})


_SCORING = ("transactions", "loan-default", "spending-risk", "cashflow", "loan-offers")

ROUTES: tuple[Route, ...] = (
    # An orchestrator's probes, which have no credentials.
    Route("GET", "/livez", OPEN),
    Route("GET", "/healthz", OPEN),
    Route("GET", "/readyz", OPEN),
    # The page and what it is drawn with. The document itself names every feature of the models, so it is not open.
    Route("GET", "/", OPEN),
    Route("GET", "/docs", OPEN),
    Route("GET", "/static/{file}", OPEN),
    Route("GET", "/static_content/{file}", OPEN),
    Route("GET", "/openapi.json", ANY),
    Route("GET", "/docs.json", ANY),
    Route("GET", "/schema.json", ANY),
    # Counts of requests and scores, without a person. Prometheus sends a key like everybody.
    Route("GET", "/metrics", ANY),
    Route("GET", "/v1/models", ANY),
    Route("GET", "/v1/model-metrics", ANY),
    # Decisions.
    *(Route("POST", f"/v1/{domain}", _for("scorer")) for domain in _SCORING),
    *(Route("POST", f"/v1/{domain}/batch", _for("scorer")) for domain in _SCORING),
    Route("POST", "/v1/loan-default/nearest-change", _for("scorer", "analyst")),
    Route("GET", "/v1/risk-scores/{customer_id}", _for("scorer", "analyst")),
    Route("POST", "/v1/feedback", _for("analyst")),
    # What was done here, and what is known of a person.
    Route("GET", "/v1/audit", _for("auditor")),
    Route("GET", "/v1/people/{customer_id}/export", _for("privacy")),
    Route("DELETE", "/v1/people/{customer_id}", _for("privacy")),
)


class RoleTable:
    """The table as it is asked for each request.

    Parameters
    ----------
    routes
        Its lines. Where several fit a path, a line without braces goes first, then the earlier one.
    """

    def __init__(self, routes: Iterable[Route] = ROUTES) -> None:
        self._exact: dict[str, dict[str, Route]] = {}
        patterns: dict[str, dict[str, Route]] = {}
        for route in routes:
            (patterns if "{" in route.path else self._exact).setdefault(route.path, {})[route.method] = route
        self._patterns = [(_pattern(path), path, methods) for path, methods in patterns.items()]

    def line(self, method: str, path: str) -> Route:
        """The line of a request.

        Raises
        ------
        Problem
            404 where the table has no such path, 405 where it has it with other methods.
        """
        method = "GET" if method == "HEAD" else method
        fitting = self._fitting(path)
        for methods in fitting:
            if method in methods:
                return methods[method]
        raise Problem.of(405 if fitting else 404)

    def methods(self, path: str) -> list[str]:
        """The methods that the table has for a path."""
        return sorted({method for methods in self._fitting(path) for method in methods})

    def template(self, path: str) -> str:
        """The path of its line, as it may be counted and logged: identifiers stay in braces; ``other`` where the table has none."""
        if path in self._exact:
            return path
        return next((template for pattern, template, _ in self._patterns if pattern.fullmatch(path)), "other")

    def _fitting(self, path: str) -> list[dict[str, Route]]:
        exact = self._exact.get(path)
        if exact is not None:
            return [exact]
        return [methods for pattern, _, methods in self._patterns if pattern.fullmatch(path)]


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile("".join(".+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{[^}]*\})", path)), re.DOTALL)
