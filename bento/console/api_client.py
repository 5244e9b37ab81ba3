"""The client of the service's public API, with the credential of a signed-in person."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from starlette.types import ASGIApp

TIMEOUT_S = 10.0
"""Seconds for one answer of the API: more than the API allows itself."""


@dataclass
class ApiRefusal(Exception):  # noqa: N818 - named for what happens
    """An answer of the API that is an error, or no answer: what the page says."""

    status: int
    code: str
    message: str
    fields: tuple[tuple[str, str], ...] = ()


class ApiClient:
    """A client of one API. It keeps no credential: each call brings that of its session.

    Parameters
    ----------
    address
        The API's URL, such as ``http://127.0.0.1:3000``.
    app
        The API as an application of this process, which is called without a network; None for the one at the address.
    """

    def __init__(self, address: str, app: ASGIApp | None = None) -> None:
        self.address = address.rstrip("/")
        self._app = app
        self._client: httpx.AsyncClient | None = None

    async def get(self, credential: str | None, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """Return the answer to a GET.

        Raises
        ------
        ApiRefusal
            For an error, and where the API does not answer.
        """
        shown = {name: value for name, value in (params or {}).items() if value not in (None, "")}
        return await self._send("GET", credential, path, params=shown)

    async def post(self, credential: str | None, path: str, body: Any) -> Any:
        """Return the answer to a POST; raises as `get` does."""
        return await self._send("POST", credential, path, json=body)

    async def delete(self, credential: str | None, path: str) -> Any:
        """Return the answer to a DELETE; raises as `get` does."""
        return await self._send("DELETE", credential, path)

    async def _send(self, method: str, credential: str | None, path: str, **options: Any) -> Any:
        headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}
        try:
            response = await self._connect().request(method, path, headers=headers, **options)
        except (httpx.HTTPError, httpx.InvalidURL):
            message = f"The API at {self.address} does not answer. Start it with `finrisk serve`, or name another with --api."
            raise ApiRefusal(502, "no_answer", message) from None
        if response.is_success:
            return response.json()
        raise _read_refusal(response)

    def _connect(self) -> httpx.AsyncClient:
        """Return the HTTP client, made in the event loop that uses it."""
        if self._client is None:
            transport = None if self._app is None else httpx.ASGITransport(self._app, raise_app_exceptions=False)
            # A proxy of the environment would see every credential.
            self._client = httpx.AsyncClient(base_url=self.address, transport=transport, timeout=TIMEOUT_S, trust_env=False)
        return self._client


def quote_segment(identifier: str) -> str:
    """Return an identifier as one segment of a path."""
    return quote(identifier, safe="")


def _read_refusal(response: httpx.Response) -> ApiRefusal:
    """Return the refusal of an error envelope; of another body, one by the status."""
    try:
        error = response.json()["error"]
        fields = tuple((str(item["field"]), str(item["reason"])) for item in error["fields"])
        return ApiRefusal(response.status_code, str(error["code"]), str(error["message"]), fields)
    except (ValueError, KeyError, TypeError):
        return ApiRefusal(502, "no_api", f"What answers at {response.url.host} is not finrisk's API. Name its address with --api.")
