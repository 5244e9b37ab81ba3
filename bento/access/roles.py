"""The role table: the routes of the service, each with the roles that may call it. A route outside the table is refused to everyone.

docs/access.md says what each role is for; a test compares its table with this one.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from bento.context import ROLES
from bento.problems import Problem

OPEN: frozenset[str] = frozenset()
"""Roles of a route that needs no credential, because it shows nothing of a person, a model or a decision."""
ANY_ROLE = ROLES
"""Roles of a route that needs an authenticated caller of any role."""
PROBE_PATHS = ("/livez", "/healthz", "/readyz")
"""Paths of the probes: without access control, because an orchestrator has no credentials, and other clients may share its address."""
OTHER_ROUTE = "other"
"""Template of a path outside the table."""


class Route(NamedTuple):
    """One line of the table.

    Attributes
    ----------
    method, path
        Method and path template of HTTP. A part in braces is one segment.
    roles
        Roles that may call the route, or `OPEN`.
    """

    method: str
    path: str
    roles: frozenset[str]


def _with_admin(*roles: str) -> frozenset[str]:
    """Return these roles and `admin`, who may call every route."""
    return frozenset({"admin", *roles})


_SCORING = ("transactions", "loan-default", "spending-risk", "cashflow", "loan-offers")

ROUTES: tuple[Route, ...] = (
    *(Route("GET", path, OPEN) for path in PROBE_PATHS),
    # The documentation page and its files. The OpenAPI document is not open, because it names every feature of the models.
    Route("GET", "/", OPEN),
    Route("GET", "/docs", OPEN),
    Route("GET", "/static/{file}", OPEN),
    Route("GET", "/static_content/{file}", OPEN),
    Route("GET", "/openapi.json", ANY_ROLE),
    Route("GET", "/docs.json", ANY_ROLE),
    Route("GET", "/schema.json", ANY_ROLE),
    # Counts of requests and scores, without a person. Prometheus sends a key, too.
    Route("GET", "/metrics", ANY_ROLE),
    Route("GET", "/v1/models", ANY_ROLE),
    Route("GET", "/v1/model-metrics", ANY_ROLE),
    Route("GET", "/v1/model-cards", ANY_ROLE),
    Route("GET", "/v1/model-evidence/{domain}", ANY_ROLE),
    Route("GET", "/v1/policy", ANY_ROLE),
    Route("POST", "/v1/policy/preview", _with_admin("analyst", "auditor")),
    # Counts, without a person.
    Route("GET", "/v1/activity", ANY_ROLE),
    Route("GET", "/v1/activity/worth", ANY_ROLE),
    Route("GET", "/v1/caller", ANY_ROLE),
    # Decisions.
    *(Route("POST", f"/v1/{domain}", _with_admin("scorer")) for domain in _SCORING),
    *(Route("POST", f"/v1/{domain}/batch", _with_admin("scorer")) for domain in _SCORING),
    Route("POST", "/v1/loan-default/nearest-change", _with_admin("scorer", "analyst")),
    Route("POST", "/v1/loan-default/what-if", _with_admin("scorer", "analyst")),
    Route("POST", "/v1/spending-risk/what-if", _with_admin("scorer", "analyst")),
    Route("GET", "/v1/risk-scores/{customer_id}", _with_admin("scorer", "analyst")),
    Route("POST", "/v1/feedback", _with_admin("analyst")),
    # Alerts, and the decisions behind them.
    Route("GET", "/v1/alerts", _with_admin("analyst", "supervisor")),
    Route("GET", "/v1/alerts/capacity", _with_admin("analyst", "supervisor")),
    Route("GET", "/v1/alerts/{alert_id}", _with_admin("analyst", "supervisor")),
    Route("GET", "/v1/alerts/{alert_id}/usual", _with_admin("analyst", "supervisor")),
    Route("POST", "/v1/alerts/claim", _with_admin("analyst")),
    # An analyst releases its own claims, a supervisor everybody's: see `bento.alerts.alert_queue`.
    Route("POST", "/v1/alerts/release", _with_admin("analyst", "supervisor")),
    Route("POST", "/v1/alerts/dispose", _with_admin("analyst")),
    Route("POST", "/v1/alerts/dispose/bulk", _with_admin("analyst")),
    # The audit, and a person's data.
    Route("GET", "/v1/audit", _with_admin("auditor")),
    Route("GET", "/v1/audit/verification", _with_admin("auditor")),
    Route("GET", "/v1/decisions/{decision_id}/replay", _with_admin("auditor")),
    Route("GET", "/v1/people/{customer_id}/export", _with_admin("privacy")),
    Route("DELETE", "/v1/people/{customer_id}", _with_admin("privacy")),
)


class RoleTable:
    """The role table, indexed for look-ups by request.

    Parameters
    ----------
    routes
        Lines of the table. Where several lines match a path, a line without braces comes first, then the earlier line.
    """

    def __init__(self, routes: Iterable[Route] = ROUTES) -> None:
        self._exact: dict[str, dict[str, Route]] = {}
        patterns: dict[str, dict[str, Route]] = {}
        for route in routes:
            (patterns if "{" in route.path else self._exact).setdefault(route.path, {})[route.method] = route
        self._patterns = [(_compile_template(path), path, methods) for path, methods in patterns.items()]

    def find_route(self, method: str, path: str) -> Route:
        """Return the route of a request.

        Raises
        ------
        Problem
            404 if the table lacks the path, 405 if the table has the path with other methods.
        """
        matches = self._match(path)
        for methods in matches:
            if method in methods:
                return methods[method]
        raise Problem.from_status(405 if matches else 404)

    def allowed_methods(self, path: str) -> list[str]:
        """Return the methods that the table has for a path, and HEAD where it has GET."""
        methods = {method for methods in self._match(path) for method in methods}
        return sorted(methods | {"HEAD"} if "GET" in methods else methods)

    def is_open(self, method: str, path: str) -> bool:
        """Return whether a request needs no credential. A route outside the table needs one."""
        try:
            return self.find_route(method, path).roles is OPEN
        except Problem:
            return False

    def find_template(self, path: str) -> str:
        """Return the path template of a path, which holds no identifier and may be logged; `OTHER_ROUTE` outside the table."""
        if path in self._exact:
            return path
        return next((template for pattern, template, _ in self._patterns if pattern.fullmatch(path)), OTHER_ROUTE)

    def _match(self, path: str) -> list[dict[str, Route]]:
        """Return the routes of each matching template, by method."""
        exact = self._exact.get(path)
        if exact is not None:
            return [exact]
        return [methods for pattern, _, methods in self._patterns if pattern.fullmatch(path)]


def _compile_template(path: str) -> re.Pattern[str]:
    return re.compile("".join("[^/]+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{[^}]*\})", path)))
