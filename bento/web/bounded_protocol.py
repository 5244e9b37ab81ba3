"""The HTTP protocol of a worker, with bounds on connections, headers, framing and time.

An ASGI application sees a request only after its headers have been read: these bounds hold in the protocol alone. A refusal leaves in the
error envelope, and its connection is closed. Trailers are dropped. The size of a body is bounded in `admission`.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from secrets import token_hex
from typing import Any

import httptools
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from bento.access.client_address import Network, find_client_address, is_within, parse_networks
from bento.access.roles import PROBE_PATHS
from bento.problems import MAX_HEADER_BYTES, MAX_HEADERS, Problem
from finrisk_assets.settings import Settings

logger = logging.getLogger("finrisk.service")

MAX_PIPELINED = 8
"""Requests of one connection that wait for the answer to an earlier one. A client that pipelines more is cut off."""
PROBE_CONNECTIONS = 32
"""Connections of one worker beyond its limit, for one request each to `PROBE_PATHS`: an orchestrator ends a process whose probes fail."""
PROBE_CONNECTIONS_PER_ADDRESS = 4
"""Connections of these of one address: more than the probes of an orchestrator at a time. With more, fewer addresses could fill all."""
LOG_INTERVAL_S = 10.0
"""Seconds between two log lines about refusals; the second counts what happened in between."""

_TOO_MANY_CONNECTIONS = Problem(503, "too_many_connections", "Too many connections are open; close some, or try again in a moment.")
_HTTP_VERSIONS = ("1.0", "1.1")
_RESPONSE_HEADERS = b"cache-control: no-store\r\nx-content-type-options: nosniff\r\nretry-after: 1\r\nconnection: close\r\n"


@dataclass(frozen=True)
class ConnectionLimits:
    """Bounds on the connections of one worker.

    Attributes
    ----------
    connections, connections_per_address
        Open connections in all, and of one client address. An address of `proxies` has many clients and is bounded by the first alone.
    proxies
        Networks of the trusted proxies.
    header_s, body_s
        Seconds from a connection, or from the first byte of its next request, to the end of the headers; and from there to the end of
        the body.
    write_s
        Seconds for which a client may leave an answer unread.
    probe_s
        Seconds to the end of the headers, and from there to the end of the body, on a connection that is for probes alone.
    """

    connections: int = 512
    connections_per_address: int = 128
    proxies: tuple[Network, ...] = ()
    header_s: float = 5.0
    body_s: float = 10.0
    write_s: float = 10.0
    probe_s: float = 1.0

    @classmethod
    def from_settings(cls, settings: Settings) -> "ConnectionLimits":
        """Return the limits of a worker.

        Raises
        ------
        SettingsError
            If a trusted proxy is no address.
        """
        return cls(settings.max_connections, settings.max_connections_per_address, parse_networks(settings.trusted_proxies))


def bound_connections(limits: ConnectionLimits, count_refusal: Callable[[str], None]) -> None:
    """Make every HTTP server of this process that starts from now on keep within these limits.

    Parameters
    ----------
    limits
        Bounds of the server.
    count_refusal
        Counts a refusal by its reason, which is the code of its problem.
    """
    # BentoML's worker creates the server and lets nobody choose its protocol.
    HTTP_PROTOCOLS["auto"] = partial(BoundedProtocol, ConnectionTable(limits, count_refusal))  # type: ignore[assignment]


class ConnectionUse(Enum):
    """The use of a connection: any requests; one request to a probe, because all other connections are taken; nothing."""

    REQUEST = auto()
    PROBE = auto()
    NONE = auto()


class ConnectionTable:
    """The open connections of one worker by address, and its refusals.

    Parameters
    ----------
    limits
        Bounds of the worker.
    count_refusal
        Counts a refusal by its reason.
    clock
        Seconds of a clock that never goes back.
    """

    def __init__(self, limits: ConnectionLimits, count_refusal: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._count_refusal = count_refusal
        self._clock = clock
        # Connections by address.
        self._requesting: Counter[str] = Counter()
        self._probing: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()  # since the last log line
        self._logged_at = float("-inf")

    def add(self, client: tuple[str, int] | None) -> ConnectionUse:
        """Add a connection; return its use."""
        address = find_client_address({"client": client})
        is_proxy = client is None or is_within(client[0], self.limits.proxies)
        if not is_proxy and self._requesting[address] >= self.limits.connections_per_address:
            return ConnectionUse.NONE
        if self._requesting.total() < self.limits.connections:
            self._requesting[address] += 1
            return ConnectionUse.REQUEST
        if self._probing.total() < PROBE_CONNECTIONS and self._probing[address] < PROBE_CONNECTIONS_PER_ADDRESS:
            self._probing[address] += 1
            return ConnectionUse.PROBE
        return ConnectionUse.NONE

    def remove(self, client: tuple[str, int] | None, use: ConnectionUse) -> None:
        """Remove a connection that was added with this use."""
        if use is ConnectionUse.NONE:
            return
        counts = self._requesting if use is ConnectionUse.REQUEST else self._probing
        address = find_client_address({"client": client})
        counts[address] -= 1
        if not counts[address]:
            del counts[address]

    def note_refusal(self, reason: str) -> None:
        """Count a refusal, and log at most one line in `LOG_INTERVAL_S`: a client could fill the disk with one line per request."""
        self._count_refusal(reason)
        self._refusals[reason] += 1
        now = self._clock()
        if now - self._logged_at >= LOG_INTERVAL_S:
            counts = ", ".join(f"{count} {code}" for code, count in sorted(self._refusals.items()))
            logger.warning("connections were refused before their request was read: %s", counts)
            self._refusals.clear()
            self._logged_at = now


class _Phase(Enum):
    IDLE = auto()
    HEADERS = auto()
    BODY = auto()


class BoundedProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP/1.1 protocol with bounds on what a connection, and an address, can take.

    Parameters
    ----------
    table
        Connections of the worker.
    """

    def __init__(self, table: ConnectionTable, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = table
        self._limits = table.limits
        self._use = ConnectionUse.NONE
        self._phase = _Phase.HEADERS
        self._message_number = 0
        self._wire_bytes = 0  # of the current message
        self._body_bytes = 0  # of these, without chunk sizes and trailers
        self._is_refused = False
        self._timed: tuple[int, _Phase] | None = None  # what the deadline is for
        self._read_deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None

    # Connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._use = self._table.add(self.client)
        if self._use is ConnectionUse.NONE:
            self._refuse(_TOO_MANY_CONNECTIONS)
        else:
            self._update_read_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._table.remove(self.client, self._use)
        for deadline in (self._read_deadline, self._write_deadline):
            if deadline is not None:
                deadline.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_write_deadline()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_deadline is not None and not self.transport.is_closing():
            self._write_deadline.cancel()
            self._write_deadline = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._start_write_deadline()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._start_write_deadline()

    def _start_write_deadline(self) -> None:
        """End the connection where the client does not read: the transport closes only after its last byte is sent."""
        if self._write_deadline is None:
            self._write_deadline = self.loop.call_later(self._limits.write_s, self.transport.abort)

    # Request.

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._phase is _Phase.IDLE:
            self._begin_headers()
        unread = memoryview(data)
        while unread and not self._is_refused:
            part, unread = unread[:MAX_HEADER_BYTES], unread[MAX_HEADER_BYTES:]
            self._wire_bytes += len(part)
            try:
                self.parser.feed_data(part)
            except httptools.HttpParserUpgrade:
                self.cycle.keep_alive = False  # answered as a plain request: the service speaks no other protocol
                break
            except httptools.HttpParserError as error:
                # A problem that a callback raised is the context of the parser's own error.
                self._refuse(error.__context__ if isinstance(error.__context__, Problem) else Problem.from_status(400))
                break
            # Chunk sizes and trailers count as headers: the parser keeps a header until it is complete.
            if self._phase is not _Phase.IDLE and self._wire_bytes > MAX_HEADER_BYTES + 2 * self._body_bytes:
                self._refuse(Problem.from_status(431))
        self._update_read_deadline()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._phase is _Phase.IDLE:
            self._begin_headers()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is _Phase.BODY:
            # A trailer: it comes after the request was authorized, and the application would read it as a header, or not, by its packet.
            return
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            raise Problem.from_status(431)  # ends the parser, and `data_received` refuses

    def on_headers_complete(self) -> None:
        self._check_headers()
        super().on_headers_complete()
        self._phase = _Phase.BODY
        if self._use is ConnectionUse.PROBE:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = _Phase.IDLE
        super().on_message_complete()

    def _should_upgrade(self) -> bool:
        return False

    def _begin_headers(self) -> None:
        self._phase = _Phase.HEADERS
        self._message_number += 1
        self._wire_bytes = self._body_bytes = 0

    def _check_headers(self) -> None:
        """Raise the problem of a request that shows in its complete headers."""
        version = self.parser.get_http_version()
        if version not in _HTTP_VERSIONS:
            raise Problem.from_status(505)
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        # HTTP/1.0 has no chunks: a proxy of that version would find another end of the body (RFC 9112, 6.1).
        if len(self.pipeline) >= MAX_PIPELINED or (codings and version == "1.0"):
            raise Problem.from_status(400)
        if any(coding != b"chunked" for coding in codings):
            raise Problem.from_status(501)
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEADER_BYTES:
            raise Problem.from_status(431)
        if self._use is ConnectionUse.PROBE and self.url.partition(b"?")[0].decode("latin-1") not in PROBE_PATHS:
            raise _TOO_MANY_CONNECTIONS

    # Refusal.

    def _update_read_deadline(self) -> None:
        """Start the clock of a message's headers or of its body where it does not run, and stop the one of the phase before."""
        timed = None if self._is_refused or self._phase is _Phase.IDLE else (self._message_number, self._phase)
        if timed == self._timed:
            return
        self._timed = timed
        if self._read_deadline is not None:
            self._read_deadline.cancel()
            self._read_deadline = None
        if timed is None:
            return
        if self._use is ConnectionUse.PROBE:
            seconds, problem = self._limits.probe_s, _TOO_MANY_CONNECTIONS
        else:
            seconds = self._limits.header_s if self._phase is _Phase.HEADERS else self._limits.body_s
            problem = Problem.from_status(408)
        self._read_deadline = self.loop.call_later(seconds, self._refuse, problem)

    def _refuse(self, problem: Problem) -> None:
        """Close the connection, and answer with a problem where the answer cannot be taken for another request's."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        self._table.note_refusal(problem.code)
        if self._is_answer_due():
            current_id = token_hex(16)
            body = problem.to_json(current_id)
            headers = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nx-request-id: {current_id}\r\n".encode()
            self.transport.write(STATUS_LINE[problem.status] + headers + _RESPONSE_HEADERS + b"\r\n" + body)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
        self._start_write_deadline()

    def _is_answer_due(self) -> bool:
        """Return whether the message that is being read is the next to be answered, and its answer has not begun."""
        if self.pipeline:
            return False
        if self._phase is _Phase.BODY:
            return not self.cycle.response_started
        return self.cycle is None or self.cycle.response_complete
