"""Access control: authenticate the caller of a request, and authorize the caller for the route.

A request shows an API key (`api_keys`) or a bearer token (`token_verifier`); `roles` says which routes its roles may call, `rate_limits`
how often. A service that never had a key and has no token issuer is open, to its own machine alone. `access_middleware` applies the
decision to requests.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from bento.access.access_denied import AccessDenied
from bento.access.api_keys import KEY_PREFIX, ApiKey, KeyRejected, KeysUnavailable, KeyVerifier, find_recorded_revocations, list_keys
from bento.access.client_address import find_client_address, is_cross_site, is_direct
from bento.access.credentials import read_credential
from bento.access.rate_limits import Rate, RateLimiter
from bento.access.roles import OPEN, RoleTable
from bento.access.token_issuer import IssuerKeysUnavailable, TokenIssuer, TokenRejected
from bento.context import ANONYMOUS_CALLER, LOCAL_CALLER, Caller, current_caller
from bento.problems import Problem
from bento.store.database import StoreBusy
from bento.store.keyring import CLOSED
from bento.store.session import Store, StoreThread, write_transaction
from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    from bento.access.token_verifier import TokenVerifier


_AUDIT_RATE = Rate(per_second=1.0, burst=100)
"""Refusals that are written into the audit. Refusals beyond the rate are only counted: otherwise any client could fill the disk."""
KEY_WAIT_S = 0.5
"""Seconds that a request waits for the keys to be read again. A longer time delays requests where the store is locked."""


class AccessControl:
    """The access rules of one worker.

    Parameters
    ----------
    keys
        Verifier of API keys.
    tokens
        Verifier of bearer tokens; None where no token is accepted.
    authenticated_rate, anonymous_rate
        Rate of each authenticated caller; rate of each address without an accepted credential.
    count_refusal
        Counts a refusal by its reason.
    audit_refusal
        Writes a refusal into the audit: its reason, the caller's name (None where unknown), and the address.
    clock
        Seconds of a clock that never goes back.
    thread
        The thread in which the store's keys are read where the store is not free at once; None where reading never waits.
    """

    def __init__(
        self,
        keys: KeyVerifier,
        tokens: "TokenVerifier | None",
        authenticated_rate: Rate,
        anonymous_rate: Rate,
        count_refusal: Callable[[str], None],
        audit_refusal: Callable[[str, str | None, str], None],
        clock: Callable[[], float] = time.monotonic,
        thread: StoreThread | None = None,
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._authenticated_limiter = RateLimiter(authenticated_rate, clock)
        self._anonymous_limiter = RateLimiter(anonymous_rate, clock)
        self._audit_limiter = RateLimiter(_AUDIT_RATE, clock)
        self._count_refusal = count_refusal
        self._audit_refusal = audit_refusal
        self._table = RoleTable()
        self._thread = thread
        self._refresh_task: asyncio.Task[None] | None = None

    @classmethod
    def from_settings(cls, settings: Settings, store: Store, count_refusal: Callable[[str], None]) -> "AccessControl":
        """Return the access rules of a worker with an open store.

        Raises
        ------
        SettingsError
            If the settings of the token issuer are incomplete.
        """
        keyring, issuer = store.keyring, TokenIssuer.from_settings(settings)

        def read_keys() -> list[ApiKey]:
            with store.reading() as connection:
                revocations = find_recorded_revocations(connection)
                return [key._replace(revoked_at=key.revoked_at or revocations.get(key.id)) for key in list_keys(connection)]

        def had_keys() -> bool:
            with store.reading() as connection:
                return CLOSED in keyring.read_marks(connection)

        def write_refusal(reason: str, caller_name: str | None, address: str) -> None:
            caller = Caller(caller_name or f"address:{keyring.token('address', address)}", frozenset())
            token = current_caller.set(caller)
            try:
                with write_transaction(store):
                    store.audit(f"refuse.{reason}")
            finally:
                current_caller.reset(token)

        def audit_refusal(*refusal: Any) -> None:
            with suppress(Problem):  # the caller is refused where the store fails, too
                try:
                    write_refusal(*refusal)
                except StoreBusy:  # written soon: the answer does not wait for it
                    store.thread.submit(write_refusal, *refusal)

        tokens = None
        if issuer is not None:
            # Imported only here: PyJWT would add a twentieth of a second to the start of every service without an issuer.
            from bento.access.token_verifier import IssuerKeySet, TokenVerifier, read_public_keys

            issuer_keys = IssuerKeySet(partial(read_public_keys, issuer.jwks))
            issuer_keys.load()
            tokens = TokenVerifier(issuer, issuer_keys, partial(keyring.token, "subject"))
        authenticated_rate = Rate(settings.rate_per_second, settings.rate_burst)
        anonymous_rate = Rate(settings.unknown_per_second, settings.unknown_burst)
        keys = KeyVerifier(read_keys, keyring.mac, had_keys=had_keys)
        return cls(keys, tokens, authenticated_rate, anonymous_rate, count_refusal, audit_refusal, thread=store.thread)

    async def authorize(self, scope: Scope) -> Caller:
        """Return the caller of a request that may pass. A refusal is counted and, up to a rate, written into the audit.

        Raises
        ------
        AccessDenied
            If the request may not pass.
        Problem
            If the decision is impossible, because the keys cannot be read: 503.
        """
        await self._refresh_keys()
        try:
            return await self._authorize(scope)
        except AccessDenied as refusal:
            raise self._report(refusal, scope) from None
        except (KeysUnavailable, IssuerKeysUnavailable):
            raise Problem.from_status(503) from None

    async def _authorize(self, scope: Scope) -> Caller:
        if is_cross_site(scope) and not self._table.is_open(scope["method"], scope["path"]):
            raise AccessDenied.cross_site()
        credential = read_credential(scope)
        if credential is not None:
            caller = await self._authenticate(credential)
            wait_s = self._authenticated_limiter.take_token(caller.name)
            if wait_s:
                raise AccessDenied.too_often(wait_s, caller.name)
        elif self.is_open():
            if not is_direct(scope):
                raise AccessDenied.unauthorized("not_local")
            caller = LOCAL_CALLER
        else:
            caller = ANONYMOUS_CALLER
        self._check_roles(caller, scope["method"], scope["path"])
        if caller is ANONYMOUS_CALLER and (wait_s := self._anonymous_limiter.take_token(find_client_address(scope))):
            raise AccessDenied.too_often(wait_s)
        return caller

    async def _refresh_keys(self) -> None:
        """Read the keys again where they are too old. A store that does not answer is waited for only briefly: the former keys hold."""
        if self._thread is None:
            return
        if self._refresh_task is None or self._refresh_task.done():
            try:
                self._keys.refresh()
                return
            except StoreBusy:
                self._refresh_task = asyncio.create_task(self._refresh_keys_in_thread(self._thread))
            except Exception:
                return  # `_authorize` tells whether the former keys still hold
        await asyncio.wait({self._refresh_task}, timeout=KEY_WAIT_S)

    async def _refresh_keys_in_thread(self, thread: StoreThread) -> None:
        with suppress(Exception):  # as in `_refresh_keys`
            await thread.run(self._keys.refresh)

    def is_open(self) -> bool:
        """Return whether the service asks its own machine for no credential."""
        return self._tokens is None and not self._keys.has_keys()

    async def _authenticate(self, credential: str) -> Caller:
        try:
            if credential.startswith(KEY_PREFIX):
                return self._keys.verify(credential)
            if self._tokens is None:
                raise TokenRejected("no_tokens")
            return await self._tokens.verify(credential)
        except KeyRejected as rejection:
            raise AccessDenied.unauthorized(str(rejection), f"key:{rejection.key_id}" if rejection.key_id else None) from None
        except TokenRejected as rejection:
            raise AccessDenied.unauthorized(str(rejection)) from None

    def _check_roles(self, caller: Caller, method: str, path: str) -> None:
        """Refuse a caller without a role of the route, and a route that is not in the table."""
        try:
            roles = self._table.find_route(method, path).roles
        except Problem as no_route:
            if caller is ANONYMOUS_CALLER:  # an anonymous caller does not learn which routes exist
                raise AccessDenied.unauthorized("missing") from None
            raise AccessDenied.no_route(no_route, self._table.allowed_methods(path), caller.name) from None
        if roles is OPEN or caller.roles & roles:
            return
        if caller is ANONYMOUS_CALLER:
            raise AccessDenied.unauthorized("missing")
        needed = " or ".join(sorted(roles))
        problem = replace(Problem.from_status(403), message=f"This route needs the role {needed}.")
        raise AccessDenied("role", problem, [(b"www-authenticate", b'Bearer realm="finrisk", error="insufficient_scope"')], caller.name)

    def _report(self, refusal: AccessDenied, scope: Scope) -> AccessDenied:
        """Count and audit a refusal, and return it. A 401 above the anonymous rate becomes 429."""
        address = find_client_address(scope)
        if refusal.problem.status == 401:
            wait_s = self._anonymous_limiter.take_token(address)
            if wait_s:
                refusal = AccessDenied.too_often(wait_s)
        self._count_refusal(refusal.reason)
        if refusal.problem.status in (401, 403) and not self._audit_limiter.take_token("audit"):
            self._audit_refusal(refusal.reason, refusal.caller_name, address)
        return refusal
