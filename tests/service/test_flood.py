"""Tests of a served process under bounded floods, in both ways of serving: it cuts them off, and answers everybody else."""

import json
import socket
import time
from contextlib import closing, contextmanager
from http.client import HTTPConnection

import pytest

from bento.problems import MAX_HEADER_BYTES
from finrisk_assets.settings import Settings
from tests.service.examples import CASHFLOW_ROW
from tests.service.serving import SINGLE_PROCESS, TWO_PROCESSES, serving, store_models

pytestmark = pytest.mark.slow
OTHER = "127.0.0.2"
"""Address of a caller beside the flood, which comes from 127.0.0.1."""
MAX_CONNECTIONS = Settings().max_connections_per_address
BODY = json.dumps({"features": CASHFLOW_ROW}).encode()


@pytest.fixture(scope="module", params=[TWO_PROCESSES, SINGLE_PROCESS], ids=["two processes", "single process"])
def service(request, tmp_path_factory, bundles):
    home = tmp_path_factory.mktemp("flooded")
    models = store_models(home / "bentoml", {"cashflow": bundles["cashflow"]})
    with serving(models, home, home / "serve.log", request.param, TMPDIR=str(home)) as running:
        yield running


def connect(service, source="127.0.0.1"):
    return socket.create_connection(("127.0.0.1", service.port), timeout=15, source_address=(source, 0))


@contextmanager
def connections(service, number, content):
    """Hold open connections that each sent the same bytes."""
    opened = [connect(service) for _ in range(number)]
    try:
        for connection in opened:
            connection.sendall(content)
        time.sleep(0.5)
        yield opened
    finally:
        for connection in opened:
            connection.close()


def receive(connection):
    """Return the next bytes; none where the server has closed the connection."""
    try:
        return connection.recv(65_536)
    except ConnectionError:
        return b""


def ask_as_other(service, path="/v1/cashflow", *headers):
    """Return the status of a request from another address."""
    head = [f"POST {path} HTTP/1.1", "Host: localhost", "Connection: close", f"Content-Length: {len(BODY)}", *headers, "", ""]
    with closing(connect(service, OTHER)) as connection:
        connection.sendall("\r\n".join(head).encode() + BODY)
        return int(receive(connection)[9:12])


def test_headers_without_end_are_cut_off(service):
    with closing(connect(service)) as connection:
        sent = 0
        try:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nA: ")
            while sent < 50 * 1024 * 1024:
                connection.sendall(b"a" * MAX_HEADER_BYTES)
                sent += MAX_HEADER_BYTES
        except ConnectionError:
            pass
    assert sent < 50 * 1024 * 1024, "headers of 50 MB were taken"
    assert ask_as_other(service) == 200


def test_requests_that_are_half_sent_are_given_up(service):
    with connections(service, 50, b"GET /livez HTTP/1.1\r\nHost: local") as opened:
        answers = [receive(connection) for connection in opened]
    assert {answer[9:12] for answer in answers} == {b"408"}
    assert json.loads(answers[0].partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"


def test_clients_that_send_slowly_hold_no_slot(service):
    head = b"POST /v1/cashflow HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    with connections(service, 64, head) as opened:
        assert ask_as_other(service) == 200
        assert service.post("/v1/cashflow", {"features": CASHFLOW_ROW})[0] == 200, "nor does the same caller wait"
        assert {receive(connection)[9:12] for connection in opened} == {b"408"}


def test_an_address_has_its_connections_and_others_have_theirs(service):
    with connections(service, MAX_CONNECTIONS + 20, b"G") as opened:
        refused = [receive(connection)[9:12] for connection in opened[-20:]]
        assert ask_as_other(service) == 200
    assert refused == [b"503"] * 20


def test_liveness_is_told_while_four_addresses_hold_all_connections(service):
    holders = [f"127.0.0.{number}" for number in range(10, 14)]
    opened = [connect(service, source) for source in holders for _ in range(MAX_CONNECTIONS)]
    try:
        for connection in opened:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: local")
        answers = [ask_as_other(service)] + [service.get(path)[0] for path in ("/livez", "/readyz") for _ in range(20)]
    finally:
        for connection in opened:
            connection.close()
    assert answers == [503] + [200] * 40


@pytest.mark.parametrize("packets", [1, 2])
def test_a_key_in_a_trailer_names_no_decision(service, packets):
    decisions = set()
    for _ in range(2):
        head = b"POST /v1/cashflow HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        chunks, trailer = b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY), b"Idempotency-Key: in-a-trailer\r\n\r\n"
        with closing(connect(service)) as connection:
            for packet in (head + chunks + trailer,) if packets == 1 else (head + chunks, trailer):
                connection.sendall(packet)
                time.sleep(0.1)
            answer = receive(connection)
        assert answer.startswith(b"HTTP/1.1 200")
        decisions.add(json.loads(answer.partition(b"\r\n\r\n")[2])["decision_id"])
    assert len(decisions) == 2


def test_a_fault_of_the_protocol_leaves_in_the_envelope_and_is_logged_seldom(service):
    before = service.log.read_text().count("\n")
    for _ in range(200):
        with closing(connect(service)) as connection:
            connection.sendall(b"\x16\x03\x01\r\n\r\n")
            answer = receive(connection)
            assert answer.startswith(b"HTTP/1.1 400")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"
    assert service.log.read_text().count("\n") <= before + 3


def test_a_forwarded_address_is_believed_of_no_program_of_this_machine(service):
    """An anonymous caller's rate is counted by address: one that names a new address each time would never be refused."""
    statuses = set()
    with closing(HTTPConnection("127.0.0.1", service.port, timeout=10)) as connection:
        for number in range(100):
            connection.request("GET", "/docs", headers={"Authorization": "Bearer finrisk_none", "X-Forwarded-For": f"10.0.0.{number}"})
            response = connection.getresponse()
            response.read()
            statuses.add(response.status)
    assert statuses == {401, 429}
