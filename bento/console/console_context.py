"""The shared parts of every page of the console: the API, the templates, the sessions, and the page of a refusal."""

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from bento.access.rate_limits import RateLimiter
from bento.console.api_client import ApiClient, ApiRefusal
from bento.console.outside_links import OutsideLinks
from bento.console.presentation.rendering import Renderer
from bento.console.sign_in.oidc_provider import OidcProvider
from bento.console.sign_in.pending_sign_ins import PendingSignIns
from bento.console.sign_in.sessions import Sessions

PREFIX = "/console"
"""Path of every page."""


@dataclass(frozen=True)
class Console:
    """The parts that the pages share."""

    api: ApiClient
    renderer: Renderer
    sessions: Sessions
    sign_ins: RateLimiter
    links: OutsideLinks
    pending_sign_ins: PendingSignIns
    provider: OidcProvider | None

    async def get(self, request: Request, path: str, params: Any = None) -> Any:
        """Return the answer of the API to the reader of a request; raises as `ApiClient.get` does."""
        return await self.api.get(request.state.session.credential, path, params)

    async def post(self, request: Request, path: str, body: Any) -> Any:
        """Return the answer of the API to a POST of the reader; raises as `ApiClient.get` does."""
        return await self.api.post(request.state.session.credential, path, body)

    async def try_get(self, request: Request, path: str, params: Any = None) -> tuple[Any, ApiRefusal | None]:
        """Return the answer and None, or None and the refusal: for a part of a page that the others do without."""
        try:
            return await self.get(request, path, params), None
        except ApiRefusal as refusal:
            if refusal.status == 401:
                raise
            return None, refusal

    async def try_post(self, request: Request, path: str, body: Any) -> tuple[Any, ApiRefusal | None]:
        """Return the answer and None, or None and the refusal, as `try_get`."""
        try:
            return await self.post(request, path, body), None
        except ApiRefusal as refusal:
            if refusal.status == 401:
                raise
            return None, refusal

    def page(self, request: Request, template: str, status: int = 200, **context: Any) -> Response:
        """Return a page of a template."""
        return self.renderer.page(request, template, status, **context)

    def refuse(self, request: Request, refusal: ApiRefusal) -> Response:
        """Return the page of a refusal."""
        if not hasattr(request.state, "session"):
            request.state.session = None
        return self.renderer.page(request, "error.html", refusal.status, refusal=refusal)
