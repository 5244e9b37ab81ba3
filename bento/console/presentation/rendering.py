"""Pages from templates: the environment, what every page has, and tables as CSV."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from bento.console.presentation.formats import Formats, humanise, label_feature
from bento.console.presentation.vega_bundle import has_bundle

ROLES = frozenset({"scorer", "analyst", "supervisor", "auditor", "privacy", "admin"})
"""Roles of the API's callers."""
TEMPLATES = Path(__file__).parents[1] / "templates"
PAGES = (
    ("overview", "Overview", ROLES),
    ("alerts", "Alerts", frozenset({"analyst", "supervisor", "admin"})),
    ("person", "Person", frozenset({"scorer", "analyst", "admin"})),
    ("loan", "Loan and offer", frozenset({"scorer", "admin"})),
    ("models", "Models", ROLES),
    ("policy", "Policy", ROLES),
    ("audit", "Audit and privacy", frozenset({"auditor", "privacy", "admin"})),
)
"""Path, title and roles of each page. The API decides who may do what; a page without a role of the reader says so beside its link."""
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def build_environment() -> Environment:
    """Return the templates' environment: everything is escaped, and a name that is not there is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "humanise": humanise,
        "label": label_feature,
        "data": _to_data,
        **{name: _of_reader(name) for name in ("number", "amount", "share", "moment", "day", "feature")},
    }
    return environment


def _of_reader(name: str) -> Any:
    """Return a filter that writes a value in the formats of the page's reader."""

    @pass_context
    def write(context: Any, value: Any, *arguments: Any) -> str:
        return str(getattr(context["formats"], name)(value, *arguments))

    return write


def _to_data(value: Any) -> Markup:
    """Return a value as JSON for a data block of a page, in which no text ends the block."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, default=str)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


class Renderer:
    """The templates, and what every page has."""

    def __init__(self) -> None:
        self._environment = build_environment()

    def page(self, request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
        """Return a page of a template for the reader of a request."""
        return HTMLResponse(self.fragment(request, template, **context), status)

    def fragment(self, request: Request, template: str, **context: Any) -> str:
        """Return a template as text; a notice of the session is shown once."""
        session = getattr(request.state, "session", None)
        notice = ""
        if session is not None:
            notice, session.notice = session.notice, ""
        shared = {
            "session": session,
            "csrf": "" if session is None else session.csrf,
            "pages": [(path, title, session is not None and bool(roles & session.roles)) for path, title, roles in PAGES],
            "notice": notice,
            "formats": Formats.of_header(request.headers.get("accept-language", "")),
            "has_charts": has_bundle(),
            "here": request.url.path.removeprefix("/console").strip("/").partition("/")[0],
        }
        return self._environment.get_template(template).render(shared | context)


def build_csv(name: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Response:
    """Return a table as a CSV file. A text that a spreadsheet would take for a formula gets an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_plain(row.get(column)) for column in columns])
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def _plain(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value
