"""What the service says about itself and what can be looked up: routes, the OpenAPI document and the page that renders it.

The routes that score are BentoML's, those that look up are FastAPI's; both stand in one document, made from the same types that
check the requests. Every example in it can be sent as it stands, once the store knows the customer that it names. Nothing is loaded from
elsewhere: the Swagger UI comes in BentoML's own wheel, which serves it at `/static_content`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints
from weakref import WeakKeyDictionary

from fastapi import Body, FastAPI, Request
from fastapi import Path as PathParameter
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles

from bento.errors import answering
from bento.paths import RISK_SCORES, customer_of
from schemas.api import ErrorEnvelope, Identifier, ModelList, ModelMetrics, RiskScores

STATIC = Path(__file__).with_name("static")
SUMMARY = "Personal-finance risk decisions, each with its score, the contributions that sum to it, and reasons in words."
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"
_HEADERS = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_CUSTOMER: Any = {"customer": {"summary": "A customer of the ledger", "value": "123"}}
_FAILURES: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorEnvelope, "description": "Any failure"}}


def application() -> FastAPI:
    """The FastAPI application beside the scoring routes: pages and look-ups."""
    app = FastAPI(title="finrisk", openapi_url=None, docs_url=None, redoc_url=None)
    page = (STATIC / "docs.html").read_text(encoding="utf-8")
    documents: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()

    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers=_HEADERS)

    async def openapi() -> JSONResponse:
        service = _service()
        if service not in documents:
            documents[service] = openapi_document(app, service.bento_service, service.typical_features())
        return JSONResponse(documents[service])

    @answering
    async def models() -> ModelList:
        """Which models answer here, with every feature they take, and why others are missing."""
        return _service().models()

    @answering
    async def model_metrics() -> ModelMetrics:
        """What each model showed on its frozen test window and, where the true probabilities are known, beside them."""
        return _service().metrics()

    @answering
    async def risk_scores(request: Request, customer_id: Annotated[Identifier, PathParameter(openapi_examples=_CUSTOMER)]) -> RiskScores:
        """The newest score of a customer in every domain, as the batch stored it when the ledger was last loaded."""
        return _service().risk_scores(customer_of(request.scope))

    for path, look_up, answer in (
        ("/v1/models", models, ModelList),
        ("/v1/model-metrics", model_metrics, ModelMetrics),
        (RISK_SCORES, risk_scores, RiskScores),
    ):
        app.add_api_route(path, look_up, response_model=answer, responses=_FAILURES, tags=["look up"])
    app.add_api_route("/", docs, include_in_schema=False)
    app.add_api_route("/docs", docs, include_in_schema=False)
    app.add_api_route("/openapi.json", openapi, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def _service() -> Any:
    """The service of this process."""
    import bentoml

    return bentoml.get_current_service()


def openapi_document(app: FastAPI, service: Any, typical: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    """Describe the look-ups of `app` and the scoring routes of a BentoML service in one OpenAPI 3.1 document.

    `typical` holds features of nobody by domain, for the examples.
    """
    scoring = [_operation(method, typical) for method in service.apis.values()]
    lookups = [route for route in app.routes if isinstance(route, APIRoute)]
    version = service.bento.tag.version if service.bento else "source"
    return get_openapi(title="finrisk", version=version, summary=SUMMARY, routes=[*scoring, *lookups])


def _operation(method: Any, typical: Mapping[str, Mapping[str, float | None]]) -> APIRoute:
    """A route for the document only: it has the types and the words of a BentoML method."""
    hints = get_type_hints(method.func)
    answer = hints.pop("return")
    (request,) = hints.values()
    examples = _examples(request, typical.get(method.route.split("/")[2].replace("-", "_")))

    async def operation(body: Annotated[request, Body(openapi_examples=examples)]) -> None:  # type: ignore[valid-type]
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


def _examples(request: Any, features: Mapping[str, float | None] | None) -> dict[str, Any]:
    """The examples of a request in OpenAPI's words; those by features need a model that says which."""
    bodies = {
        summary: body | {"features": dict(features)} if "features" in body and features else body
        for summary, body in request.examples.items()
        if "features" not in body or features
    }
    return {f"example_{at}": {"summary": summary, "value": body} for at, (summary, body) in enumerate(bodies.items(), 1)}
