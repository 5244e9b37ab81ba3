"""Tests of the connection to the store's database: TLS modes and the server's certificate, and SQLite's log."""

import asyncio
import ssl
import struct
import threading
from contextlib import closing, contextmanager

import pytest
from sqlalchemy import make_url, text

from bento.store.database import CHECKPOINT_ROWS, WAL_CHECKPOINT_PAGES, Database, StoreError, StoreUnavailable

REQUEST_OF_TLS = struct.pack("!ii", 8, 80877103)
"""The first message of a PostgreSQL client where it wants TLS (the manual, section 54.2.11)."""


@contextmanager
def in_front(server, certificate):
    """Yield a port on which a proxy speaks TLS for PostgreSQL and refuses plain connections: the tests' own server has no TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    behind = make_url(server.new()).query["unix_sock"]

    async def passed_on(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def answer(reader, writer):
        if await reader.read(8) != REQUEST_OF_TLS:
            writer.close()
            return
        writer.write(b"S")
        try:
            await writer.start_tls(context)
        except (ssl.SSLError, ConnectionError):
            return
        inner, outer = await asyncio.open_unix_connection(behind)
        await asyncio.gather(passed_on(reader, outer), passed_on(inner, writer), return_exceptions=True)

    loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)


@pytest.fixture
def over_tls(postgresql, certificate):
    """Return the URL of a database over TLS, with further parameters."""
    with in_front(postgresql, certificate) as port:
        url = make_url(postgresql.new())
        if "unix_sock" not in url.query:
            pytest.skip("the server that is given is not reached by a socket, which TLS could be put in front of")
        yield url.set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)


def is_tls(url):
    """Return whether the store's connection is encrypted."""
    with closing(Database(url)) as database, database.reading() as connection:
        return isinstance(connection.connection.driver_connection._usock, ssl.SSLSocket)


@pytest.mark.parametrize("mode", ["", "?sslmode=prefer", "?sslmode=require"])
def test_a_server_that_offers_tls_is_spoken_to_in_it(over_tls, mode):
    assert is_tls(over_tls + mode)


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca"])
def test_a_server_that_cannot_prove_who_it_is_is_not_spoken_to(over_tls, certificate, mode):
    assert is_tls(f"{over_tls}?sslmode={mode}&sslrootcert={certificate[0]}")
    for unknown in ("", "&sslrootcert=system"):
        with pytest.raises(StoreUnavailable, match="SSLCertVerificationError"):
            is_tls(f"{over_tls}?sslmode={mode}{unknown}")


def test_a_name_that_is_not_the_servers_is_seen(over_tls, certificate):
    elsewhere = make_url(over_tls).set(host="localhost").render_as_string(hide_password=False)

    assert is_tls(f"{elsewhere}?sslmode=verify-ca&sslrootcert={certificate[0]}")
    with pytest.raises(StoreUnavailable, match="SSLCertVerificationError"):
        is_tls(f"{elsewhere}?sslmode=verify-full&sslrootcert={certificate[0]}")


def test_a_server_without_tls_is_refused_where_it_is_required(postgresql):
    plain = postgresql.new()

    assert not is_tls(plain) and not is_tls(f"{plain}&sslmode=disable")
    with pytest.raises(StoreUnavailable):
        is_tls(f"{plain}&sslmode=require")


@pytest.mark.parametrize("query", ["sslmode=sometimes", "sslmode=require&sslrootcert=/ca.crt", "sslmode=verify-full&sslrootcert=/none.crt"])
def test_words_about_tls_that_mean_nothing_are_refused(query):
    with pytest.raises(StoreError, match=r"sslmode|sslrootcert"):
        Database(f"postgresql://user@host/store?{query}")


def write_rows(database, count):
    """Write rows, each in a transaction of its own."""
    for _ in range(count):
        with database.writing() as connection:
            connection.execute(text("insert into notes values (randomblob(5000))"))


def wait_for_checkpoints():
    for thread in threading.enumerate():
        if thread.name == "finrisk-checkpoint":
            thread.join()


@pytest.fixture
def notes(tmp_path):
    """Return a database with one table, whose log is too short for a commit to write it back."""
    with closing(Database(tmp_path / "notes.sqlite", durable=False)) as database:
        with database.writing() as connection:
            connection.execute(text("create table notes (note blob)"))
        assert 3 * CHECKPOINT_ROWS < WAL_CHECKPOINT_PAGES
        yield database


def test_the_log_of_a_service_is_written_back_beside_its_commits(notes):
    notes.lock.loop_thread = threading.get_ident()
    size = notes.file.stat().st_size
    write_rows(notes, CHECKPOINT_ROWS)

    wait_for_checkpoints()

    assert notes.file.stat().st_size > size + CHECKPOINT_ROWS * 2_500


def test_an_operators_command_starts_no_thread(notes):
    write_rows(notes, CHECKPOINT_ROWS + 1)

    assert all(thread.name != "finrisk-checkpoint" for thread in threading.enumerate())


def test_a_checkpoint_goes_on_after_the_connection_was_opened_again(notes):
    notes.lock.loop_thread = threading.get_ident()
    write_rows(notes, CHECKPOINT_ROWS)
    notes.close()
    size = notes.file.stat().st_size
    write_rows(notes, CHECKPOINT_ROWS)
    wait_for_checkpoints()

    assert notes.file.stat().st_size > size + CHECKPOINT_ROWS * 2_500
