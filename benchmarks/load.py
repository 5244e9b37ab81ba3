"""A client that costs little: so many connections, each sending its next request when the last one is answered.

It speaks as much HTTP/1.1 as the servers under measurement: keep-alive, and answers that say their length.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import numpy as np

_LENGTH = b"content-length:"
_PATIENCE_S = 10.0


@dataclass
class Load:
    """The view that a number of clients had of a server.

    Attributes
    ----------
    seconds
        From the first request to the last answer.
    took
        Seconds of every answered request.
    failures
        Status to the number of its answers, of those that are not 200.
    """

    seconds: float = 0.0
    took: list[float] = field(default_factory=list)
    failures: dict[int, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        return len(self.took) / self.seconds

    def milliseconds(self, quantile: float) -> float:
        """A quantile of the requests' times."""
        return float(np.quantile(self.took, quantile) * 1e3)


def post(path: str, body: bytes) -> bytes:
    """The bytes of a request."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def run(port: int, requests: Iterator[bytes], clients: int, *, seconds: float = 0.0, count: int = 0) -> Load:
    """Load a server for so long, or with so many requests.

    Raises
    ------
    ConnectionError
        Where the server hangs up.
    """
    import uvloop

    return uvloop.run(_run(port, requests, clients, seconds, count))


async def _run(port: int, requests: Iterator[bytes], clients: int, seconds: float, count: int) -> Load:
    load, loop = Load(), asyncio.get_running_loop()
    begun = time.perf_counter()
    stint = _Stint(requests, load, begun + seconds if seconds else float("inf"), count or 1 << 62)
    running = [await loop.create_connection(lambda: _Client(stint, loop), "127.0.0.1", port) for _ in range(clients)]
    try:
        async with asyncio.timeout(seconds + count + _PATIENCE_S):
            await asyncio.gather(*(client.done for _, client in running))
    finally:
        for transport, _ in running:
            transport.close()
    load.seconds = time.perf_counter() - begun
    return load


@dataclass
class _Stint:
    requests: Iterator[bytes]
    load: Load
    until: float
    left: int


class _Client(asyncio.Protocol):
    def __init__(self, stint: _Stint, loop: asyncio.AbstractEventLoop) -> None:
        self._stint = stint
        self.done: asyncio.Future[None] = loop.create_future()
        self._answer = bytearray()
        self._size = 0  # of the whole answer, once its head is there

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._ask()

    def _ask(self) -> None:
        if self._stint.left <= 0 or time.perf_counter() >= self._stint.until:
            self.done.set_result(None)
            return
        self._stint.left -= 1
        self._asked = time.perf_counter()
        self._transport.write(next(self._stint.requests))

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not self._size:
            end = self._answer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._answer[:end]).lower()
            at = head.find(_LENGTH)
            if at < 0:
                self.done.set_exception(ConnectionError("an answer does not say its length"))
                return
            self._size = end + 4 + int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0])
        if len(self._answer) < self._size:
            return
        load, status = self._stint.load, int(self._answer[9:12])
        load.took.append(time.perf_counter() - self._asked)
        if status != 200:
            load.failures[status] = load.failures.get(status, 0) + 1
        self._answer.clear()
        self._size = 0
        self._ask()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError("the server hung up"))
