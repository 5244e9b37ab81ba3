"""Sign-ins that wait for their provider: each is bound to one browser by a cookie, is used once, and ends after some minutes."""

import base64
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from bento.console.sign_in.sessions import hash_identifier

PENDING_COOKIE = "finrisk_console_pending"
"""Name of the cookie that binds a pending sign-in to its browser."""
PENDING_LIFE_S = 10 * 60
"""Seconds for which a person may be with the provider."""
MAX_PENDING = 2_000
"""Pending sign-ins in memory. Beyond that number the oldest one ends."""


@dataclass(frozen=True)
class PendingSignIn:
    """A sign-in that waits for its provider.

    Attributes
    ----------
    state
        Comes back with the person: an answer without it belongs to no sign-in of this browser.
    nonce
        Comes back in the ID token, which is then that of this sign-in.
    verifier
        The secret of PKCE (RFC 7636), without which nobody redeems the authorization code.
    next_path
        The page to which the sign-in leads.
    expires_at
        Second of the store's clock at which it ends.
    """

    state: str
    nonce: str
    verifier: str
    next_path: str
    expires_at: float

    @property
    def challenge(self) -> str:
        """The verifier's challenge by the method S256."""
        return base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")


class PendingSignIns:
    """The pending sign-ins of a process.

    Parameters
    ----------
    clock
        Seconds of a clock that never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pending: OrderedDict[str, PendingSignIn] = OrderedDict()

    def open(self, next_path: str) -> tuple[str, PendingSignIn]:
        """Keep a new pending sign-in; return it after the value of its cookie. All its secrets have 256 random bits."""
        state, nonce, verifier, browser = (secrets.token_urlsafe(32) for _ in range(4))
        pending = PendingSignIn(state, nonce, verifier, next_path, self._clock() + PENDING_LIFE_S)
        self._pending[hash_identifier(browser)] = pending
        if len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)
        return browser, pending

    def take(self, browser: str | None, state: str) -> PendingSignIn | None:
        """Remove and return the pending sign-in of a cookie and a state; None where there is none, or it has ended.

        A wrong state removes nothing: a page of another site, which can send any state, ends no sign-in.
        """
        name = hash_identifier(browser or "")
        pending = self._pending.get(name)
        if pending is None or not hmac.compare_digest(pending.state.encode(), state.encode()):
            return None
        del self._pending[name]
        return pending if self._clock() < pending.expires_at else None
