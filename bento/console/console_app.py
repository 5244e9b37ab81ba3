"""The console's application: its routes, the guard around them, and its files.

Every page is made on the server from answers of the public API, asked with the credential of the reader's session. So the API's roles hold
on every page, and the audit has every read. The application is served at ``/console``, by a process of its own or beside the API.
"""

import mimetypes
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bento.access.client_address import is_cross_site, is_direct
from bento.access.rate_limits import Rate, RateLimiter
from bento.console import alert_pages, audit_page, loan_page, model_pages, overview_page, person_page, policy_page, sign_in_pages
from bento.console.api_client import ApiClient, ApiRefusal
from bento.console.console_context import PREFIX, Console
from bento.console.outside_links import OutsideLinks
from bento.console.presentation.rendering import Renderer
from bento.console.presentation.vega_bundle import BUNDLE
from bento.console.sign_in.oidc_client import OidcClient
from bento.console.sign_in.oidc_provider import OidcProvider
from bento.console.sign_in.pending_sign_ins import PendingSignIns
from bento.console.sign_in.sessions import COOKIE, ConsoleSession, Sessions, is_session_token
from bento.problems import log_failure

STATIC = Path(__file__).with_name("static")
MAX_FORM_BYTES = 4 * 1024 * 1024
"""Bytes of a form. A bank statement of ten years has about two million."""
SIGN_INS = Rate(per_second=0.1, burst=10)
"""Sign-ins of one address: guesses are slow long before one of 256 random bits is hit."""
_FILES = ("console.css", "console.js")
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every response: no script or style but the console's own files, no cache, no frame."""

Handler = Callable[[Console, Request], Awaitable[Response]]
FormHandler = Callable[[Console, Request, FormData], Awaitable[Response]]
ProviderHandler = Callable[[Console, OidcProvider, Request], Awaitable[Response]]


def build_console(api: ApiClient, links: OutsideLinks | None = None, client: OidcClient | None = None) -> ASGIApp:
    """Return the console of an API, with sessions of its own.

    Parameters
    ----------
    api
        The API.
    links
        Links to other pages; by default none.
    client
        The console as a client of an OIDC provider; None where people sign in by key or token only.
    """
    provider = None if client is None else OidcProvider(client)
    console = Console(api, Renderer(), Sessions(), RateLimiter(SIGN_INS), links or OutsideLinks(), PendingSignIns(), provider)
    pages: dict[str, Handler] = {
        "/overview": overview_page.show_overview,
        "/alerts": alert_pages.show_queue,
        "/alerts/next": alert_pages.find_next,
        "/alerts/{alert_id}": alert_pages.show_alert,
        "/person": person_page.show_person_forms,
        "/loan": loan_page.show_loan_form,
        "/models": model_pages.show_models,
        "/models/{domain}": model_pages.show_model,
        "/policy": policy_page.show_policy,
        "/audit": audit_page.show_audit,
    }
    forms: dict[str, FormHandler] = {
        "/sign-out": sign_in_pages.sign_out,
        "/alerts/dispose": alert_pages.dispose_many,
        "/alerts/{alert_id}/claim": alert_pages.claim,
        "/alerts/{alert_id}/release": alert_pages.release,
        "/alerts/{alert_id}/dispose": alert_pages.dispose,
        "/person": person_page.show_person,
        "/person/statement": person_page.read_statement,
        "/person/what-if": person_page.rescore,
        "/loan": loan_page.decide_loan,
        "/loan/what-if": loan_page.explore_loan,
        "/policy": policy_page.compare_policy,
        "/audit/verify": audit_page.verify_chain,
        "/audit/replay": audit_page.replay_decision,
        "/audit/export": audit_page.export_person,
        "/audit/erase": audit_page.erase_person,
    }
    routes = [
        Route(PREFIX, _go_to_overview),
        Route(f"{PREFIX}/", _go_to_overview),
        Route(f"{PREFIX}/static/{{name}}", _send_file),
        Route(f"{PREFIX}/sign-in", _of_page(console, sign_in_pages.show_sign_in, is_open=True)),
        Route(f"{PREFIX}/sign-in", _of_form(console, sign_in_pages.sign_in, is_open=True), methods=["POST"]),
        *(Route(PREFIX + path, _of_page(console, handler)) for path, handler in pages.items()),
        *(Route(PREFIX + path, _of_form(console, handler), methods=["POST"]) for path, handler in forms.items()),
    ]
    if provider is not None:
        routes += [
            Route(f"{PREFIX}/sign-in/provider", _of_provider(console, provider, sign_in_pages.start_at_provider)),
            Route(sign_in_pages.SIGNED_IN, _of_provider(console, provider, sign_in_pages.finish_at_provider)),
        ]
    app = Starlette(routes=routes, exception_handlers={404: _of_error(console, 404), 405: _of_error(console, 405)})
    return _Guard(app, console)


class _Guard:
    """ASGI middleware around every page: refuses pages of other origins, and sets the headers of every response."""

    def __init__(self, app: ASGIApp, console: Console) -> None:
        self.app = app
        self._console = console

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                added = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *((n, v) for n, v in added if n not in present)]}
            await send(message)

        if scope["method"] not in ("GET", "HEAD") and is_cross_site(scope):
            problem = ApiRefusal(403, "cross_site", "A page of another origin sent this request. Open the console itself.")
            await self._console.refuse(Request(scope), problem)(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)


def _of_page(console: Console, handler: Handler, *, is_open: bool = False) -> Any:
    """Return the endpoint of a page: with the reader's session, or the way to the sign-in."""

    async def answer(request: Request) -> Response:
        try:
            entered = await _enter(console, request)
            if request.state.session is None and not is_open:
                return RedirectResponse(f"{PREFIX}/sign-in?next={quote(_find_address(request), safe='/')}", 303)
            response = await handler(console, request)
        except ApiRefusal as refusal:
            return _refuse(console, request, refusal)
        except Exception as error:
            return _fail(console, request, error)
        if entered is not None:
            sign_in_pages.set_cookie(response, request, COOKIE, entered)
        return response

    return answer


def _of_form(console: Console, handler: FormHandler, *, is_open: bool = False) -> Any:
    """Return the endpoint of a form: its token must be that of the session. An open form has no session and checks its token itself."""

    async def answer(request: Request) -> Response:
        request.state.session = None if is_open else _find_session(console, request)
        if request.state.session is None and not is_open:
            return RedirectResponse(f"{PREFIX}/sign-in", 303)
        try:
            form = await _read_form(request)
            if not is_open and not is_session_token(request.state.session, str(form.get("csrf", ""))):
                raise ApiRefusal(403, "stale_form", "This form is not of your session. Load the page again, and send the form once more.")
            return await handler(console, request, form)
        except ApiRefusal as refusal:
            return _refuse(console, request, refusal)
        except Exception as error:
            return _fail(console, request, error)

    return answer


def _of_provider(console: Console, provider: OidcProvider, handler: ProviderHandler) -> Any:
    """Return the endpoint of a step of the sign-in through the provider, which has no session yet."""

    async def answer(request: Request) -> Response:
        request.state.session = None
        try:
            return await handler(console, provider, request)
        except Exception as error:
            return _fail(console, request, error)

    return answer


async def _enter(console: Console, request: Request) -> str | None:
    """Set the session of a request; return the identifier of a session that was opened now.

    Where the API is open to its own machine, a request of this machine needs no sign-in. A session without a credential serves direct
    requests only, as the open API itself does.
    """
    request.state.session = _find_session(console, request)
    if request.state.session is not None or not is_direct(request.scope) or "out" in request.query_params:
        return None
    if request.url.path == f"{PREFIX}/sign-in" and request.query_params.get("next") is None and COOKIE in request.cookies:
        return None
    try:
        caller = await console.api.get(None, "/v1/caller")
    except ApiRefusal as refusal:
        if refusal.status in (401, 403, 429):
            return None
        raise
    request.state.session = ConsoleSession(None, caller["name"], frozenset(caller["roles"]))
    return console.sessions.open(request.state.session)


def _find_session(console: Console, request: Request) -> ConsoleSession | None:
    session = console.sessions.find(request.cookies.get(COOKIE))
    return None if session is not None and session.credential is None and not is_direct(request.scope) else session


def _refuse(console: Console, request: Request, refusal: ApiRefusal) -> Response:
    """Return the page of a refusal; a credential that no longer counts ends its session."""
    if refusal.status == 401:
        console.sessions.close(request.cookies.get(COOKIE))
        request.state.session = None
        next_path = sign_in_pages.own_path(_find_address(request) if request.method == "GET" else "")
        return sign_in_pages.sign_in_page(console, request, next_path, refusal.message, 401)
    return console.refuse(request, refusal)


def _fail(console: Console, request: Request, error: Exception) -> Response:
    """Log where a page failed, without its message, and return the page that says so."""
    log_failure(error)
    return console.refuse(request, ApiRefusal(500, "internal_error", "The console failed to make this page. Its log says where."))


async def _read_form(request: Request) -> FormData:
    """Return the fields of a form.

    Raises
    ------
    ApiRefusal
        411 without a length, 413 for one that is too large, 400 for one that cannot be read.
    """
    length = request.headers.get("content-length", "")
    if not length.isdigit():
        raise ApiRefusal(411, "no_length", "The form was sent without its length. Send it with a browser.")
    if len(length) > 9 or int(length) > MAX_FORM_BYTES:
        raise ApiRefusal(413, "too_large", f"The form is larger than {MAX_FORM_BYTES // 2**20} MiB. Choose a shorter period.")
    try:
        return await request.form(max_files=2, max_fields=300, max_part_size=MAX_FORM_BYTES)
    except Exception:
        raise ApiRefusal(400, "bad_form", "The form cannot be read. Load the page again, and send the form once more.") from None


def _find_address(request: Request) -> str:
    """Return the path of a request with its query."""
    return f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path


async def _go_to_overview(request: Request) -> Response:
    return RedirectResponse(f"{PREFIX}/overview", 307)


async def _send_file(request: Request) -> Response:
    """Return one of the console's own files. They hold no data, so a browser may keep them for a while."""
    name = request.path_params["name"]
    headers = {"Cache-Control": "private, max-age=600"}
    if name == "vega.js" and BUNDLE.is_file():
        headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return Response(BUNDLE.read_bytes(), media_type="text/javascript", headers=headers)
    if name not in _FILES:
        return Response(status_code=404)
    return Response((STATIC / name).read_bytes(), media_type=mimetypes.guess_type(name)[0], headers=headers)


def _of_error(console: Console, status: int) -> Any:
    """Return the handler of a path or a method that the console lacks."""

    async def answer(request: Request, error: Exception) -> Response:
        request.state.session = _find_session(console, request)
        return console.refuse(request, ApiRefusal(status, "not_found", "The console has no such page."))

    return answer
