"""Tests that every way into the service leads the spellings of an identifier to one person."""

from contextlib import closing
from datetime import datetime
from unicodedata import normalize
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from sqlalchemy import func, select

from bento.store import tables
from bento.store.records import FeatureSnapshot, Transaction
from bento.store.session import open_store
from finrisk_assets.cli.main import cli
from finrisk_assets.settings import Settings
from tests.service.envelopes import read_error

NAME = "José 101"
SPELLINGS = (NAME, f" {NAME}", f"{NAME}\u00a0", f"\u200b{NAME}\t", normalize("NFD", NAME), f"\u2066{NAME}\u2069\u200e")
AT = datetime(2024, 5, 6, 12)


def body_of(user_id, minute, **changes):
    return {"user_id": user_id, "amount": 120.0, "timestamp": f"2024-05-06T12:{minute:02}:00", "merchant": "3156", **changes}


def count(store, table):
    with store.reading() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_spellings_of_an_identifier_share_one_history(client):
    answers = [client.post("/v1/transactions", json=body_of(spelling, at)).json() for at, spelling in enumerate(SPELLINGS)]
    batch = client.post("/v1/transactions/batch", json={"items": [body_of(spelling, 10 + at) for at, spelling in enumerate(SPELLINGS)]})
    results = [result["answer"] for result in batch.json()["results"]]

    def earlier(answer):
        features = {item["feature"]: item["value"] for item in answer["explanation"]["contributions"]}
        return features["customer_n_1h"]

    assert [earlier(answer) for answer in (*answers, *results)] == list(range(2 * len(SPELLINGS)))
    exported = client.get(f"/v1/people/{quote(SPELLINGS[3])}/export").json()
    assert (exported["customer_id"], len(exported["transactions"]), len(exported["decisions"])) == (
        NAME,
        2 * len(SPELLINGS),
        2 * len(SPELLINGS),
    )


def test_spellings_of_a_merchant_and_a_country_are_one(client):
    spelled = [("Café", "AT"), ("Cafe\u0301 ", "at"), ("\ufeffCafé", " At")]
    answers = [
        client.post("/v1/transactions", json=body_of("7", at, merchant=merchant, country=country)).json()
        for at, (merchant, country) in enumerate(spelled)
    ]
    features = [{item["feature"]: item["value"] for item in answer["explanation"]["contributions"]} for answer in answers]

    assert [values["is_new_merchant"] for values in features] == [1, 0, 0]
    exported = client.get("/v1/people/7/export").json()["transactions"]
    assert {(row["merchant"], row["country"]) for row in exported} == {("Café", "AT")}


def test_the_same_transaction_in_another_spelling_is_the_same(client):
    first = client.post("/v1/transactions", json=body_of("101", 0, transaction_id="t-1"))
    again = client.post("/v1/transactions", json=body_of("101 ", 0, transaction_id=" t-1\u200b"))
    label = client.post("/v1/feedback", json={"transaction_id": "t-1 ", "label": True})

    assert again.content == first.content
    assert label.json()["decision_id"] == first.json()["decision_id"]


def test_an_unknown_country_is_refused_alone_and_in_a_batch(client):
    error = read_error(client.post("/v1/transactions", json=body_of("101", 0, country="AUT")), 422, "invalid_request")
    items = [body_of("101", 0, country=country) for country in ("AUT", "at")]
    results = client.post("/v1/transactions/batch", json={"items": items}).json()["results"]

    assert [item["field"] for item in error["fields"]] == ["country"]
    assert [result["status"] for result in results] == [422, 200]


@pytest.mark.parametrize("spelling", ["123", "%20123", "123%C2%A0", "%E2%80%8B123"])
def test_a_customer_is_looked_up_by_any_spelling(shared_client, spelling):
    answer = shared_client.get(f"/v1/risk-scores/{spelling}").json()
    scored = shared_client.post("/v1/cashflow", json={"account_id": " A123\u00a0"}).json()

    assert (answer["customer_id"], scored["account_id"]) == ("123", "A123")


@pytest.mark.parametrize("path", ["/v1/risk-scores/{}", "/v1/people/{}/export"])
@pytest.mark.parametrize("blank", ["%20", "%E2%80%8B"])
def test_a_blank_customer_is_refused(shared_client, path, blank):
    error = read_error(shared_client.get(path.format(blank)), 422, "invalid_request")

    assert [item["field"] for item in error["fields"]] == ["customer_id"]


def test_a_person_is_erased_by_any_spelling(client):
    for at in range(3):
        assert client.post("/v1/transactions", json=body_of(NAME, at)).status_code == 200

        assert client.delete(f"/v1/people/{quote(SPELLINGS[5 - at])}").status_code == 200
        read_error(client.get(f"/v1/people/{quote(NAME)}/export"), 404, "unknown_customer")


def test_the_operator_s_commands_take_any_spelling(tmp_path, monkeypatch):
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path))
    with closing(open_store(Settings(home=tmp_path))) as store, store.writing():
        store.person(NAME, make=True)

    exported = CliRunner().invoke(cli, ["people", "export", SPELLINGS[1], "--to", str(tmp_path / "export.json")])
    erased = CliRunner().invoke(cli, ["people", "erase", SPELLINGS[4], "--yes"])

    assert exported.exit_code == 0, exported.output
    assert "1 erased, 0 not known" in erased.output


def test_a_history_of_other_spellings_is_loaded_as_one_person(store):
    ledger = [Transaction(f"t{at}", spelling, AT, 10.0 + at, "debit", " 3156", "at") for at, spelling in enumerate(SPELLINGS)]
    snapshots = [
        FeatureSnapshot("loan_default", f"{at}", spelling, f" A{at} ", AT, {"age": 40.0}, {"score": 1.0})
        for at, spelling in enumerate(SPELLINGS)
    ]

    assert store.load_transactions(ledger) == store.replace_snapshots(snapshots) == len(SPELLINGS)
    assert count(store, tables.people) == 2, "the person, and the row of the store's own key"
    assert len(store.history({"customer_id": NAME, "merchant": "3156"}, datetime(2024, 1, 1), datetime(2025, 1, 1))) == len(SPELLINGS)
    assert len(store.find_snapshots(customer_id=SPELLINGS[2])) == len(SPELLINGS)
    assert [snapshot.subject for snapshot in store.find_snapshots(account_id="A3")] == ["3"]
