"""Sessions of signed-in people, in the memory of the process: a restart signs everybody out, and no credential is written anywhere."""

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

COOKIE = "finrisk_console"
"""Name of the cookie with a session's identifier."""
FORM_COOKIE = "finrisk_console_form"
"""Name of the cookie that belongs to the form of the sign-in page, which has no session yet."""
IDLE_S = 30 * 60
"""Seconds without a request after which a session ends."""
LIFE_S = 8 * 3600
"""Seconds after which a session ends whatever happens."""
MAX_SESSIONS = 2_000
"""Sessions in memory. Beyond that number the longest unused one ends."""


@dataclass
class ConsoleSession:
    """A signed-in person.

    Attributes
    ----------
    credential
        API key or bearer token; None where the API is open to its own machine.
    caller, roles
        As `GET /v1/caller` answered.
    csrf
        The token that every form of this session carries.
    notice
        A sentence for the next page.
    draft
        A bank statement that waits for a confirmation.
    """

    credential: str | None
    caller: str
    roles: frozenset[str]
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    notice: str = ""
    draft: Any = None
    opened_at: float = 0.0
    used_at: float = 0.0


class Sessions:
    """The sessions of a process.

    Parameters
    ----------
    clock
        Seconds of a clock that never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: OrderedDict[str, ConsoleSession] = OrderedDict()
        self._form_key = secrets.token_bytes(32)

    def open(self, session: ConsoleSession) -> str:
        """Keep a session; return its new identifier, of 256 random bits."""
        session.opened_at = session.used_at = self._clock()
        identifier = secrets.token_urlsafe(32)
        self._sessions[hash_identifier(identifier)] = session
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return identifier

    def find(self, identifier: str | None) -> ConsoleSession | None:
        """Return the session of an identifier; None where there is none, or it has ended."""
        if not identifier:
            return None
        name, now = hash_identifier(identifier), self._clock()
        session = self._sessions.get(name)
        if session is None:
            return None
        if now - session.used_at > IDLE_S or now - session.opened_at > LIFE_S:
            del self._sessions[name]
            return None
        session.used_at = now
        self._sessions.move_to_end(name)
        return session

    def close(self, identifier: str | None) -> None:
        """End a session."""
        self._sessions.pop(hash_identifier(identifier or ""), None)

    def sign_form(self, value: str) -> str:
        """Return the token of a form without a session, from the value of its cookie."""
        return hmac.new(self._form_key, value.encode(), hashlib.sha256).hexdigest()

    def is_form_token(self, value: str, token: str) -> bool:
        """Return whether a token belongs to the value of a form's cookie."""
        return bool(value) and hmac.compare_digest(self.sign_form(value), token)


def is_session_token(session: ConsoleSession, token: str) -> bool:
    """Return whether a token is that of a session's forms."""
    return hmac.compare_digest(session.csrf.encode(), token.encode())


def hash_identifier(identifier: str) -> str:
    """Return the hash under which a session is kept: a look-up's time says nothing about an identifier's digits."""
    return hashlib.sha256(identifier.encode()).hexdigest()
