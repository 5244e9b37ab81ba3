"""Dispatch: the scoring routes, called without BentoML's own router and middleware.

BentoML builds a function with a new signature for each request, runs the request in a task of its own and keeps its objects until its
time-out: a third of the time of a small request, and pauses of the garbage collector. The methods, their types and routes are those that
BentoML serves, describes and packages. Every other path goes to BentoML's application.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast, get_type_hints

from bentoml._internal.container import BentoMLContainer
from bentoml._internal.server.http.access import AccessLogMiddleware
from pydantic import BaseModel, ValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from bento.problems import Problem, invalid_request


@dataclass(frozen=True)
class ApiMethod:
    """A method of the service that answers one route.

    Attributes
    ----------
    request_type
        Type of the request's body.
    call
        Answers a request, given the service and the request: with a response or with an answer.
    """

    request_type: type[BaseModel]
    call: Callable[[Any, Any], Awaitable[Response | BaseModel]]


def list_methods(apis: Mapping[str, Any]) -> dict[str, ApiMethod]:
    """Return route -> method, of the methods that BentoML knows by name."""
    return {api.route: ApiMethod(request_and_answer_types(api)[0], api.func) for api in apis.values()}


def request_and_answer_types(api: Any) -> tuple[Any, Any]:
    """Return the types of a BentoML method's request and of its answer."""
    hints = get_type_hints(api.func)
    answer = hints.pop("return")
    (request,) = hints.values()
    return request, answer


class Dispatch:
    """ASGI application that answers the routes of the service's methods; it stands inside `Admission`, which has read the body.

    A body that does not validate, and an answer that takes too long, are raised as a `Problem`: 400 or 422, and 504.

    Parameters
    ----------
    app
        Application that answers every other path.
    methods
        Route -> method.
    find_service
        Returns the service of this process; None before it starts and after it stops.
    timeout_s
        Seconds for one answer.
    """

    def __init__(self, app: ASGIApp, methods: Mapping[str, ApiMethod], find_service: Callable[[], Any], timeout_s: float) -> None:
        self.app = app
        self._methods = methods
        self._find_service = find_service
        self._timeout_s = timeout_s
        self._logged_answer = log_access(self._answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_scoring = scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._methods
        await (self._logged_answer if is_scoring else self.app)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, service = self._methods[scope["path"]], self._find_service()
        if service is None:
            raise Problem.from_status(503)
        request = _parse_request(method.request_type, (await receive())["body"])
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await method.call(service, request)
        except TimeoutError:
            raise Problem.from_status(504) from None
        if not isinstance(answer, Response):
            answer = Response(answer.model_dump_json(), media_type="application/json")
        await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
        await send({"type": "http.response.body", "body": answer.body})


def log_access(app: ASGIApp) -> ASGIApp:
    """Return an application whose requests stand in BentoML's access log, where its configuration enables that."""
    access = BentoMLContainer.api_server_config.logging.access
    if not access.enabled.get():
        return app
    fields = ("request_content_length", "request_content_type", "response_content_length", "response_content_type")
    return cast(ASGIApp, AccessLogMiddleware(app, **{f"has_{field}": getattr(access, field).get() for field in fields}))


def _parse_request(request_type: type[BaseModel], body: bytes) -> BaseModel:
    """Return the request of a body; an empty body is an empty object.

    Raises
    ------
    Problem
        400 for a body that is not JSON, 422 for one that does not validate.
    """
    try:
        return request_type.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise invalid_request(cast(Any, error.errors(include_url=False, include_context=False, include_input=False))) from None
