"""A relay between a client and a PostgreSQL server that does something at the moment at which the client sends a given text."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

CHUNK_BYTES = 1 << 13


@dataclass(frozen=True)
class Fault:
    """A fault of a connection, once.

    Attributes
    ----------
    at
        Bytes that the client sends: the fault comes as soon as the server has them.
    do
        What is done then.
    is_answered
        Whether the server answers first; then the connection is cut before the client has the answer.
    after
        Bytes that the client has sent before.
    """

    at: bytes
    do: Callable[[], None] = lambda: None
    is_answered: bool = False
    after: bytes = b""


@contextmanager
def relay(server: str | tuple[str, int], fault: Fault) -> Iterator[int]:
    """Relay connections for the length of a block; yield the port on 127.0.0.1.

    Parameters
    ----------
    server
        The server's socket in the file system, or its host and port.
    """
    pending = [fault]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=_serve, args=(client, server, pending), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _serve(client: socket.socket, server: str | tuple[str, int], pending: list[Fault]) -> None:
    with client, socket.socket(socket.AF_UNIX if isinstance(server, str) else socket.AF_INET) as upstream:
        upstream.connect(server)
        is_cut = threading.Event()
        answers = threading.Thread(target=_copy_answers, args=(upstream, client, is_cut), daemon=True)
        answers.start()
        tail, is_armed = b"", False
        with suppress(OSError):
            while data := client.recv(CHUNK_BYTES):
                tail = tail[-64:] + data
                is_armed = is_armed or bool(pending and pending[0].after in tail)
                fault = pending.pop() if is_armed and pending and pending[0].at in tail else None
                if fault is not None and fault.is_answered:
                    is_cut.set()
                upstream.sendall(data)
                if fault is not None:
                    fault.do()
                if is_cut.is_set():
                    break
        if not is_cut.is_set():
            with suppress(OSError):
                upstream.shutdown(socket.SHUT_WR)
        answers.join()


def _copy_answers(upstream: socket.socket, client: socket.socket, is_cut: threading.Event) -> None:
    """Hand on what the server says; where the connection is to be cut, wait for the answer and keep it."""
    with suppress(OSError):
        while (data := upstream.recv(CHUNK_BYTES)) and not is_cut.is_set():
            client.sendall(data)
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
