"""The refusal of a request: its reason, its problem and the headers of its answer."""

import math
from collections.abc import Sequence
from dataclasses import replace

from starlette.types import Send

from bento.problems import Problem

_MESSAGES = {
    "missing": "Send an API key or a bearer token: `Authorization: Bearer …`, or `X-API-Key: …`.",
    "malformed": "Send one credential, as `Authorization: Bearer …` or `X-API-Key: …`.",
    "not_local": "This service has no keys yet and answers only direct requests of its own machine. `finrisk keys create` makes a key.",
    "bad_key": "This API key is not known here.",
    "expired_key": "This API key has expired.",
    "revoked_key": "This API key was revoked.",
    "changed_key": "This API key is not as the service stored it. Create another one.",
    "bad_token": "This token is not accepted: it is malformed, not genuine, or not for this service.",
    "expired_token": "This token has expired.",
    "unknown_signer": "This token is signed with a key that its provider does not publish.",
    "no_tokens": "Bearer tokens are not accepted here; send an API key.",
}
"""Message of a 401, by its reason."""
_WITHOUT_CREDENTIAL = frozenset({"missing", "not_local"})


class AccessDenied(Exception):  # noqa: N818 - named for what happens
    """A request that access control refuses.

    Attributes
    ----------
    reason
        One word, which is a metric's label and part of an audit action.
    problem, headers
        The answer to the client.
    caller_name
        Name of the caller; None where the caller is not authenticated.
    """

    def __init__(self, reason: str, problem: Problem, headers: Sequence[tuple[bytes, bytes]] = (), caller_name: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.problem = problem
        self.headers = headers
        self.caller_name = caller_name

    @classmethod
    def unauthorized(cls, reason: str, caller_name: str | None = None) -> "AccessDenied":
        """Return a 401 with the scheme of accepted credentials (RFC 6750)."""
        challenge = b'Bearer realm="finrisk"' + (b"" if reason in _WITHOUT_CREDENTIAL else b', error="invalid_token"')
        problem = replace(Problem.from_status(401), message=_MESSAGES[reason])
        return cls(reason, problem, [(b"www-authenticate", challenge)], caller_name)

    @classmethod
    def cross_site(cls) -> "AccessDenied":
        """Return a 403 for a page of another origin."""
        message = "A page of another origin sent this request. Send it from a program, or from a page that this service serves."
        return cls("cross_site", replace(Problem.from_status(403), message=message))

    @classmethod
    def no_route(cls, problem: Problem, methods: Sequence[str], caller_name: str | None = None) -> "AccessDenied":
        """Return the problem of a request outside the role table, with the methods of its path, if the path has any."""
        return cls("no_route", problem, [(b"allow", ", ".join(methods).encode())] if methods else [], caller_name)

    @classmethod
    def too_often(cls, wait_s: float, caller_name: str | None = None) -> "AccessDenied":
        """Return a 429 with the whole seconds after which the next request is accepted."""
        problem = replace(Problem.from_status(429), message="You ask more often than this service allows; Retry-After says when to go on.")
        return cls("too_often", problem, [(b"retry-after", str(math.ceil(wait_s)).encode())], caller_name)

    async def send_answer(self, send: Send) -> None:
        """Send the answer; `web.envelope` adds the request id."""
        headers = [(b"content-type", b"application/json"), *self.headers]
        await send({"type": "http.response.start", "status": self.problem.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.problem.to_json("")})
