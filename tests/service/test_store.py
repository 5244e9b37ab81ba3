"""Tests of the store on SQLite and PostgreSQL: decisions, transactions, history and snapshots."""

import json
import random
import threading
from contextlib import closing
from datetime import datetime, timedelta
from itertools import chain
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from click.testing import CliRunner
from sqlalchemy import exc, text

from bento.decisions.engine import Decisions
from bento.decisions.scorers.transaction import TransactionScorer
from bento.store import migrations, tables
from bento.store.audit_verify import verify
from bento.store.bulk_load import read_transactions
from bento.store.database import Database, StoreError
from bento.store.records import NewDecision, Transaction, encode_json, make_json_encoder
from bento.store.session import open_store
from finrisk_assets.cli.main import cli
from finrisk_assets.features.online import EventCount, History
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings
from schemas.api import TransactionRequest
from schemas.timestamps import to_micros
from tests.service.databases import store_at
from tests.service.examples import SNAPSHOTS, snapshot_of

NOON = datetime(2024, 5, 6, 12)
ALL_TIME = (datetime(2000, 1, 1), datetime(2100, 1, 1))


def transaction_of(name, minutes=0, **changes):
    return Transaction(name, "5", NOON + timedelta(minutes=minutes), 10.0, "debit", "M", "DE")._replace(**changes)


def new_decision(**changes):
    fields = {
        "id": uuid4().hex, "domain": "transaction_anomaly", "route": "/v1/transactions", "model_version": "5f", "request": b'{"a":1}',
        "answer": b'{"b":2}', "row": np.array([1.5, np.nan], np.float32), "probability": 0.5, "decision": "allow",
        "decision_context": {"pd": 0.1},
    }  # fmt: skip
    return NewDecision(**(fields | changes))


def insert_decision(store, **changes):
    with store.writing():
        store.insert_decisions([new_decision(**changes)])


def test_rows_are_encoded_as_the_standard_library_does():
    """MACs and hashes of rows that are stored already cover these bytes."""
    row = ["decisions", None, True, -7, 0.1, 1e300, 'ä\u2028\x7f"\\\n', ["nested", {"key": []}], ()]
    assert encode_json(row) == json.dumps(row, separators=(",", ":"))
    assert make_json_encoder(allow_nan=True)([float("inf")]) == "[Infinity]"
    with pytest.raises(ValueError, match="JSON compliant"):
        encode_json([float("nan")])


def test_a_decision_is_read_back_as_it_was_kept(store):
    with store.writing():
        person = store.person("5", make=True)
        store.insert_decisions([new := new_decision(person=person), new_decision()])

    first, second = store.decisions()
    assert (first.id, first.person, first.probability, first.decision) == (new.id, person.person, 0.5, "allow")
    assert (first.content.request, first.content.answer, first.content.decision_context) == ({"a": 1}, {"b": 2}, {"pd": 0.1})
    assert first.content.row.tobytes() == new.row.tobytes()
    assert second.person is None
    assert second.content == second.content._replace(request={"a": 1})


def test_decisions_are_told_page_by_page_in_the_order_of_writing(store, monkeypatch):
    ids = []
    for number in range(7):
        one = new_decision(probability=number / 10)
        ids.append(one.id)
        with store.writing():
            store.insert_decisions([one])
    monkeypatch.setattr("bento.store.decisions.PAGE_SIZE", 3)

    assert [one.id for one in store.decisions()] == ids
    assert [one.id for one in store.decisions(after=5)] == ids[5:]


def test_a_decision_is_given_again_by_either_of_its_identifiers(store):
    insert_decision(store, transaction_id="t1", key="k1")

    for identifiers in ({"transaction_id": "t1"}, {"key": "k1"}, {"transaction_id": "t1", "key": "k1"}):
        assert store.find_prior_decision(**identifiers).body == b'{"b":2}'
    assert store.find_prior_decision(transaction_id="t2", key="k2") is None
    assert store.find_prior_decision() is None


def test_nothing_is_kept_twice_under_one_identifier(store):
    insert_decision(store, transaction_id="t1")
    with pytest.raises(exc.IntegrityError):
        insert_decision(store, transaction_id="t1")

    assert len(list(store.decisions())) == 1
    insert_decision(store)  # and the chain goes on
    verdict = verify(store.database, store.keyring)
    assert (verdict.records, verdict.broken) == (2, None)


def test_what_fails_half_way_leaves_nothing(store):
    with pytest.raises(ZeroDivisionError), store.writing():
        store.insert_decisions([new_decision()])
        _ = 1 / 0

    assert list(store.decisions()) == []
    verdict = verify(store.database, store.keyring)
    assert (verdict.records, verdict.broken) == (0, None)


def test_what_fails_in_a_part_leaves_the_rest(store):
    with store.writing():
        store.insert_decisions([first := new_decision()])
        with pytest.raises(exc.IntegrityError), store.savepoint():
            store.insert_decisions([new_decision(id=first.id)])
        store.insert_decisions([second := new_decision()])

    assert [one.id for one in store.decisions()] == [first.id, second.id]
    assert verify(store.database, store.keyring).broken is None


def test_a_clock_that_goes_back_changes_no_order_and_breaks_no_chain(store_url):
    times = iter([10, 30, 20, 5, 40])
    with closing(store_at(store_url, clock=lambda: next(times, 50))) as store:
        next(times)
        ids = []
        for _ in range(3):
            one = new_decision()
            ids.append(one.id)
            with store.writing():
                store.insert_decisions([one])

        assert [one.id for one in store.decisions()] == ids
        assert [one.decided_at for one in store.decisions()] != sorted(one.decided_at for one in store.decisions())
        assert verify(store.database, store.keyring).broken is None


def test_no_identifier_is_in_plain_text(store, store_url):
    secret = ["Lovelace-customer", "Lovelace-merchant", "Lovelace-country", "Lovelace-transaction", "Lovelace-account"]
    with store.writing():
        person = store.person(secret[0], make=True)
        store.insert_transaction(transaction_of(secret[3], customer_id=secret[0], merchant=secret[1], country=secret[2]), person)
        store.insert_decisions([new_decision(person=person, transaction_id=secret[3], request=b'{"user_id":"Lovelace-customer"}')])
    store.load_transactions([transaction_of("Lovelace-2", customer_id=secret[0], merchant=secret[1])])
    store.replace_snapshots([snapshot_of("cashflow", secret[0], {}, secret[4])])

    with store.reading() as connection:
        rows = {table.name: connection.execute(table.select()).all() for table in tables.metadata.sorted_tables}
    assert {name for name, counts_by_entity in rows.items() if counts_by_entity} >= {"people", "transactions", "decisions", "standings"}
    for row in chain.from_iterable(rows.values()):
        assert "Lovelace" not in "".join(bytes(v).decode("latin-1") if isinstance(v, bytes | memoryview) else str(v) for v in row)
    if store.database.file is not None:
        for file in store.database.file.parent.iterdir():
            assert b"Lovelace" not in file.read_bytes()


def test_two_workers_see_each_other(store, store_url):
    with closing(store_at(store_url)) as other, other.writing():
        other.insert_transaction(transaction_of("t1"), other.person("5", make=True))

    assert len(store.history({"customer_id": "5"}, *ALL_TIME)) == 1


def test_a_transaction_is_kept_once_and_told_from_another_of_its_name(store):
    with store.writing():
        person = store.person("5", make=True)
        assert store.insert_transaction(transaction_of("t1"), person)
        assert store.insert_transaction(transaction_of("t1", is_fraud=True), person), "the label is learned later"
        assert not store.insert_transaction(transaction_of("t1", amount=11.0), person)
        assert not store.insert_transaction(transaction_of("t1", merchant=None), person)

    assert len(store.history({"customer_id": "5"}, *ALL_TIME)) == 1


def test_history_is_of_one_entity_and_between_two_moments(store):
    store.load_transactions(
        [
            transaction_of("a", 1),
            transaction_of("b", 2, merchant="N"),
            transaction_of("c", 3),
            transaction_of("d", 4),
            transaction_of("e", 2, customer_id="6"),
        ]
    )

    after, before = NOON + timedelta(minutes=1), NOON + timedelta(minutes=4)
    assert len(store.history({"customer_id": "5"}, after, before)) == 2
    assert len(store.history({"merchant": "M"}, after, before)) == 2
    assert len(store.history({"customer_id": "5", "merchant": "M"}, after, before)) == 1
    assert len(store.history({"customer_id": "5", "country": "DE"}, after, before)) == 2
    assert store.history({"customer_id": "nobody"}, after, before) == []


def test_numbers_of_events_are_those_of_the_events(store):
    """The database's counts equal those over the events, with labels that become known soon, late or never."""
    draw = random.Random(7)
    store.load_transactions(
        transaction_of(
            str(at),
            draw.randint(-9_000, 3),
            customer_id=draw.choice("56"),
            merchant=draw.choice(["M", "N", None]),
            country=draw.choice(["DE", None]),
            is_fraud=(fraud := draw.choice([True, True, False, None])),
            label_known_at=None if fraud is None else NOON + timedelta(minutes=draw.randint(-9_000, 9_000)),
        )
        for at in range(400)
    )
    event = {"customer_id": "5", "merchant": "M", "country": "DE"}
    day = 86_400
    counts = [
        EventCount(60),
        EventCount(day),
        EventCount(5 * day),
        EventCount(day, known_s=day),
        EventCount(5 * day, known_s=day),
        EventCount(5 * day, known_s=2 * day),
    ]
    entities = [("customer_id",), ("merchant",), ("customer_id", "merchant"), ("customer_id", "country")]

    counts_by_entity = store.counts(event, dict.fromkeys(entities, counts), NOON)
    events = store.histories(event, dict.fromkeys(entities, timedelta(days=5)), NOON)

    for entity in entities:
        assert counts_by_entity[entity] == [History.of(events[entity]).tally(to_micros(NOON), since) for since in counts]
    assert len(set(counts_by_entity["merchant",])) > 4, "or the sample tells nothing"
    assert store.counts(event | {"merchant": None}, {("merchant",): counts}, NOON) == {}
    assert store.counts({"customer_id": "nobody"}, {("customer_id",): counts}, NOON) == {("customer_id",): [0] * 6}


@pytest.mark.parametrize("column", ["customer_id", "merchant"])
def test_history_is_read_from_an_index_alone(tmp_path, column):
    event = {"customer_id": "5", "merchant": "M", "country": "DE"}
    entities = [(column,)] if column == "merchant" else [(column,), (column, "merchant"), (column, "country")]
    query = []
    with closing(store_at(tmp_path / "store.sqlite")) as store:
        store.load_transactions([transaction_of("a")])
        with store.reading() as connection:
            connection.connection.driver_connection.set_trace_callback(query.append)
            store.histories(event, {(column,): timedelta(days=1)}, NOON)  # into memory
            store.recent_events.is_void = True
            store.histories(event, {(column,): timedelta(days=1)}, NOON)
            store.counts(event, {entity: [EventCount(60), EventCount(60, known_s=0)] for entity in entities}, NOON)
            connection.connection.driver_connection.set_trace_callback(None)
            of_history = [statement for statement in query if "from transactions where" in " ".join(statement.lower().split())]
            plans = [connection.exec_driver_sql(f"explain query plan {statement}").all() for statement in of_history]

    assert len(plans) == 3
    for plan in plans:
        assert "USING COVERING INDEX" in plan[0][-1]
        assert "occurred_at>" in plan[0][-1]


@pytest.mark.parametrize("named", ["transaction_token", "idempotency"])
def test_a_decision_is_found_by_an_index(tmp_path, named):
    query = "select id from decisions where transaction_token = 'x' or idempotency = 'y'"
    with closing(store_at(tmp_path / "store.sqlite")) as store, store.reading() as connection:
        plan = " ".join(str(row[-1]) for row in connection.execute(text(f"explain query plan {query}")))

    assert f"({named}=?)" in plan
    assert "SCAN" not in plan


@pytest.mark.parametrize("column", ["person", "account"])
def test_standings_are_found_by_an_index(tmp_path, column):
    with closing(store_at(tmp_path / "store.sqlite")) as store, store.reading() as connection:
        plan = connection.execute(text(f"explain query plan select * from standings where {column} = 'x' and domain = 'y'")).all()

    assert f"({column}=? AND domain=?)" in plan[0][-1]


def test_an_entity_without_an_index_is_refused(store):
    with pytest.raises(ValueError, match="amount"):
        store.history({"amount": "1"}, NOON, NOON)


def test_loading_again_adds_nothing_but_the_label_that_became_known(store):
    known_at = NOON + timedelta(days=7)
    assert store.load_transactions([transaction_of("a"), transaction_of("b", 1)]) == 2
    store.load_transactions([transaction_of("a", amount=99.0, is_fraud=True, label_known_at=known_at), transaction_of("b", 1)])

    events = sorted(store.history({"customer_id": "5"}, *ALL_TIME))
    assert [(amount, fraud) for _, amount, fraud, _ in events] == [(10.0, True), (10.0, None)]
    assert events[0][3] - events[0][0] == timedelta(days=7) // timedelta(microseconds=1)


def test_the_last_of_two_rows_of_one_transaction_tells_its_label(store):
    store.load_transactions([transaction_of("a", is_fraud=False), transaction_of("a", is_fraud=True)])

    assert [fraud for _, _, fraud, _ in store.history({"customer_id": "5"}, *ALL_TIME)] == [True]


def test_standings_are_found_by_customer_and_by_account_as_they_were_kept(store):
    assert store.replace_snapshots(SNAPSHOTS) == len(SNAPSHOTS)

    by_key = sorted((one for one in SNAPSHOTS if one.customer_id == "7"), key=lambda one: (one.domain, one.subject))
    assert store.find_snapshots(customer_id="7") == by_key
    assert [one.account_id for one in store.find_snapshots(account_id="A8", domain="cashflow")] == ["A8"]
    assert store.find_snapshots(customer_id="nobody") == []


def test_standings_replace_all_that_were_there_or_none(store):
    store.replace_snapshots(SNAPSHOTS)
    with pytest.raises(ValueError, match="JSON"):
        store.replace_snapshots([snapshot_of("cashflow", "1", {}), snapshot_of("cashflow", "2", {"balance": float("nan")})])
    assert len(store.find_snapshots(customer_id="123")) == 5

    store.replace_snapshots([snapshot_of("cashflow", "1", {})])
    assert store.find_snapshots(customer_id="123") == []


def test_standings_are_of_somebody(store):
    with pytest.raises(ValueError, match="name one"):
        store.find_snapshots(domain="cashflow")


def test_what_the_revisions_make_is_what_the_tables_say(store_url):
    with closing(store_at(store_url)) as store, store.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
    config = Config()
    config.set_main_option("script_location", "bento/store/migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == tables.REVISION


def test_a_store_that_is_shared_is_not_changed_by_the_service(postgresql):
    url = postgresql.new()
    with pytest.raises(StoreError, match="run `finrisk store upgrade`"):
        store_at(url, upgrades=None)

    with closing(Database(url)) as database:
        assert migrations.upgrade(database) is None
        assert migrations.upgrade(database) == tables.REVISION
    store_at(url, upgrades=None).close()


def test_a_store_of_newer_code_is_refused(store_url):
    with closing(store_at(store_url)) as store, store.writing() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))

    with pytest.raises(StoreError, match="9999, newer"):
        store_at(store_url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [("mysql://host/store", "sqlite or postgresql"), ("sqlite:///store.sqlite", "absolute"), ("nonsense", "is no URL")],
)
def test_an_url_that_is_of_no_use_is_refused(url, reason):
    with pytest.raises(StoreError, match=reason):
        store_at(url)


def test_nobody_else_reads_the_file(tmp_path):
    with closing(store_at(tmp_path / "store.sqlite")) as store:
        assert {file.name: file.stat().st_mode & 0o077 for file in tmp_path.iterdir()} == {
            name: 0 for name in ("store.sqlite", "store.sqlite-wal", "store.sqlite-shm")
        }
        pragmas = {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "temp_store": 2}
        with store.reading() as connection:
            assert {name: connection.exec_driver_sql(f"pragma {name}").scalar() for name in pragmas} == pragmas


def test_a_parquet_file_of_the_ledger_is_read_back_as_transactions(tmp_path):
    rows = [transaction_of("a", is_fraud=False, label_known_at=NOON), transaction_of("b", merchant=None)]
    path = tmp_path / "transactions.parquet"
    pq.write_table(pa.Table.from_pylist([row._asdict() | {"category": "food"} for row in rows]), path)

    assert list(read_transactions(path)) == rows


def test_a_parquet_file_without_a_column_is_refused_by_name(tmp_path):
    path = tmp_path / "transactions.parquet"
    pq.write_table(pa.table({"transaction_id": ["a"], "customer_id": ["5"]}), path)

    with pytest.raises(ValueError, match="occurred_at, amount, direction"):
        list(read_transactions(path))


def test_a_seeded_transaction_can_be_scored_and_is_not_counted_twice(serving, bundles, transaction):
    with closing(open_store(Settings(home=serving.home))) as store:
        store.load_transactions([transaction_of("t1", merchant="3156", country=None)])
    with serving(bundles) as client:
        answer = client.post("/v1/transactions", json=transaction(0, transaction_id="t1", amount=10.0))
        later = client.post("/v1/transactions", json=transaction(5)).json()
        other = client.post("/v1/transactions", json=transaction(0, transaction_id="t1", amount=11.0))

    assert answer.status_code == 200
    assert {c["feature"]: c["value"] for c in later["explanation"]["contributions"]}["customer_n_1h"] == 1
    assert other.status_code == 409


def test_two_workers_that_get_the_same_request_at_once_make_one_decision(store_url, bundles):
    bundle = Bundle.load(bundles["transaction_anomaly"])
    requests = [
        TransactionRequest(user_id="5", amount=10.0 + n, timestamp=NOON + timedelta(minutes=n), merchant="M", transaction_id=f"t{n}")
        for n in range(10)
    ]
    bodies: dict[int, list[bytes]] = {0: [], 1: []}

    def work(number):
        with closing(store_at(store_url, wait_s=10.0)) as store:
            scorer = TransactionScorer(bundle, store)
            decisions = Decisions(store, {"transaction_anomaly": scorer})
            bodies[number] = [decisions.decide("transaction_anomaly", request).body for request in requests]

    store_at(store_url).close()
    threads = [threading.Thread(target=work, args=(number,)) for number in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(bodies[0]) == 10
    assert bodies[0] == bodies[1]
    with closing(store_at(store_url)) as store:
        verdict = verify(store.database, store.keyring)
        assert (len(list(store.decisions())), verdict.records, verdict.broken) == (10, 10, None)


def test_the_commands_check_and_upgrade_the_layout(tmp_path, monkeypatch):
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path))
    run = CliRunner()
    assert "run `finrisk store upgrade`" in run.invoke(cli, ["store", "check"]).output
    assert run.invoke(cli, ["store", "check"]).exit_code == 1
    assert "it was empty" in run.invoke(cli, ["store", "upgrade"]).output
    assert "nothing to do" in run.invoke(cli, ["store", "upgrade"]).output
    assert run.invoke(cli, ["store", "check"]).exit_code == 0
