"""Who asks: the caller of the request that is being answered."""

from contextvars import ContextVar
from dataclasses import dataclass

ROLES = frozenset({"scorer", "analyst", "auditor", "privacy", "admin"})
"""What a caller may be; `bento.security` says which routes each may call."""


@dataclass(frozen=True)
class Caller:
    """Somebody who asks.

    Attributes
    ----------
    name
        ``key:<id>`` for an API key, ``jwt:<pseudonym>`` for a bearer token, ``local`` where the service stands open on this machine. It
        stands in logs and in the audit: never a person's name.
    roles
        What they may do, of `ROLES`.
    """

    name: str
    roles: frozenset[str]


LOCAL = Caller("local", ROLES)
"""Whoever asks a service that is open to its own machine alone, and the operator's commands."""
current: ContextVar[Caller] = ContextVar("caller", default=LOCAL)
