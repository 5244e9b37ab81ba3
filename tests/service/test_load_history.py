"""Tests of `finrisk load-history`: the snapshots that the store gets from the graph's tables."""

from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace

import ibis
import pytest
from click.testing import CliRunner

from bento.store.session import open_store
from finrisk_assets.cli.main import cli
from finrisk_assets.domains.loan_default.definition import LoanDefault
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.operations import load_history
from finrisk_assets.settings import Settings
from schemas.features import Feature
from schemas.ledger import Column

MAY, JUNE = datetime(2024, 5, 1), datetime(2024, 6, 1)
KEYS = (
    Column("loan_id", "string", ""),
    Column("customer_id", "string", ""),
    Column("applied_at", "timestamp", "", nullable=True),
    Column("pd", "float64", "", nullable=True, known="applied_at"),
    Column("loss_amount", "float64", "", nullable=True, known="outcome_known_at"),
    Column("is_default", "boolean", "", nullable=True, known="outcome_known_at"),
)


class Loans(LoanDefault):
    """A loan domain of one feature."""

    tables = ()
    needs = ()
    keys = KEYS
    more_scores = (Column("limit_amount", "float64", "", nullable=True),)

    def select_features(self, source):
        return (Feature("age", "years", ""),)


class SecondLoans(Loans):
    """A second model on the same feature table."""

    name = "loan_default_two"
    features_of = "loan_default"


class AccountLoans(Loans):
    """A domain that decides on accounts."""

    keys = (*KEYS, Column("account_id", "string", ""))


class UnscoredLoans(Loans):
    """A domain that no run has materialised."""

    name = "not_materialised"


DOMAIN = Loans()


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path)


@pytest.fixture
def warehouse(settings):
    return Warehouse(url=settings.warehouse)


def fill(warehouse, rows, domain=DOMAIN):
    """Store feature and score tables; a row is (subject, customer, time, age), and may end in further columns by name."""
    names = ("loan_id", "customer_id", "applied_at", "age")
    plain = [dict(zip(names, row[:4], strict=True)) | (row[4] if len(row) > 4 else {}) for row in rows]
    features = [{"pd": 0.1, "loss_amount": 7.0, "is_default": True} | row for row in plain]
    scores = [
        {name: row[name] for name in names[:3]}
        | {"score": row["age"] / 10, "probability": 0.2, "decision": "approve", "model_version": "v", "policy_version": "p"}
        | {"limit_amount": float("nan")}
        for row in plain
    ]
    kinds = {"loan_id": "string", "customer_id": "string", "applied_at": "timestamp", "account_id": "string"}
    for table, content in ((f"features_{domain.group}", features), (f"scores_{domain.name}", scores)):
        schema = {name: kinds.get(name, "boolean" if isinstance(value, bool) else "float64") for name, value in content[0].items()}
        schema |= {name: "string" for name in ("decision", "model_version", "policy_version") if name in schema}
        warehouse.store(table, ibis.memtable(content, schema=schema))


def newest(warehouse, domain=DOMAIN):
    return {one.subject: one for one in load_history.newest_snapshots(domain, SimpleNamespace(tables={}), warehouse)}


def test_the_newest_row_of_every_customer_is_kept(warehouse):
    fill(warehouse, [("a", "1", MAY, 30.0), ("b", "1", JUNE, 31.0), ("c", "2", MAY, 50.0), ("d", "3", None, 60.0)])

    snapshots = newest(warehouse)

    assert set(snapshots) == {"b", "c", "d"}
    assert (snapshots["b"].customer_id, snapshots["b"].account_id, snapshots["b"].as_of) == ("1", None, JUNE)
    assert snapshots["d"].as_of is None


def test_what_was_known_then_is_kept_and_what_came_of_it_is_not(warehouse):
    fill(warehouse, [("a", "1", MAY, 30.0)])

    assert newest(warehouse)["a"].features == {"pd": 0.1, "age": 30.0}


def test_the_score_is_kept_with_its_details(warehouse):
    fill(warehouse, [("a", "1", MAY, 30.0)])

    expected = {"score": 3.0, "probability": 0.2, "decision": "approve", "model_version": "v", "policy_version": "p"}
    assert newest(warehouse)["a"].score == expected | {"limit_amount": None}


def test_a_row_of_a_month_end_goes_before_an_application(warehouse):
    fill(warehouse, [("1@2024-04", "1", MAY, 30.0), ("L7", "1", JUNE, 31.0), ("L8", "2", JUNE, 32.0)])

    assert set(newest(warehouse)) == {"1@2024-04", "L8"}


def test_where_accounts_are_decided_on_each_has_its_row(warehouse):
    fill(warehouse, [("a", "1", MAY, 30.0, {"account_id": "A"}), ("b", "1", JUNE, 31.0, {"account_id": "B"})])

    snapshots = newest(warehouse, AccountLoans())

    assert {subject: one.account_id for subject, one in snapshots.items()} == {"a": "A", "b": "B"}


def test_features_are_kept_where_the_service_reads_them(warehouse):
    second = SecondLoans()
    fill(warehouse, [("a", "1", MAY, 30.0)], second)

    assert newest(warehouse, second)["a"].features == {}
    assert newest(warehouse, second)["a"].score["score"] == 3.0


def test_loading_replaces_what_was_stored_and_says_how_much(warehouse, settings, monkeypatch):
    from finrisk_assets.domains import registry
    from finrisk_assets.ledger import sources

    source = replace(sources.load(Settings()), tables={})
    monkeypatch.setattr(sources, "load", lambda settings: source)
    monkeypatch.setattr(registry, "DOMAINS", (DOMAIN, UnscoredLoans()))
    fill(warehouse, [("a", "1", MAY, 30.0), ("b", "2", MAY, 30.0)])
    load_history.load(settings)
    fill(warehouse, [("c", "1", JUNE, 31.0)])

    assert str(load_history.load(settings)) == "0 transactions, 1 scores of customers"

    store = open_store(settings)
    assert [one.subject for one in store.find_snapshots(customer_id="1")] == ["c"]
    assert store.find_snapshots(customer_id="2") == []
    store.close()


@pytest.mark.parametrize(
    ("command", "environment", "message"),
    [
        ("load-history", {}, "the warehouse of the source simulator has no validated_transactions: run `make demo` first"),
        ("load-feedback", {"FINRISK_STORE_URL": "x"}, "FINRISK_STORE_URL is no URL"),
        ("shadow", {"FINRISK_STORE_URL": "x"}, "FINRISK_STORE_URL is no URL"),
    ],
)
def test_a_command_that_cannot_run_yet_says_what_to_do(tmp_path, command, environment, message):
    done = CliRunner().invoke(cli, [command], env={"FINRISK_HOME": str(tmp_path), "FINRISK_SOURCE": "simulator"} | environment)

    assert done.exit_code == 1
    assert done.output.startswith(f"Error: {message}")
