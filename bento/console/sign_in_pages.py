"""Sign-in and sign-out: by an API key, by a pasted bearer token, or through the OIDC provider of the settings."""

import logging
from secrets import token_urlsafe
from typing import Literal
from urllib.parse import quote, unquote

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from bento.access.client_address import find_client_address
from bento.console.api_client import ApiRefusal
from bento.console.console_context import PREFIX, Console
from bento.console.sign_in.oidc_provider import OidcProvider, SignInRefused
from bento.console.sign_in.pending_sign_ins import PENDING_COOKIE, PENDING_LIFE_S
from bento.console.sign_in.sessions import COOKIE, FORM_COOKIE, ConsoleSession

logger = logging.getLogger("finrisk.console")

SIGNED_IN = f"{PREFIX}/signed-in"
"""Path to which the provider leads people back."""
# The address of an answer holds a code. A form of its page must still name its origin, which no-referrer would hide.
_ANSWER_HEADERS = {"Referrer-Policy": "strict-origin"}


async def show_sign_in(console: Console, request: Request) -> Response:
    """Return the sign-in page; with a session, the way to the overview."""
    if request.state.session is not None:
        return RedirectResponse(f"{PREFIX}/overview", 303)
    return sign_in_page(console, request, own_path(request.query_params.get("next", "")), "", 200)


async def sign_in(console: Console, request: Request, form: FormData) -> Response:
    """Sign a person in by an API key or a bearer token."""
    next_path = own_path(str(form.get("next", "")))
    if not console.sessions.is_form_token(request.cookies.get(FORM_COOKIE, ""), str(form.get("csrf", ""))):
        return sign_in_page(console, request, next_path, "This form is too old. Send it once more.", 403)
    if fault := _limit_sign_ins(console, request):
        return sign_in_page(console, request, next_path, fault, 429)
    credential = str(form.get("credential", "")).strip()
    if not credential or not credential.isascii() or not credential.isprintable():
        return sign_in_page(console, request, next_path, "Enter an API key, or a bearer token of your identity provider.", 422)
    try:
        session = await _open_session(console, credential)
    except ApiRefusal as refusal:
        return sign_in_page(console, request, next_path, refusal.message, refusal.status)
    response = RedirectResponse(next_path, 303)
    set_cookie(response, request, COOKIE, console.sessions.open(session))
    response.delete_cookie(FORM_COOKIE, path=PREFIX)
    return response


async def start_at_provider(console: Console, provider: OidcProvider, request: Request) -> Response:
    """Lead a person to the provider, with a cookie that binds the sign-in to this browser."""
    next_path = own_path(request.query_params.get("next", ""))
    if fault := _limit_sign_ins(console, request):
        return sign_in_page(console, request, next_path, fault, 429)
    try:
        endpoints = await provider.discover()
    except SignInRefused as refusal:
        return _refuse_sign_in(console, request, next_path, refusal)
    browser, pending = console.pending_sign_ins.open(next_path)
    response = RedirectResponse(provider.build_authorization_url(endpoints, pending), 303)
    set_cookie(response, request, PENDING_COOKIE, browser, path=SIGNED_IN, same_site="lax", max_age=PENDING_LIFE_S)
    return response


async def finish_at_provider(console: Console, provider: OidcProvider, request: Request) -> Response:
    """Open the session of a person whom the provider leads back, and lead on to the page that was asked for."""
    answer = dict(request.query_params)
    pending = console.pending_sign_ins.take(request.cookies.get(PENDING_COOKIE), answer.get("state", ""))
    if pending is None:
        text = f"This browser began no such sign-in in the last {PENDING_LIFE_S // 60} minutes, or it is done already. Sign in again."
        return _refuse_sign_in(console, request, own_path(""), SignInRefused(403, text))
    try:
        session = await _open_session(console, await provider.redeem_answer(answer, pending))
    except SignInRefused as refusal:
        response = _refuse_sign_in(console, request, pending.next_path, refusal)
    except ApiRefusal as refusal:
        response = _refuse_sign_in(console, request, pending.next_path, _explain_refusal(provider.client.provider_name, refusal))
    else:
        # A redirect would still come from the provider's site, and the browser would send no strict cookie with it. This page moves on.
        response = console.page(request, "signed_in.html", next_path=pending.next_path)
        response.headers.update(_ANSWER_HEADERS)
        set_cookie(response, request, COOKIE, console.sessions.open(session))
    response.delete_cookie(PENDING_COOKIE, path=SIGNED_IN)
    return response


async def sign_out(console: Console, request: Request, form: FormData) -> Response:
    """End the session."""
    console.sessions.close(request.cookies.get(COOKIE))
    response = RedirectResponse(f"{PREFIX}/sign-in?out=1", 303)
    response.delete_cookie(COOKIE, path=PREFIX)
    return response


def sign_in_page(console: Console, request: Request, next_path: str, fault: str, status: int) -> Response:
    """Return the sign-in page with a new token of its form."""
    value = token_urlsafe(24)
    client = None if console.provider is None else console.provider.client
    response = console.page(
        request,
        "sign_in.html",
        status,
        form_token=console.sessions.sign_form(value),
        next_path=next_path,
        fault=fault,
        provider_name=client and client.provider_name,
        # The provider leads back to the public address, where the cookie must be: a page under another name of this machine goes there.
        provider_link=client and f"{client.console_url}/sign-in/provider?next={quote(next_path, safe='/')}",
        is_out="out" in request.query_params,
    )
    set_cookie(response, request, FORM_COOKIE, value)
    return response


def set_cookie(
    response: Response,
    request: Request,
    name: str,
    value: str,
    *,
    path: str = PREFIX,
    same_site: Literal["strict", "lax"] = "strict",
    max_age: int | None = None,
) -> None:
    """Set a cookie that no script reads: by default of the browser's session, and sent by no other site."""
    is_secure = request.url.scheme == "https"
    response.set_cookie(name, value, max_age, path=path, httponly=True, samesite=same_site, secure=is_secure)


def own_path(address: str) -> str:
    """Return an address as a page of the console, to which a sign-in leads; the overview in place of any other address."""
    path = unquote(address.partition("?")[0])
    is_own = path.startswith(f"{PREFIX}/") and not path.startswith(f"{PREFIX}/sign") and "/." not in path and "\\" not in path
    return address if is_own and address.isprintable() else f"{PREFIX}/overview"


async def _open_session(console: Console, credential: str) -> ConsoleSession:
    """Return the session of a credential, with the roles that the API answers; raises as `ApiClient.get` does."""
    caller = await console.api.get(credential, "/v1/caller")
    return ConsoleSession(credential, caller["name"], frozenset(caller["roles"]))


def _limit_sign_ins(console: Console, request: Request) -> str:
    """Count a sign-in of the request's address; return what to tell where there are too many."""
    wait_s = console.sign_ins.take_token(find_client_address(request.scope))
    return f"Too many sign-ins from here. Wait {wait_s:.0f} seconds." if wait_s else ""


def _explain_refusal(provider_name: str, refusal: ApiRefusal) -> SignInRefused:
    """Return what the API's refusal of an access token means for a sign-in."""
    if refusal.status == 401:
        text = f"The API does not accept the access token of {provider_name}. Check that it is a JWT for FINRISK_JWT_AUDIENCE."
        return SignInRefused(502, text)
    if refusal.status == 403:
        return SignInRefused(403, f"{provider_name} gives you no role here. Ask its administrator for one, and sign in again.")
    return SignInRefused(refusal.status, refusal.message)


def _refuse_sign_in(console: Console, request: Request, next_path: str, refusal: SignInRefused) -> Response:
    """Return the sign-in page with what the provider refused; log what an operator must see."""
    request.state.session = None
    if refusal.status >= 500:
        logger.warning("a sign-in failed: %s", refusal.message)
    response = sign_in_page(console, request, next_path, refusal.message, refusal.status)
    response.headers.update(_ANSWER_HEADERS)
    return response
