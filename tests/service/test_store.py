"""The store: what it remembers, and that a request's history comes from it."""

import sqlite3
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bento.seed import read
from bento.store import Store, Transaction
from tests.service.made import STANDINGS, standing

NOON = datetime(2024, 5, 6, 12)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "service" / "store.sqlite")
    yield store
    store.close()


def moved(name, minutes=0, **changes):
    return Transaction(name, "5", NOON + timedelta(minutes=minutes), 10.0, "debit", "M", "DE")._replace(**changes)


def test_what_was_kept_is_found_to_the_microsecond(store):
    kept = moved("t1", occurred_at=NOON + timedelta(microseconds=7))
    with store.writing():
        store.keep(kept, "{}")

    assert store.find("t1").transaction == kept
    assert store.find("t1").answer == "{}"
    assert store.find("t2") is None


def test_what_fails_half_way_leaves_nothing(store):
    with pytest.raises(sqlite3.IntegrityError), store.writing():
        store.keep(moved("t1")._replace(amount=None), "{}")

    assert store.find("t1") is None


def test_two_workers_see_each_other(store):
    other = Store(store.path)
    with other.writing():
        other.keep(moved("t1"), "{}")
    other.close()

    assert store.find("t1") is not None


def test_history_is_of_one_entity_and_between_two_moments(store):
    store.load([moved("a", 1), moved("b", 2, merchant="N"), moved("c", 3), moved("d", 4), moved("e", 2, customer_id="6")])

    after, before = NOON + timedelta(minutes=1), NOON + timedelta(minutes=4)
    assert len(store.history({"customer_id": "5"}, after, before)) == 2
    assert len(store.history({"merchant": "M"}, after, before)) == 2
    assert len(store.history({"customer_id": "5", "merchant": "M"}, after, before)) == 1


@pytest.mark.parametrize("entity", [("customer_id",), ("merchant",), ("customer_id", "merchant"), ("customer_id", "country")])
def test_history_is_found_by_an_index(store, entity):
    where = " and ".join(f"{column} = 'x'" for column in entity)
    query = f"select amount from transactions where {where} and occurred_at > 3"
    plan = store._connection.execute(f"explain query plan {query}").fetchall()

    assert "USING INDEX" in plan[0][-1]
    assert "occurred_at>" in plan[0][-1]


def test_an_entity_without_an_index_is_refused(store):
    with pytest.raises(ValueError, match="amount"):
        store.history({"amount": "1"}, NOON, NOON)


def test_loading_again_adds_nothing_but_the_label_that_became_known(store):
    known_at = NOON + timedelta(days=7)
    store.load([moved("a"), moved("b", 1)])
    store.load([moved("a", amount=99.0, is_fraud=True, label_known_at=known_at), moved("b", 1)])

    first = store.find("a").transaction
    assert (first.is_fraud, first.label_known_at, first.amount) == (True, known_at, 10.0)
    assert len(store.history({"customer_id": "5"}, datetime(2000, 1, 1), datetime(2100, 1, 1))) == 2


def test_standings_are_found_by_customer_and_by_account_as_they_were_kept(store):
    assert store.replace_standings(STANDINGS) == len(STANDINGS)

    assert store.standings(customer_id="7") == [one for one in STANDINGS if one.customer_id == "7"]
    assert [one.account_id for one in store.standings(account_id="A8", domain="cashflow")] == ["A8"]
    assert store.standings(customer_id="nobody") == []


def test_standings_replace_all_that_were_there_or_none(store):
    store.replace_standings(STANDINGS)
    with pytest.raises(ValueError, match="JSON"):
        store.replace_standings([standing("cashflow", "1", {}), standing("cashflow", "2", {"balance": float("nan")})])
    assert len(store.standings(customer_id="123")) == 5

    store.replace_standings([standing("cashflow", "1", {})])
    assert store.standings(customer_id="123") == []


def test_standings_are_of_somebody(store):
    with pytest.raises(ValueError, match="name one"):
        store.standings(domain="cashflow")


@pytest.mark.parametrize("column", ["customer_id", "account_id"])
def test_standings_are_found_by_an_index(store, column):
    plan = store._connection.execute(f"explain query plan select * from standings where {column} = 'x' and domain = 'y'").fetchall()

    assert f"({column}=? AND domain=?)" in plan[0][-1]


def test_a_parquet_file_of_the_ledger_is_read_back_as_transactions(store, tmp_path):
    rows = [moved("a", is_fraud=False, label_known_at=NOON), moved("b", merchant=None)]
    path = tmp_path / "transactions.parquet"
    pq.write_table(pa.Table.from_pylist([row._asdict() | {"category": "food"} for row in rows]), path)

    assert list(read(path)) == rows


def test_a_parquet_file_without_a_column_is_refused_by_name(tmp_path):
    path = tmp_path / "transactions.parquet"
    pq.write_table(pa.table({"transaction_id": ["a"], "customer_id": ["5"]}), path)

    with pytest.raises(ValueError, match="occurred_at, amount, direction"):
        list(read(path))


def test_a_seeded_transaction_can_be_scored_and_is_not_counted_twice(serving, bundles, transaction):
    import bentoml

    with serving(bundles) as client:
        bentoml.get_current_service()._store.load([moved("t1", merchant="3156", country=None)])
        answer = client.post("/v1/transactions", json=transaction(0, transaction_id="t1", amount=10.0))
        later = client.post("/v1/transactions", json=transaction(5)).json()

    assert answer.status_code == 200
    assert {c["feature"]: c["value"] for c in later["explanation"]["contributions"]}["customer_n_1h"] == 1
