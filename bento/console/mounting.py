"""The console beside the API: an ASGI application that answers ``/console`` with the console, and every other path with the API."""

import asyncio
from functools import cached_property

from starlette.types import ASGIApp, Receive, Scope, Send

from finrisk_assets.settings import Settings

PATH = "/console"


class ConsoleMount:
    """ASGI application of an API with its console. The console is imported and built for the first request to it.

    Parameters
    ----------
    api
        The API, with all its middleware: the console calls it as any client does, in this process.
    """

    def __init__(self, api: ASGIApp) -> None:
        self.api = api
        self._lock = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == PATH or path.startswith(f"{PATH}/")):
            await self.api(scope, receive, send)
            return
        if "_console" not in self.__dict__:
            async with self._lock:  # decisions go on while the modules are imported
                await asyncio.to_thread(lambda: self._console)
        await self._console(scope, receive, send)

    @cached_property
    def _console(self) -> ASGIApp:
        from bento.console.api_client import ApiClient
        from bento.console.console_app import build_console
        from bento.console.outside_links import OutsideLinks
        from bento.console.sign_in.oidc_client import OidcClient

        settings = Settings.from_environment()
        api = ApiClient("http://localhost", self.api)
        return build_console(api, OutsideLinks.from_settings(settings), OidcClient.from_settings(settings))
