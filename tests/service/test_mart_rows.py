"""Tests of the rows that the marts get of the store: what they say, whom they name, and that reading them writes nothing."""

import subprocess
import sys
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from bento.people import data_rights, mart_rows
from bento.store.session import Store, open_store
from finrisk_assets.settings import Settings
from schemas.marts import ALERTS, DECISIONS
from tests.service.conftest import write_transaction_bundle
from tests.service.test_alerts import BLOCK, REVIEW, acting, close, decide
from tests.service.test_record_tiers import Desk
from tests.service.test_rules import policy_of

MARKED = "Zebedee-4711"
"""Identifier that no row may show."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the names that the ledger's customers have in the marts; person 9 is none of them."""
    names = {"customer_id": [MARKED, "6"], "shown": ["pseudonym-a", "pseudonym-b"]}
    pq.write_table(pa.table(names), tmp_path / "customers.parquet")
    return tmp_path


def fill(store: Store, folder: Path) -> dict[str, str]:
    """Make a decision without an alert, a reviewed one that is disposed of, a blocked one, and one on a person who is erased then."""
    bundles = {"transaction_anomaly": write_transaction_bundle(folder / "bundle", review_loss=1e9, block=1.1)}
    desk = Desk(store, bundles, policy_of((REVIEW, BLOCK)))
    made = {
        "allowed": decide(desk, "t1", 3.0, user=MARKED),
        "reviewed": decide(desk, "t2", 500.0, user="6", minutes=1),
        "blocked": decide(desk, "t3", 3.0, user="9", minutes=2, country="KP"),
        "erased": decide(desk, "t4", 500.0, user="13", minutes=3),
    }
    ids = {name: answer["decision_id"] or "" for name, answer in made.items()}
    with acting("analyst"):
        close(store, ids["reviewed"], reason="a stolen card")
    data_rights.erase(store, "13")
    return ids


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / f"from_store_{name}.parquet").to_pylist()
    return rows


def test_decisions_and_alerts_are_named_as_the_ledger_names_their_people(settings: Settings, folder: Path) -> None:
    with closing(open_store(settings)) as store:
        ids = fill(store, folder)
        mart_rows.write_mart_rows(settings, folder)
        with store.reading() as connection:
            person = connection.execute(text("select person from alerts where outcome = 'block'")).scalar_one()
    decisions = {row["decision_id"]: row for row in read(folder, "decisions")}
    assert list(decisions) == list(ids.values())
    assert [row["customer_id"] for row in decisions.values()] == ["pseudonym-a", "pseudonym-b", person, None]
    assert [row["decision"] for row in decisions.values()] == ["allow", "review", "block", None]
    assert [row["label"] for row in decisions.values()] == [None, True, None, None]
    assert isinstance(decisions[ids["reviewed"]]["label_known_at"], datetime)
    alerts = {row["alert_id"]: row for row in read(folder, "alerts")}
    assert list(alerts) == [ids["reviewed"], ids["blocked"]]
    closed = alerts[ids["reviewed"]]
    assert (closed["state"], closed["disposition"], closed["assignee"]) == ("closed", "fraud", "analyst")
    assert (alerts[ids["blocked"]]["state"], alerts[ids["blocked"]]["closed_at"]) == ("open", None)
    for table in (DECISIONS, ALERTS):
        assert pq.read_schema(folder / f"from_store_{table.name}.parquet").names == list(table.names)


def test_a_page_ends_and_the_next_begins_without_a_gap(settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mart_rows, "PAGE_ROWS", 2)
    monkeypatch.setattr(mart_rows, "_DECISIONS", mart_rows._DECISIONS.limit(2))
    monkeypatch.setattr(mart_rows, "_ALERTS", mart_rows._ALERTS.limit(2))
    with closing(open_store(settings)) as store:
        ids = fill(store, folder)
    mart_rows.write_mart_rows(settings, folder)
    assert [row["decision_id"] for row in read(folder, "decisions")] == list(ids.values())


def test_no_identifier_and_no_sealed_text_is_in_the_rows(settings: Settings, folder: Path) -> None:
    with closing(open_store(settings)) as store:
        fill(store, folder)
    mart_rows.write_mart_rows(settings, folder)
    for name in ("decisions", "alerts"):
        assert MARKED not in str(read(folder, name)) and "a stolen card" not in str(read(folder, name))


def test_reading_writes_nothing(settings: Settings, folder: Path) -> None:
    with closing(open_store(settings)) as store:
        fill(store, folder)

    def dump() -> list[list[Any]]:
        with closing(open_store(settings, durable=False)) as store, store.reading() as connection:
            names = ("people", "decisions", "alerts", "feedback", "audit", "audit_heads", "checkpoints", "transactions")
            return [[tuple(row) for row in connection.execute(text(f"select * from {name}"))] for name in names]

    before = dump()
    mart_rows.write_mart_rows(settings, folder)
    assert dump() == before


def test_a_store_that_another_key_closed_is_one_sentence(settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_store(settings)) as store:
        fill(store, folder)
    monkeypatch.setenv("FINRISK_HOME", str(settings.home))
    monkeypatch.setenv("FINRISK_MASTER_KEY", "A" * 10 + "bcdefghijklmnopqrstuvwxyz0123456789")
    done = subprocess.run([sys.executable, "-m", "bento.people.mart_rows", str(folder)], capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr
