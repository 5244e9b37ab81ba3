"""The look-up routes, the OpenAPI document of all routes, and the page that renders the document.

The scoring routes are BentoML's, the look-up routes are FastAPI's; both stand in one document, built from the types that validate the
requests. Every example of the document can be sent unchanged, once the store holds the customer that the example names. The page loads
nothing from other servers: the Swagger UI comes in BentoML's own wheel, which serves it at `/static_content`.

The docstrings of the look-up routes are their descriptions in the document.
"""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any
from weakref import WeakKeyDictionary

from fastapi import Body, FastAPI, Query, Request
from fastapi import Path as PathParameter
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles

from bento.decisions.domains import DOMAINS
from bento.problems import catch_problems
from bento.web.api_page.route_pages import complete_document
from bento.web.dispatch import request_and_answer_types
from bento.web.metrics import CONTENT_TYPE, render_metrics
from bento.web.redact_paths import EXPORT, PERSON, RISK_SCORES, find_customer_id
from finrisk_assets.policy.policy_file import default_policy
from schemas.alert_api import AlertDetails, AlertId, AlertPage, AlertQuery
from schemas.api import AuditPage, AuditQuery, Erasure, ErrorEnvelope, Identifier, ModelList, ModelMetrics, PersonExport, RiskScores
from schemas.evidence_api import ModelEvidence
from schemas.insight_api import (
    Activity,
    ActivityQuery,
    AlertCapacity,
    AuditVerification,
    CallerAnswer,
    DecisionId,
    DomainName,
    LendingWorth,
    ModelCards,
    PolicyAnswer,
    ReplayAnswer,
    UsualBehaviour,
)

STATIC = Path(__file__).with_name("static")
SUMMARY = "Personal-finance risk decisions, each with its score, the contributions that sum to it, and reasons in words."
_SECURITY_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"
_PAGE_HEADERS = {"Content-Security-Policy": _SECURITY_POLICY, "Referrer-Policy": "no-referrer"}
_CUSTOMER_EXAMPLE: Any = {"customer": {"summary": "A customer of the ledger", "value": "123"}}
_DOMAIN_EXAMPLE: Any = {"loans": {"summary": "The model of loan defaults", "value": "loan_default"}}
Customer = Annotated[Identifier, PathParameter(openapi_examples=_CUSTOMER_EXAMPLE)]
_FAILURES: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorEnvelope, "description": "Any failure"}}

_SECURITY_SCHEMES: dict[str, dict[str, str]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key or a token of the identity provider."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
}


def build_app() -> FastAPI:
    """Return the FastAPI application beside the scoring routes: the pages and the look-up routes."""
    app = FastAPI(title="finrisk", openapi_url=None, docs_url=None, redoc_url=None)
    page = (STATIC / "docs.html").read_text(encoding="utf-8")
    documents: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()

    async def show_docs() -> HTMLResponse:
        return HTMLResponse(page, headers=_PAGE_HEADERS)

    async def show_metrics() -> Response:
        return Response(await run_in_threadpool(render_metrics), media_type=CONTENT_TYPE)

    async def show_openapi() -> JSONResponse:
        service = _current_service()
        if service not in documents:
            answers = await service.store.thread.run(service.answer_examples, _request_examples(service))
            documents[service] = build_document(app, service.bento_service, service.typical_features(), answers)
        return JSONResponse(complete_document(deepcopy(documents[service]), has_lock=not service.access.is_open()))

    @catch_problems
    async def models() -> ModelList:
        """List the models that answer here, with every feature they take, and the reason why others are missing."""
        return _current_service().list_models()

    @catch_problems
    async def model_metrics() -> ModelMetrics:
        """Show the figures of each model on its frozen test window and, where the true probabilities are known, beside them."""
        return _current_service().list_model_metrics()

    @catch_problems
    async def risk_scores(request: Request, customer_id: Customer) -> RiskScores:
        """The newest score of a customer in every domain, as the batch stored it when the ledger was last loaded."""
        return await _current_service().read_risk_scores(find_customer_id(request.scope))

    @catch_problems
    async def export_person(request: Request, customer_id: Customer) -> PersonExport:
        """Everything that is held of a person, in plain text. Who asked, and when, goes into the audit.

        Kept are transactions, because features are computed from them; decisions with what they were made of, because a decision must
        be explained and made again for as long as it can be questioned; the newest scores, because requests by customer need them; what
        analysts recorded, because models learn from it. All of it is sealed under a key of the person's own, but for the times and
        amounts of transactions and the scores of decisions. `finrisk people retain` ends it by age.
        """
        return await _current_service().export_person(find_customer_id(request.scope))

    @catch_problems
    async def erase_person(request: Request, customer_id: Customer) -> Erasure:
        """Erase a person. It cannot be undone.

        Deletes the key that seals the person's data, the look-up token, transactions, scores and feedback. Decisions and audit stay, but
        can no longer be read or linked to the person. The ledger is not changed: erase the person there first, or the next load restores
        the data.
        """
        return await _current_service().erase_person(find_customer_id(request.scope))

    @catch_problems
    async def audit(query: Annotated[AuditQuery, Query()]) -> AuditPage:
        """List the recorded actions, the newest first: who did what, and when. That the list was read is recorded too."""
        return await _current_service().read_audit_page(query)

    @catch_problems
    async def alerts(query: Annotated[AlertQuery, Query()]) -> AlertPage:
        """List the alerts in a state, the largest expected loss first. An alert names nobody; `GET /v1/alerts/{alert_id}` does."""
        return await _current_service().list_alerts(query)

    @catch_problems
    async def alert(alert_id: Annotated[AlertId, PathParameter()]) -> AlertDetails:
        """One alert with its decision, as sent and answered, and related decisions of the same person and at the same merchant.

        Who read it, and when, goes into the audit.
        """
        return await _current_service().read_alert(alert_id)

    @catch_problems
    async def capacity() -> AlertCapacity:
        """Show what numbers of alerts a day catch, cost and are worth, on the window that the thresholds are drawn from."""
        return _current_service().describe_capacity()

    @catch_problems
    async def usual(alert_id: Annotated[AlertId, PathParameter()]) -> UsualBehaviour:
        """The transactions of an alert's customer in the 90 days before it, beside which an analyst sees what is unusual.

        It names neither merchants nor countries. Who read it, and when, goes into the audit.
        """
        return await _current_service().read_usual_behaviour(alert_id)

    @catch_problems
    async def activity(query: Annotated[ActivityQuery, Query()]) -> Activity:
        """Count the decisions, scores and alerts of the last days. It is about nobody; of very many decisions the newest are counted."""
        return await _current_service().count_activity(query.days)

    @catch_problems
    async def worth(query: Annotated[ActivityQuery, Query()]) -> LendingWorth:
        """Show what the newest loans and offers of the last days are expected to be worth under the policy in effect.

        It is measured at most once in five minutes, over at most a thousand decisions.
        """
        return await _current_service().measure_lending(query.days)

    @catch_problems
    async def model_cards() -> ModelCards:
        """Show where each champion comes from, what moves its score, the curve of its thresholds, and its challenger beside it."""
        return await _current_service().list_model_cards()

    @catch_problems
    async def model_evidence(domain: Annotated[DomainName, PathParameter(openapi_examples=_DOMAIN_EXAMPLE)]) -> ModelEvidence:
        """Show a champion's curves, calibration, effects, fairness, scorecard, candidates and newest drift report, all aggregated."""
        return await _current_service().read_model_evidence(domain)

    @catch_problems
    async def caller() -> CallerAnswer:
        """Show who sends this request, as the audit names it, and which roles they have."""
        return _current_service().describe_caller()

    @catch_problems
    async def policy() -> PolicyAnswer:
        """Show the decision policy in effect: costs, limits, thresholds and capacities."""
        return _current_service().read_policy()

    @catch_problems
    async def verification() -> AuditVerification:
        """Verify the audit's chains: whether a record was changed, lost or moved. That it was verified is recorded too."""
        return await _current_service().verify_audit()

    @catch_problems
    async def replay(decision_id: Annotated[DecisionId, PathParameter()]) -> ReplayAnswer:
        """Score one decision again, from what was stored and with the model that made it, and compare. The audit records it."""
        return await _current_service().replay_decision(decision_id)

    for path, handler, answer_type in (
        ("/v1/caller", caller, CallerAnswer),
        ("/v1/policy", policy, PolicyAnswer),
        ("/v1/activity", activity, Activity),
        ("/v1/activity/worth", worth, LendingWorth),
        ("/v1/model-cards", model_cards, ModelCards),
        ("/v1/model-evidence/{domain}", model_evidence, ModelEvidence),
        ("/v1/alerts/capacity", capacity, AlertCapacity),
        ("/v1/alerts/{alert_id}/usual", usual, UsualBehaviour),
        ("/v1/audit/verification", verification, AuditVerification),
        ("/v1/decisions/{decision_id}/replay", replay, ReplayAnswer),
        ("/v1/alerts", alerts, AlertPage),
        ("/v1/alerts/{alert_id}", alert, AlertDetails),
        ("/v1/models", models, ModelList),
        ("/v1/model-metrics", model_metrics, ModelMetrics),
        (RISK_SCORES, risk_scores, RiskScores),
        (EXPORT, export_person, PersonExport),
        ("/v1/audit", audit, AuditPage),
    ):
        app.add_api_route(path, handler, response_model=answer_type, responses=_FAILURES, tags=["look up"])
    app.add_api_route(PERSON, erase_person, methods=["DELETE"], response_model=Erasure, responses=_FAILURES, tags=["people"])
    app.add_api_route("/", show_docs, include_in_schema=False)
    app.add_api_route("/metrics", show_metrics, include_in_schema=False)
    app.add_api_route("/docs", show_docs, include_in_schema=False)
    app.add_api_route("/openapi.json", show_openapi, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def _current_service() -> Any:
    """Return the service of this process."""
    import bentoml

    return bentoml.get_current_service()


def _request_examples(service: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return route -> type of the request, and title -> body of its examples, of the routes that score one request."""
    types = {method.route: request_and_answer_types(method)[0] for method in service.bento_service.apis.values()}
    typical = service.typical_features()
    examples = {}
    for name, domain in DOMAINS.items():
        if domain.route in types:
            bodies = {title: _fill_features(body, typical.get(name)) for title, body in types[domain.route].examples.items()}
            examples[domain.route] = types[domain.route], {title: dict(body) for title, body in bodies.items() if body}
    return examples


def build_document(
    app: FastAPI, service: Any, typical: Mapping[str, Mapping[str, float | str | None]], answers: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return one OpenAPI 3.1 document of the look-up routes and the scoring routes.

    Parameters
    ----------
    app
        Application with the look-up routes, see `build_app`.
    service
        BentoML service with the scoring routes.
    typical
        Typical features by domain, for the examples; no real person's features.
    answers
        Route -> examples of its answer, in OpenAPI's form.
    """
    scoring = [_document_route(method) for method in service.apis.values()]
    lookups = [route for route in app.routes if isinstance(route, APIRoute)]
    version = service.bento.tag.version if service.bento else "source"
    document = get_openapi(title="finrisk", version=version, summary=SUMMARY, routes=[*scoring, *lookups])
    for method in service.apis.values():
        # FastAPI drops every null, which in features means "not known": the examples are put in after it.
        content = document["paths"][method.route]["post"]["requestBody"]["content"]["application/json"]
        content["examples"] = _document_examples(request_and_answer_types(method)[0], typical.get(_domain(method)))
        if answers.get(method.route):
            document["paths"][method.route]["post"]["responses"]["200"]["content"]["application/json"]["examples"] = answers[method.route]
    document["components"]["securitySchemes"] = _SECURITY_SCHEMES
    return document


def _domain(method: Any) -> str:
    """Return the domain whose typical features fill a method's examples, read from the method's route."""
    return str(method.route.split("/")[2].replace("-", "_"))


def _document_route(method: Any) -> APIRoute:
    """Return a route for the document only, with the types and the description of a BentoML method."""
    request, answer = request_and_answer_types(method)

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


def _document_examples(request: Any, features: Mapping[str, float | str | None] | None) -> dict[str, Any]:
    """Return the examples of a request in OpenAPI's form. Examples by features are left out without a model."""
    bodies = {summary: _fill_features(body, features) for summary, body in request.examples.items()}
    bodies = {summary: body for summary, body in bodies.items() if body}
    return {f"example_{number}": {"summary": summary, "value": body} for number, (summary, body) in enumerate(bodies.items(), 1)}


def _fill_features(body: Mapping[str, Any], features: Mapping[str, float | str | None] | None) -> Mapping[str, Any] | None:
    """Return a body, or a batch's items, with typical features or the shipped policy in place of its own; None without such features."""
    if "items" in body:
        items = [filled for item in body["items"] if (filled := _fill_features(item, features)) is not None]
        return {"items": items} if items else None
    if "policy" in body:
        return {"policy": default_policy().canonical_json()}
    if "features" not in body:
        return body
    return {**body, "features": dict(features)} if features else None
