"""What the service says about itself and what can be looked up: routes, the OpenAPI document and the page that renders it.

The routes that score are BentoML's, those that look up are FastAPI's; both stand in one document, made from the same types that
check the requests. Every example in it can be sent as it stands, once the store knows the customer that it names. Nothing is loaded from
elsewhere: the Swagger UI comes in BentoML's own wheel, which serves it at `/static_content`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints
from weakref import WeakKeyDictionary

from fastapi import Body, FastAPI, Query, Request
from fastapi import Path as PathParameter
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles

from bento.problems import answering
from bento.web import metrics
from bento.web.redact_paths import EXPORT, PERSON, RISK_SCORES, customer_of
from schemas.api import AuditPage, AuditQuery, Erasure, ErrorEnvelope, Identifier, ModelList, ModelMetrics, PersonExport, RiskScores

STATIC = Path(__file__).with_name("static")
SUMMARY = "Personal-finance risk decisions, each with its score, the contributions that sum to it, and reasons in words."
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"
_HEADERS = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_CUSTOMER: Any = {"customer": {"summary": "A customer of the ledger", "value": "123"}}
Customer = Annotated[Identifier, PathParameter(openapi_examples=_CUSTOMER)]
_FAILURES: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorEnvelope, "description": "Any failure"}}

_CREDENTIALS: dict[str, dict[str, str]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key or a token of the identity provider."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
}


def application() -> FastAPI:
    """The FastAPI application beside the scoring routes: pages and look-ups."""
    app = FastAPI(title="finrisk", openapi_url=None, docs_url=None, redoc_url=None)
    page = (STATIC / "docs.html").read_text(encoding="utf-8")
    documents: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()

    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers=_HEADERS)

    async def counted() -> Response:
        return Response(await run_in_threadpool(metrics.page), media_type=metrics.CONTENT_TYPE)

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
    async def risk_scores(request: Request, customer_id: Customer) -> RiskScores:
        """The newest score of a customer in every domain, as the batch stored it when the ledger was last loaded."""
        return _service().risk_scores(customer_of(request.scope))

    @answering
    async def export_person(request: Request, customer_id: Customer, response: Response) -> PersonExport:
        """Everything that is held of a person, in plain text. Who asked, and when, goes into the audit.

        Kept are transactions, because features are computed from them; decisions with what they were made of, because a decision must
        be explained and made again for as long as it can be questioned; the newest scores, because requests by customer need them; what
        analysts recorded, because models learn from it. All of it is sealed under a key of the person's own, but for the times and
        amounts of transactions and the scores of decisions. `finrisk people retain` ends it by age.
        """
        response.headers["Cache-Control"] = "no-store"
        return _service().export_person(customer_of(request.scope))

    @answering
    async def erase_person(request: Request, customer_id: Customer) -> Erasure:
        """Erase a person. It cannot be undone.

        The key that seals the person's data is deleted, and the look-up, transactions, scores and feedback with it. Decisions and the
        audit stay as they are, and nobody can read any more what they were about. The ledger is not touched: erase there first, or
        the next load brings back what it holds.
        """
        return _service().erase_person(customer_of(request.scope))

    @answering
    async def audit(asked: Annotated[AuditQuery, Query()]) -> AuditPage:
        """Who did what, and when, the newest first. That it was read is recorded too."""
        return _service().audit_page(asked)

    for path, look_up, answer in (
        ("/v1/models", models, ModelList),
        ("/v1/model-metrics", model_metrics, ModelMetrics),
        (RISK_SCORES, risk_scores, RiskScores),
        (EXPORT, export_person, PersonExport),
        ("/v1/audit", audit, AuditPage),
    ):
        app.add_api_route(path, look_up, response_model=answer, responses=_FAILURES, tags=["look up"])
    app.add_api_route(PERSON, erase_person, methods=["DELETE"], response_model=Erasure, responses=_FAILURES, tags=["people"])
    app.add_api_route("/", docs, include_in_schema=False)
    app.add_api_route("/metrics", counted, include_in_schema=False)
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
    scoring = [_operation(method) for method in service.apis.values()]
    lookups = [route for route in app.routes if isinstance(route, APIRoute)]
    version = service.bento.tag.version if service.bento else "source"
    document = get_openapi(title="finrisk", version=version, summary=SUMMARY, routes=[*scoring, *lookups])
    for method in service.apis.values():
        # Put in afterwards, because FastAPI leaves every null out: in features it says that one is not known.
        content = document["paths"][method.route]["post"]["requestBody"]["content"]["application/json"]
        content["examples"] = _examples(_types(method)[0], typical.get(_domain(method)))
    document["components"]["securitySchemes"] = _CREDENTIALS
    document["security"] = [{name: []} for name in _CREDENTIALS] + [{}]  # nothing where the service is open to its own machine
    return document


def _types(method: Any) -> tuple[Any, Any]:
    """The types of a BentoML method's request and of its answer."""
    hints = get_type_hints(method.func)
    answer = hints.pop("return")
    (request,) = hints.values()
    return request, answer


def _domain(method: Any) -> str:
    return str(method.route.split("/")[2].replace("-", "_"))


def _operation(method: Any) -> APIRoute:
    """A route for the document only: it has the types and the words of a BentoML method."""
    request, answer = _types(method)

    async def operation(body: Annotated[request, Body()]) -> None:  # type: ignore[valid-type]
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
    bodies = {summary: _filled(body, features) for summary, body in request.examples.items()}
    bodies = {summary: body for summary, body in bodies.items() if body}
    return {f"example_{at}": {"summary": summary, "value": body} for at, (summary, body) in enumerate(bodies.items(), 1)}


def _filled(body: Mapping[str, Any], features: Mapping[str, float | None] | None) -> Mapping[str, Any] | None:
    """A body with features of nobody where it has features, in the items of a batch too; None where no model says which."""
    if "items" in body:
        items = [filled for item in body["items"] if (filled := _filled(item, features)) is not None]
        return {"items": items} if items else None
    if "features" not in body:
        return body
    return {**body, "features": dict(features)} if features else None
