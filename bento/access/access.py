"""Access decisions: which caller a request has, and whether that caller may call its route now.

A request shows an API key (`api_keys`) or a bearer token (`jwt`); `roles` says which routes its roles may call, `rate_limits` how often.
Without any key and any token provider the service is open, to this machine alone. `access_control` applies the decision to requests.
"""

import ipaddress
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.types import Scope, Send

from bento.access.api_keys import PREFIX, BadKey, Key, Keys, Unreadable, kept
from bento.access.rate_limits import Rate, RateLimiter
from bento.access.roles import OPEN, RoleTable
from bento.access.token_provider import BadToken, NoKeys, Provider
from bento.context import LOCAL, Caller, current
from bento.problems import Problem
from bento.store.session import Store, write_transaction
from finrisk_assets.settings import Settings, SettingsError

if TYPE_CHECKING:
    from bento.access.jwt import Tokens


_CREDENTIALS = frozenset({b"authorization", b"x-api-key"})
_PROXIES = frozenset({b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via"})
_RECORDED = Rate(per_second=1.0, burst=100)
"""Refusals that are written into the audit; beyond it they are only counted, or whoever likes could fill the disk."""

_WORDS = {
    "missing": "Send an API key or a bearer token: `Authorization: Bearer …`, or `X-API-Key: …`.",
    "malformed": "Send one credential, as `Authorization: Bearer …` or `X-API-Key: …`.",
    "elsewhere": "This service has no keys yet and answers only direct requests of its own machine. `finrisk keys create` makes a key.",
    "bad_key": "This API key is not known here.",
    "expired_key": "This API key has expired.",
    "revoked_key": "This API key was revoked.",
    "bad_token": "This token is not accepted: it is malformed, not genuine, or not for this service.",
    "expired_token": "This token has expired.",
    "unknown_signer": "This token is signed with a key that its provider does not publish.",
    "no_tokens": "Bearer tokens are not accepted here; send an API key.",
}
_NOBODY = Caller("nobody", frozenset())
"""Who asks an open route without a credential."""


class AccessDenied(Exception):  # noqa: N818 - it is named for what happens
    """A request that goes no further.

    Attributes
    ----------
    reason
        In one word, to be counted.
    problem, headers
        What the client is told.
    who
        The caller's name, where it is known.
    """

    def __init__(self, reason: str, problem: Problem, headers: Sequence[tuple[bytes, bytes]] = (), who: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.problem = problem
        self.headers = headers
        self.who = who

    @classmethod
    def unauthorized(cls, reason: str, who: str | None = None) -> "AccessDenied":
        """401, with the scheme that would do (RFC 6750)."""
        told = b"" if reason in ("missing", "elsewhere") else b', error="invalid_token"'
        return cls(reason, replace(Problem.of(401), message=_WORDS[reason]), [(b"www-authenticate", b'Bearer realm="finrisk"' + told)], who)

    @classmethod
    def too_often(cls, wait: float, who: str | None = None) -> "AccessDenied":
        """429, with the whole seconds until it will do again."""
        problem = replace(Problem.of(429), message="You ask more often than this service allows; Retry-After says when to go on.")
        return cls("too_often", problem, [(b"retry-after", str(math.ceil(wait)).encode())], who)

    async def answer(self, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), *self.headers]
        await send({"type": "http.response.start", "status": self.problem.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.problem.body("")})


class Access:
    """What one worker knows of who may ask what.

    Parameters
    ----------
    keys, tokens
        The API keys, and whose bearer tokens are accepted; None: nobody's.
    known, unknown
        How often somebody may ask who is known, and an address of which nothing is known.
    count
        Counts a refusal, by its reason.
    record
        Puts a refusal into the audit: its reason, and the caller's name or, where it is not known, the address.
    clock
        Seconds that only go forward.
    """

    def __init__(
        self,
        keys: Keys,
        tokens: "Tokens | None",
        known: Rate,
        unknown: Rate,
        count: Callable[[str], None],
        record: Callable[[str, str | None, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._known = RateLimiter(known, clock)
        self._unknown = RateLimiter(unknown, clock)
        self._recorded = RateLimiter(_RECORDED, clock)
        self._count = count
        self._record = record
        self._table = RoleTable()

    @classmethod
    def of(cls, settings: Settings, store: Store, count: Callable[[str], None]) -> "Access":
        """The access of a worker that has opened its store.

        Raises
        ------
        SettingsError
            Where the settings of a provider of tokens are not whole, or a rate lets nobody through.
        """
        keyring, provider = store.keyring, Provider.of(settings)

        def read() -> list[Key]:
            with store.reading() as connection:
                return kept(connection)

        def record(reason: str, who: str | None, address: str) -> None:
            token = current.set(Caller(who or f"address:{keyring.token('address', address)}", frozenset()))
            try:
                with suppress(Problem), write_transaction(store):  # the caller is refused where the store fails, too
                    store.audit(f"refuse.{reason}")
            finally:
                current.reset(token)

        tokens = None
        if provider is not None:
            # Not before: the library for tokens would be a twentieth of a second of the start of every service that has no provider.
            from bento.access.jwt import Jwks, Tokens, read_keys

            jwks = Jwks(partial(read_keys, provider.jwks))
            jwks.load()
            tokens = Tokens(provider, jwks, partial(keyring.token, "subject"))
        known, unknown = Rate(settings.rate_per_second, settings.rate_burst), Rate(settings.unknown_per_second, settings.unknown_burst)
        try:
            return cls(Keys(read, keyring.mac), tokens, known, unknown, count, record)
        except ValueError as error:
            raise SettingsError(f"FINRISK_RATE_… and FINRISK_UNKNOWN_…: {error}") from None

    async def admit(self, scope: Scope) -> Caller:
        """Who asks, where they may.

        Raises
        ------
        Refused
            Where they may not.
        Problem
            Where it cannot be told, because the keys cannot be read.
        """
        try:
            return await self._admit(scope)
        except AccessDenied as refused:
            raise self._noted(refused, scope) from None
        except (Unreadable, NoKeys):
            raise Problem.of(503) from None

    async def _admit(self, scope: Scope) -> Caller:
        credential = _credential(scope)
        if credential is not None:
            caller = await self._holder(credential)
            wait = self._known.wait(caller.name)
            if wait:
                raise AccessDenied.too_often(wait, caller.name)
        elif self._stands_open():
            if not is_direct(scope):
                raise AccessDenied.unauthorized("elsewhere")
            caller = LOCAL
        else:
            caller = _NOBODY
        self._check(caller, scope["method"], scope["path"])
        if caller is _NOBODY and (wait := self._unknown.wait(block(scope))):
            raise AccessDenied.too_often(wait)
        return caller

    def _stands_open(self) -> bool:
        return self._tokens is None and not self._keys.exist()

    async def _holder(self, credential: str) -> Caller:
        try:
            if credential.startswith(PREFIX):
                return self._keys.caller(credential)
            if self._tokens is None:
                raise BadToken("no_tokens")
            return await self._tokens.caller(credential)
        except BadKey as bad:
            raise AccessDenied.unauthorized(str(bad), f"key:{bad.key_id}" if bad.key_id else None) from None
        except BadToken as bad:
            raise AccessDenied.unauthorized(str(bad)) from None

    def _check(self, caller: Caller, method: str, path: str) -> None:
        """Refuse a caller whose roles are not those of the route, and a route that is not in the table."""
        try:
            roles = self._table.line(method, path).roles
        except Problem as none:
            if caller is _NOBODY:  # who is not known learns nothing of which routes there are
                raise AccessDenied.unauthorized("missing") from None
            allow = [(b"allow", ", ".join(self._table.methods(path)).encode())] if none.status == 405 else []
            raise AccessDenied("no_route", none, allow, caller.name) from None
        if roles is OPEN or caller.roles & roles:
            return
        if caller is _NOBODY:
            raise AccessDenied.unauthorized("missing")
        needed = " or ".join(sorted(roles))
        problem = replace(Problem.of(403), message=f"This route needs the role {needed}.")
        raise AccessDenied("role", problem, [(b"www-authenticate", b'Bearer realm="finrisk", error="insufficient_scope"')], caller.name)

    def _noted(self, refused: AccessDenied, scope: Scope) -> AccessDenied:
        """The refusal, counted and recorded; one of too many by somebody unknown becomes 429."""
        if refused.problem.status == 401:
            wait = self._unknown.wait(block(scope))
            if wait:
                refused = AccessDenied.too_often(wait)
        self._count(refused.reason)
        if refused.problem.status in (401, 403) and not self._recorded.wait("audit"):
            self._record(refused.reason, refused.who, block(scope))
        return refused


def _credential(scope: Scope) -> str | None:
    """The one credential of a request; None where it has none."""
    sent = [(name, value.decode("latin-1").strip()) for name, value in scope["headers"] if name in _CREDENTIALS]
    if not sent:
        return None
    name, value = sent[0]
    if name == b"authorization":
        scheme, _, value = value.partition(" ")
        if scheme.lower() != "bearer":
            value = ""
    if len(sent) > 1 or not value.strip():
        raise AccessDenied.unauthorized("malformed")
    return value.strip()


def is_direct(scope: Scope) -> bool:
    """Whether a request was made on this machine, by something that meant this service.

    It came in by the loopback address, through no proxy, under a name of this machine, and from no page of another site: else a page
    in the operator's browser could ask an open service.
    """
    server, headers = scope.get("server"), {name: value.decode("latin-1") for name, value in scope["headers"]}
    if server is None or not _is_here(server[0]) or not _PROXIES.isdisjoint(headers):
        return False
    host, origin = headers.get(b"host", ""), headers.get(b"origin")
    return _name(host) in ("localhost", "127.0.0.1", "::1", server[0]) and (origin is None or urlsplit(origin).netloc == host)


@lru_cache(maxsize=64)
def _is_here(host: str) -> bool:
    """Whether an address is this machine's own; what is no address is a socket in the file system, or a test's."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


@lru_cache(maxsize=64)
def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def block(scope: Scope) -> str:
    """The address that a request comes from; of IPv6 the /64 that one household or server has."""
    client = scope.get("client")
    return _block(client[0]) if client else "unknown"


@lru_cache(maxsize=1_000)
def _block(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "unknown"
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)
