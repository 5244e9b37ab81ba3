"""Admission: a request takes a slot when its body is there, and no caller takes more than its share.

BentoML counts a request from its first header on: clients that send their bodies slowly would hold every slot. So the body is read before,
and the service's own bound takes the place of BentoML's.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bento.access.client_address import find_client_address
from bento.context import ANONYMOUS_CALLER, LOCAL_CALLER, current_caller
from bento.problems import MAX_BATCH_BYTES, MAX_BODY_BYTES, Problem

MAX_REQUESTS = 64
"""Requests that one worker answers at a time. More use more memory, and each waits longer."""
MAX_BUFFERED_BYTES = 48 * 1024 * 1024
"""Bytes of the bodies of all requests of one worker. One caller takes up to half, which is three batches of the largest size."""


class FairShare:
    """A resource of which a holder takes at most as much as stays free.

    One holder alone takes half of the resource, a second one a quarter, and so on: the next always finds some. The rule is the dynamic
    threshold of shared-memory switches (Choudhury and Hahne, 1998).

    Parameters
    ----------
    capacity
        Amount of the resource.
    """

    def __init__(self, capacity: int) -> None:
        self._free = capacity
        self._held: dict[str, int] = {}

    def take(self, holder: str, amount: int) -> None:
        """Take an amount for a holder.

        Raises
        ------
        Problem
            429 if the holder would have more than stays free.
        """
        held = self._held.get(holder, 0) + amount
        if amount and held > self._free:
            raise Problem.from_status(429)
        self._held[holder] = held
        self._free -= amount

    def give_back(self, holder: str, amount: int) -> None:
        """Give back an amount that was taken."""
        self._free += amount
        held = self._held.pop(holder, 0) - amount
        if held:
            self._held[holder] = held


class Admission:
    """ASGI middleware inside `AccessMiddleware` that reads a request's body and then passes the request on, where there is a slot.

    A refusal is raised as a `Problem`: 413 for a body that is too large, 429 where the caller has its share.

    Parameters
    ----------
    app
        Application that answers admitted requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._slots = FairShare(MAX_REQUESTS)
        self._bytes = FairShare(MAX_BUFFERED_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/healthz":  # an orchestrator ends a process whose probes are refused
            await self.app(scope, receive, send)
            return
        holder = _find_holder(scope)
        chunks: list[bytes] = []
        try:
            if await self._read_body(receive, holder, chunks, max_body_bytes(scope["path"])):
                self._slots.take(holder, 1)
                try:
                    await self.app(scope, _replay(b"".join(chunks), receive), send)
                finally:
                    self._slots.give_back(holder, 1)
        finally:
            self._bytes.give_back(holder, sum(map(len, chunks)))

    async def _read_body(self, receive: Receive, holder: str, chunks: list[bytes], max_bytes: int) -> bool:
        """Read the body into the chunks; return whether the client stayed to its end."""
        unread_bytes = max_bytes
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            chunk = message.get("body", b"")
            unread_bytes -= len(chunk)
            if unread_bytes < 0:
                raise Problem.from_status(413)
            self._bytes.take(holder, len(chunk))
            chunks.append(chunk)
            if not message.get("more_body", False):
                return True


def max_body_bytes(path: str) -> int:
    """Return the largest accepted body of a request to this path, in bytes."""
    return MAX_BATCH_BYTES if path.startswith("/v1/") and path.endswith("/batch") else MAX_BODY_BYTES


def _find_holder(scope: Scope) -> str:
    """Return the name under which a request takes its share: its caller, or the address of a caller without a credential."""
    caller = current_caller.get()
    return find_client_address(scope) if caller is ANONYMOUS_CALLER or caller is LOCAL_CALLER else caller.name


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a channel with the whole body in one message, and then what the client does."""
    is_read = False

    async def receive_once() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_once
