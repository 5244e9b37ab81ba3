"""A small OIDC provider on loopback: discovery, keys, authorization with PKCE, and tokens for codes that are redeemed once.

It refuses an unknown client or redirect URI, a wrong secret, an unknown code, a code that was redeemed before, and a wrong verifier. A test
sets its attributes to let it answer otherwise.
"""

import base64
import hashlib
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus, urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.tokens import AUDIENCE, RSA, jwks_document, token

CLIENT_ID = "finrisk console"
CLIENT_SECRET = "s3cret: with + and %"


@dataclass
class LoopbackProvider:
    """The provider, and what a test may change in its answers.

    Attributes
    ----------
    issuer, redirect_uri
        Its address; the one address to which it leads back.
    secret
        The client's secret; an empty one is that of a public client, which then must name itself.
    roles
        Roles in its access tokens.
    access, identity, metadata, answer
        Other claims of access tokens and of ID tokens, members of the discovery document, and parameters of the way back; None leaves out.
    signer
        Private key of the ID tokens.
    denies
        Whether its people decline.
    asks
        Whether it shows a form before it leads back, as a provider without a session does.
    """

    issuer: str
    redirect_uri: str
    secret: str = ""
    roles: tuple[str, ...] = ("analyst",)
    access: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, str | None] = field(default_factory=dict)
    signer: Any = RSA
    denies: bool = False
    asks: bool = False
    requests: list[str] = field(default_factory=list)
    issued: list[str] = field(default_factory=list)
    """Every code and token that it issued."""
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)
    _redeemed: set[str] = field(default_factory=set)

    def build_app(self) -> Starlette:
        routes = {
            "/.well-known/openid-configuration": self._describe,
            "/keys": self._show_keys,
            "/authorize": self._authorize,
            "/token": self._redeem,
        }
        return Starlette(routes=[Route(path, answer, methods=["GET", "POST"]) for path, answer in routes.items()])

    async def _describe(self, request: Request) -> Response:
        self.requests.append("discovery")
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize?tenant=bank",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
        }
        return JSONResponse(document | self.metadata)

    async def _show_keys(self, request: Request) -> Response:
        return JSONResponse(jwks_document(one=RSA))

    async def _authorize(self, request: Request) -> Response:
        query = dict(request.query_params)
        if query["client_id"] != CLIENT_ID or query["redirect_uri"] != self.redirect_uri or query["tenant"] != "bank":
            return HTMLResponse("unknown client or redirect URI", 400)
        assert (query["response_type"], query["code_challenge_method"]) == ("code", "S256") and "openid" in query["scope"].split()
        if self.asks and request.method == "GET":
            return HTMLResponse('<form method="post"><button>I am Ada</button></form>')
        if self.denies:
            return self._lead_back({"error": "access_denied", "state": query["state"]})
        code = secrets.token_urlsafe(24)
        self._codes[code] = query
        self.issued.append(code)
        return self._lead_back({"code": code, "state": query["state"]})

    def _lead_back(self, parameters: dict[str, str | None]) -> Response:
        answer = {name: value for name, value in (parameters | self.answer).items() if value is not None}
        return RedirectResponse(f"{self.redirect_uri}?{urlencode(answer)}", 303)

    async def _redeem(self, request: Request) -> Response:
        self.requests.append("token")
        form = await request.form()
        if self._find_client(request, form) != (CLIENT_ID, self.secret):
            return JSONResponse({"error": "invalid_client", "error_description": "<b>who?</b>"}, 401)
        code = str(form["code"])
        query = self._codes.get(code)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(str(form["code_verifier"]).encode()).digest()).decode().rstrip("=")
        is_valid = query is not None and (query["code_challenge"], query["redirect_uri"]) == (challenge, form["redirect_uri"])
        if query is None or not is_valid or code in self._redeemed or form["grant_type"] != "authorization_code":
            return JSONResponse({"error": "invalid_grant"}, 400)
        self._redeemed.add(code)
        access = token(**{"iss": self.issuer, "aud": AUDIENCE, "roles": list(self.roles)} | self.access)
        now = int(time.time())
        identity = token(self.signer, **{"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "nonce": query["nonce"]} | self.identity)
        self.issued += [access, identity]
        return JSONResponse({"access_token": access, "token_type": "Bearer", "id_token": identity})

    def _find_client(self, request: Request, form: Any) -> tuple[str, str]:
        """Return the identifier and the secret of a client: by HTTP Basic, or in the form without a secret."""
        scheme, _, sent = request.headers.get("authorization", "").partition(" ")
        if scheme == "Basic" and "client_id" not in form:
            name, _, secret = base64.b64decode(sent).decode().partition(":")
            return unquote_plus(name), unquote_plus(secret)
        return str(form.get("client_id", "")), ""


@contextmanager
def run_provider(redirect_uri: str) -> Iterator[LoopbackProvider]:
    """Yield a provider that answers on a free port of this machine, under the name ``localhost``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        provider = LoopbackProvider(f"http://localhost:{listener.getsockname()[1]}", redirect_uri)
        server = uvicorn.Server(uvicorn.Config(provider.build_app(), log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield provider
        server.should_exit = True
        thread.join(10)
