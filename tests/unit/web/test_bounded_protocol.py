"""Tests of the bounded protocol, on a server of this process with a small application behind it."""

import json
import socket
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager
from functools import partial

import pytest
import uvicorn

from bento.access.client_address import parse_networks
from bento.access.roles import PROBE_PATHS
from bento.problems import MAX_HEADER_BYTES, MAX_HEADERS
from bento.web.bounded_protocol import (
    LOG_INTERVAL_S,
    MAX_PIPELINED,
    PROBE_CONNECTIONS_PER_ADDRESS,
    BoundedProtocol,
    ConnectionLimits,
    ConnectionTable,
)
from finrisk_assets.settings import Settings, SettingsError

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LARGE = 16_000_000
"""Bytes of an answer that no socket buffer holds."""


async def echo(scope, receive, send):
    """Answer with the body; on /large with many bytes, on /early before the body is there, on /slow after a second message.

    On /headers the answer is the names of the headers, once the body is there.
    """
    body = b""
    if scope["path"] != "/early":
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
    if scope["path"] == "/slow":
        await receive()
    if scope["path"] == "/headers":
        body = b" ".join(name for name, _ in scope["headers"])
    body = b"x" * LARGE if scope["path"] == "/large" else body
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


class Running:
    """A server that runs, and what it refused."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.refused: Counter[str] = Counter()
        self._table = ConnectionTable(limits, lambda reason: self.refused.update([reason]))
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(echo, http=partial(BoundedProtocol, self._table), lifespan="off", log_config=None)
        self.server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.server.run, args=([listener],))
        self._thread.start()

    def stop(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self._thread.join(10)

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10, source_address=(source, 0))

    def ask(self, *parts: bytes) -> bytes:
        """Send parts one after the other on one connection; return all that comes until the server closes it."""
        return self.ask_from("127.0.0.1", *parts)

    def ask_from(self, source: str, *parts: bytes) -> bytes:
        with closing(self.connect(source)) as connection:
            for part in parts:
                connection.sendall(part)
                time.sleep(0.02)
            return read_all(connection)


@contextmanager
def running(**limits):
    server = Running(ConnectionLimits(**limits))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server():
    with running(header_s=0.4, body_s=0.4, write_s=0.4) as started:
        yield started


def read_all(connection: socket.socket) -> bytes:
    """Return all bytes until the server closes the connection."""
    content = bytearray()
    while part := receive(connection):
        content += part
    return bytes(content)


def receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65_536)
    except ConnectionResetError:
        return b""


def read_problem(answer: bytes, status: int) -> str:
    """Return the code of an answer that is one error envelope on a connection that is closed."""
    head, _, body = answer.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert int(head[9:12]) == status
    assert headers["connection"] == "close"
    assert headers["cache-control"] == "no-store"
    error = json.loads(body)["error"]
    assert error["request_id"] == headers["x-request-id"]
    return error["code"]


def test_a_request_is_answered_and_its_connection_kept(server):
    with closing(server.connect()) as connection:
        for body in (b"", b"x" * 200_000):
            connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            answer = b""
            while not answer.endswith(b"\r\n\r\n" + body):
                answer += connection.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200")


def test_a_body_in_chunks_is_answered(server):
    chunks = b"".join(b"%x\r\n%s\r\n" % (100, b"x" * 100) for _ in range(2_000)) + b"0\r\n\r\n"

    answer = server.ask(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunks)

    assert answer.startswith(b"HTTP/1.1 200") and answer.count(b"x") == 200_000


@pytest.mark.parametrize("cut", [0, 1, 4, 40, 60], ids=lambda cut: f"cut {cut} bytes before the end")
def test_trailers_are_no_headers_whatever_the_packets(server, cut):
    head = b"POST /headers HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    request = head + b"1\r\na\r\n0\r\nX-API-Key: k\r\nIdempotency-Key: i\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n"

    answer = server.ask(request[: len(request) - cut], request[len(request) - cut :])

    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.partition(b"\r\n\r\n")[2] == b"host transfer-encoding connection"


@pytest.mark.parametrize(
    "headers",
    [
        b"GET /" + b"a" * MAX_HEADER_BYTES + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"a" * MAX_HEADER_BYTES,
        b"GET / HTTP/1.1\r\n" + b"a" * MAX_HEADER_BYTES,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (MAX_HEADERS + 2),
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * 2 * MAX_HEADER_BYTES,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: " + b"a" * 2 * MAX_HEADER_BYTES,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * MAX_HEADER_BYTES,
    ],
    ids=["path", "value", "name", "number", "chunk extension", "trailer", "tiny chunks"],
)
def test_headers_and_framing_without_end_are_refused(server, headers):
    assert read_problem(server.ask(headers), 431) == "headers_too_large"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http:// HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_what_the_parser_refuses_leaves_in_the_envelope(server, sent):
    assert read_problem(server.ask(sent), 400) == "bad_request"


@pytest.mark.parametrize("version", [b"", b" HTTP/0.9", b" HTTP/2.0"])
def test_other_versions_of_the_protocol_are_refused(server, version):
    assert read_problem(server.ask(b"GET /" + version + b"\r\n\r\n"), 505) == "unsupported_version"


@pytest.mark.parametrize("codings", [b"gzip", b"gzip, chunked", b"identity"])
def test_other_transfer_codings_than_chunks_are_refused(server, codings):
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: %s\r\n\r\n" % codings
    assert read_problem(server.ask(head + b"1\r\na\r\n0\r\n\r\n"), 501) == "unsupported_transfer_coding"


def test_chunks_of_the_version_without_chunks_are_refused(server):
    sent = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert read_problem(server.ask(sent), 400) == "bad_request"


@pytest.mark.parametrize(
    "part",
    [b"", b"G", b"GET / HTTP/1.1\r\nHost: a\r\n", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc", b"\r\n"],
    ids=["nothing", "a byte", "half of the headers", "half of the body", "empty lines"],
)
def test_a_request_that_does_not_end_is_given_up(server, part):
    assert read_problem(server.ask(part), 408) == "request_timeout"


def test_a_byte_now_and_then_buys_no_time(server):
    with closing(server.connect()) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        answer = b""
        while not answer:
            connection.settimeout(0.05)
            try:
                answer = connection.recv(65_536)
            except TimeoutError:
                connection.sendall(b"a")
    assert read_problem(answer, 408) == "request_timeout"


def test_a_body_that_comes_after_its_answer_is_not_answered_again(server):
    answer = server.ask(b"POST /early HTTP/1.1\r\nContent-Length: 5\r\n\r\n", b"abc")

    assert answer.startswith(b"HTTP/1.1 200") and answer.count(b"HTTP/1.1") == 1


def test_a_fault_behind_a_request_in_progress_is_not_taken_for_its_answer(server):
    assert server.ask(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", b"no HTTP\r\n\r\n") == b""


def test_requests_in_a_row_are_answered_and_a_flood_of_them_is_cut_off(server):
    assert server.ask(GET * 3).count(b"HTTP/1.1 200") == 3
    slow = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
    assert server.ask(slow + GET * (MAX_PIPELINED + 1)) == b""


def test_an_answer_that_nobody_reads_is_given_up(server):
    with closing(server.connect()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(1.0)
        assert len(read_all(connection)) < LARGE


def test_another_protocol_is_not_spoken(server):
    upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"

    answer = server.ask(upgrade + GET)

    assert answer.startswith(b"HTTP/1.1 200") and answer.count(b"HTTP/1.1") == 1


def test_an_address_has_its_connections_and_the_next_one_its_own():
    with running(connections=5, connections_per_address=3) as server:
        kept = [server.connect() for _ in range(3)]
        time.sleep(0.2)
        with closing(server.connect()) as refused:
            assert read_problem(read_all(refused), 503) == "too_many_connections"
        kept += [server.connect("127.0.0.2") for _ in range(2)]
        kept[-1].sendall(GET)
        assert kept[-1].recv(100).startswith(b"HTTP/1.1 200")
        with closing(server.connect("127.0.0.3")) as refused:
            assert read_problem(read_all(refused), 503) == "too_many_connections"
        for connection in kept:
            connection.close()
        time.sleep(0.2)
        assert server.ask(b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200"), "a closed connection counts no longer"
        assert server.refused == {"too_many_connections": 2}


def test_a_trusted_proxy_is_bounded_by_the_number_of_all_connections_alone():
    with running(connections=4, connections_per_address=1, proxies=parse_networks("127.0.0.0/30")) as server:
        kept = [server.connect() for _ in range(4)]
        kept[-1].sendall(GET)
        assert kept[-1].recv(100).startswith(b"HTTP/1.1 200")
        with closing(server.connect()) as refused:
            assert read_problem(read_all(refused), 503) == "too_many_connections"
        for connection in kept:
            connection.close()


@pytest.mark.parametrize("path", PROBE_PATHS)
def test_probes_are_answered_while_all_connections_are_taken(path):
    probe = b"GET %s?verbose=1 HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode()
    with running(connections=4, connections_per_address=2, header_s=30) as server:
        kept = [server.connect(source) for source in ("127.0.0.2", "127.0.0.3") for _ in range(2)]
        time.sleep(0.2)
        answer = server.ask(probe + probe)
        assert answer.startswith(b"HTTP/1.1 200") and b"connection: close" in answer
        assert answer.count(b"HTTP/1.1") == 1, "the connection is for one request"
        assert read_problem(server.ask(GET), 503) == "too_many_connections"
        assert read_problem(server.ask(b"GET /livez/../v1/models HTTP/1.1\r\n\r\n"), 503) == "too_many_connections"
        assert read_problem(server.ask_from("127.0.0.2", probe), 503) == "too_many_connections"
        for connection in kept:
            connection.close()
        time.sleep(0.2)
        assert server.ask(GET + GET.replace(b"Host", b"Connection: close\r\nHost")).count(b"HTTP/1.1 200") == 2


def test_connections_for_probes_are_shared_by_address_and_given_up_soon():
    probe = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
    with running(connections=1, header_s=30, probe_s=0.5) as server:
        kept = [server.connect("127.0.0.2")]
        time.sleep(0.1)
        half_sent = [server.connect("127.0.0.3") for _ in range(PROBE_CONNECTIONS_PER_ADDRESS)]
        time.sleep(0.1)
        assert read_problem(server.ask_from("127.0.0.3", probe), 503) == "too_many_connections"
        assert server.ask(probe).startswith(b"HTTP/1.1 200")
        for connection in half_sent:
            assert read_problem(read_all(connection), 503) == "too_many_connections"
        assert server.ask_from("127.0.0.3", probe).startswith(b"HTTP/1.1 200")
        for connection in kept + half_sent:
            connection.close()


def test_a_flood_of_refusals_is_counted_and_logged_seldom(caplog):
    now, counted = 0.0, []
    table = ConnectionTable(ConnectionLimits(), counted.append, lambda: now)
    for _ in range(1_000):
        table.note_refusal("bad_request")
    now = LOG_INTERVAL_S
    table.note_refusal("request_timeout")

    assert len(counted) == 1_001
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == ["1 bad_request", "999 bad_request, 1 request_timeout"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"max_connections": 0}, "at least 1"), ({"trusted_proxies": "*"}, "10.0.0.7"), ({"trusted_proxies": "gateway"}, "10.0.0.7")],
)
def test_settings_that_cannot_be_used_are_refused(settings, words):
    with pytest.raises(SettingsError, match=words):
        ConnectionLimits.from_settings(Settings(**settings))
