"""The credential of a request, as its headers show it."""

from starlette.types import Scope

from bento.access.access_denied import AccessDenied

CREDENTIAL_HEADERS = frozenset({b"authorization", b"x-api-key"})
"""Headers that hold a credential. `AccessMiddleware` removes these headers from the request."""


def read_credential(scope: Scope) -> str | None:
    """Return the one credential of a request; None where the request has none.

    Raises
    ------
    AccessDenied
        If the request has several credentials, an empty one, or a scheme other than Bearer.
    """
    sent = [(name, value.decode("latin-1").strip()) for name, value in scope["headers"] if name in CREDENTIAL_HEADERS]
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
