"""The connection to a service: retries, idempotency keys, and failures as exceptions."""

import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar
from uuid import uuid4

import anyio
import httpx

from .client import AuthenticatedClient, Client
from .models.error_envelope import ErrorEnvelope

Answer = TypeVar("Answer")

KEY_HEADER = "Idempotency-Key"
BUSY = (429, 503)
"""Statuses after which the same request may be sent again: the service has stored nothing."""
FIRST_WAIT_S = 0.2
"""Seconds before the second attempt where the service names none; they double with each attempt."""
LOST_TWICE = ("/v1/feedback",)
"""Paths where a request whose answer was lost is not sent again: a repeated label is a second one."""

_key: ContextVar[str | None] = ContextVar("finrisk_idempotency_key", default=None)


class FinriskError(Exception):
    """An answer that is a failure.

    Attributes
    ----------
    code, message
        The kind of the failure, as docs/service.md lists them, and what to do.
    fields
        The fields of the request that are wrong, each with the reason.
    request_id
        The identifier of the request in the service's log.
    """

    def __init__(self, envelope: ErrorEnvelope) -> None:
        error = envelope.error
        super().__init__(f"{error.code}: {error.message}")
        self.code, self.message, self.request_id = error.code, error.message, error.request_id
        self.fields = {field.field: field.reason for field in error.fields or ()}


def expect(answer: ErrorEnvelope | Answer | None) -> Answer:
    """Return an answer that is no failure.

    Raises
    ------
    FinriskError
        If the service answered with a failure.
    """
    if isinstance(answer, ErrorEnvelope):
        raise FinriskError(answer)
    if answer is None:
        raise TypeError("the service gave an answer that its document does not describe")
    return answer


@contextmanager
def idempotency_key(key: str) -> Iterator[None]:
    """Send the requests of the block under a key of yours: the same request under the same key is decided once, also days later.

    Parameters
    ----------
    key
        1 to 128 visible ASCII characters, unique per caller. Use one key for each request.
    """
    token = _key.set(key)
    try:
        yield
    finally:
        _key.reset(token)


def connect(
    base_url: str,
    api_key: str | None = None,
    *,
    attempts: int = 4,
    longest_wait_s: float = 30.0,
    timeout_s: float = 10.0,
    transport: httpx.BaseTransport | None = None,
    async_transport: httpx.AsyncBaseTransport | None = None,
) -> Client | AuthenticatedClient:
    """Return a client of a service for the functions of `finrisk_client.api`, both their `sync` and their `asyncio` kind.

    A request is sent again after 429 or 503, when `Retry-After` says so, and after a lost connection. Every POST has an idempotency key,
    the same one in all its attempts, so that it is decided once.

    Parameters
    ----------
    base_url
        Address of the service, as in ``https://risk.example.com``.
    api_key
        API key, or token of the identity provider; None for a service that asks for none.
    attempts
        Number of attempts at most, the first one included.
    longest_wait_s
        Seconds between two attempts at most. Where the service asks for more, its answer is returned at once.
    timeout_s
        Seconds for one attempt.
    transport, async_transport
        What carries one attempt; by default httpx's own.
    """
    retries = _Retries(attempts, longest_wait_s)
    agent, timeout = {"User-Agent": "finrisk-client"}, httpx.Timeout(timeout_s)
    headers = agent if api_key is None else agent | {"Authorization": f"Bearer {api_key}"}
    client = (
        Client(base_url=base_url, headers=agent, timeout=timeout)
        if api_key is None
        else AuthenticatedClient(base_url=base_url, headers=agent, timeout=timeout, token=api_key)
    )
    inner, async_inner = transport or httpx.HTTPTransport(), async_transport or httpx.AsyncHTTPTransport()
    client.set_httpx_client(httpx.Client(base_url=base_url, headers=headers, timeout=timeout, transport=RetryTransport(inner, retries)))
    client.set_async_httpx_client(
        httpx.AsyncClient(base_url=base_url, headers=headers, timeout=timeout, transport=AsyncRetryTransport(async_inner, retries))
    )
    return client


class _Retries:
    """The rules of repetition: which outcome of an attempt is followed by another attempt, and after how long."""

    def __init__(self, attempts: int, longest_wait_s: float) -> None:
        self._attempts, self._longest_wait_s = attempts, longest_wait_s

    def prepare(self, request: httpx.Request) -> None:
        """Give a POST its idempotency key."""
        if request.method == "POST" and KEY_HEADER not in request.headers:
            request.headers[KEY_HEADER] = _key.get() or uuid4().hex

    def find_wait(self, request: httpx.Request, attempt: int, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Return the seconds before the next attempt; None where there is none."""
        if attempt >= self._attempts:
            return None
        wait = FIRST_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
        if isinstance(outcome, httpx.Response):
            if outcome.status_code not in BUSY:
                return None
            asked = outcome.headers.get("Retry-After", "")
            wait = float(asked) if asked.isdigit() else wait
            return wait if wait <= self._longest_wait_s else None
        if not isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout) and request.url.path in LOST_TWICE:
            return None
        return min(wait, self._longest_wait_s)


class RetryTransport(httpx.BaseTransport):
    """A transport that repeats what may be repeated."""

    def __init__(self, inner: httpx.BaseTransport, retries: _Retries, sleep: Callable[[float], None] = time.sleep) -> None:
        self._inner, self._retries, self._sleep = inner, retries, sleep

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request until an attempt is final, and return its answer."""
        self._retries.prepare(request)
        attempt = 1
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._inner.handle_request(request)
            except httpx.TransportError as error:
                outcome = error
            wait = self._retries.find_wait(request, attempt, outcome)
            if isinstance(outcome, httpx.Response):
                if wait is None:
                    return outcome
                outcome.close()
            elif wait is None:
                raise outcome
            self._sleep(wait)
            attempt += 1

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


class AsyncRetryTransport(httpx.AsyncBaseTransport):
    """The same for an event loop."""

    def __init__(self, inner: httpx.AsyncBaseTransport, retries: _Retries, sleep: Callable[[float], Awaitable[None]] = anyio.sleep) -> None:
        self._inner, self._retries, self._sleep = inner, retries, sleep

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request until an attempt is final, and return its answer."""
        self._retries.prepare(request)
        attempt = 1
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = await self._inner.handle_async_request(request)
            except httpx.TransportError as error:
                outcome = error
            wait = self._retries.find_wait(request, attempt, outcome)
            if isinstance(outcome, httpx.Response):
                if wait is None:
                    return outcome
                await outcome.aclose()
            elif wait is None:
                raise outcome
            await self._sleep(wait)
            attempt += 1

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()
