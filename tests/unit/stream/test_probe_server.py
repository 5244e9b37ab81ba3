"""Tests of the stream's probes: where they listen, and what they say of a place that they cannot have."""

import socket
import urllib.error
import urllib.request

import pytest

from bento.stream.kafka_clients import StreamError
from bento.stream.probe_server import ProbeServer
from tests.service.serving import free_port


def open_server(host: str, port: int) -> ProbeServer:
    return ProbeServer((host, port), lambda: {"store": None}, lambda: True, lambda: (b"", "text/plain"))


def test_it_listens_where_it_is_told_alone():
    port = free_port()
    server = open_server("127.0.0.2", port)
    server.start()
    try:
        assert urllib.request.urlopen(f"http://127.0.0.2:{port}/readyz", timeout=5).status == 200
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5)
    finally:
        server.stop()


def test_a_place_that_it_cannot_have_is_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = (
            f"cannot listen on 127.0.0.1, port {port}: Address already in use; set another FINRISK_STREAM_PORT, or FINRISK_STREAM_HOST"
        )
        with pytest.raises(StreamError, match=message):
            open_server("127.0.0.1", port)
    with pytest.raises(StreamError, match=r"cannot listen on 192\.0\.2\.1"):
        open_server("192.0.2.1", 3100)
