"""What the service says about itself: its OpenAPI document and the page that renders it. Nothing is loaded from elsewhere.

The routes that score are BentoML's, those that look up are FastAPI's; both stand in one document, made from the same types that
check the requests. The Swagger UI comes in BentoML's own wheel, which serves it at `/static_content`.
"""

from pathlib import Path
from typing import Any, get_type_hints

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles

from schemas.api import ErrorEnvelope, ModelList

STATIC = Path(__file__).with_name("static")
SUMMARY = "Personal-finance risk decisions, each with its score, the contributions that sum to it, and reasons in words."
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"
_HEADERS = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_FAILURES: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorEnvelope, "description": "Any failure"}}


def application() -> FastAPI:
    """The FastAPI application beside the scoring routes: pages and look-ups."""
    app = FastAPI(title="finrisk", openapi_url=None, docs_url=None, redoc_url=None)
    page = (STATIC / "docs.html").read_text(encoding="utf-8")
    document: dict[str, Any] = {}

    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers=_HEADERS)

    async def openapi() -> JSONResponse:
        if not document:
            import bentoml

            document.update(openapi_document(app, bentoml.get_current_service().bento_service))
        return JSONResponse(document)

    async def models() -> ModelList:
        """Which models answer here, with every feature they take, and why others are missing."""
        import bentoml

        description: ModelList = bentoml.get_current_service().describe()
        return description

    app.add_api_route("/v1/models", models, response_model=ModelList, responses=_FAILURES, tags=["look up"])
    app.add_api_route("/", docs, include_in_schema=False)
    app.add_api_route("/docs", docs, include_in_schema=False)
    app.add_api_route("/openapi.json", openapi, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def openapi_document(app: FastAPI, service: Any) -> dict[str, Any]:
    """Describe the look-ups of `app` and the scoring routes of a BentoML service in one OpenAPI 3.1 document."""
    scoring = [_operation(method) for method in service.apis.values()]
    lookups = [route for route in app.routes if isinstance(route, APIRoute)]
    version = service.bento.tag.version if service.bento else "source"
    return get_openapi(title="finrisk", version=version, summary=SUMMARY, routes=[*scoring, *lookups])


def _operation(method: Any) -> APIRoute:
    """A route for the document only: it has the types and the words of a BentoML method."""
    hints = get_type_hints(method.func)
    answer = hints.pop("return")
    (request,) = hints.values()

    async def operation(body: request) -> None:  # type: ignore[valid-type]
        """Never called."""

    return APIRoute(
        method.route,
        operation,
        methods=["POST"],
        name=method.name,
        summary=method.name.replace("_", " ").capitalize(),
        description=method.func.__doc__,
        response_model=answer,
        responses=_FAILURES,
        tags=["score"],
    )
