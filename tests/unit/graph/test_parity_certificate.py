"""Tests of the parity certificate on a small ledger: its signature, its faults, and the Bento that is refused without it."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import ibis
import numpy as np
import pandas as pd
import pytest
from ibis.expr.types import Table as LazyTable

from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY
from finrisk_assets.graph import parity_certificate
from finrisk_assets.graph.build import build_resources
from finrisk_assets.graph.stages import bento
from finrisk_assets.graph.stages.common import champion_folder
from finrisk_assets.ledger import sources
from finrisk_assets.settings import Settings

N_EVENTS, N_CUSTOMERS = 400, 20


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, source="simulator")


@pytest.fixture(scope="module")
def ledger() -> LazyTable:
    rng = np.random.default_rng(5)
    at = [datetime(2024, 1, 1) + timedelta(seconds=int(second)) for second in rng.integers(0, 40 * 86_400, N_EVENTS)]
    frame = pd.DataFrame(
        {
            "transaction_id": [f"T{number:03}" for number in range(N_EVENTS)],
            "customer_id": [f"C{number % N_CUSTOMERS}" for number in range(N_EVENTS)],
            "occurred_at": np.array(at, "datetime64[us]"),
            "amount": rng.integers(1, 9_999, N_EVENTS) / 100,
            "direction": "debit",
            "merchant": rng.choice(["M", "N"], N_EVENTS),
            "country": "DE",
            "is_fraud": rng.random(N_EVENTS) < 0.1,
            "label_known_at": np.array(at, "datetime64[us]") + np.timedelta64(3, "D"),
        }
    )
    return ibis.duckdb.connect().create_table("ledger", frame)


def certify(settings: Settings, ledger: LazyTable, stored: LazyTable | None = None) -> dict[str, object]:
    source = sources.load(settings)
    table = TRANSACTION_ANOMALY.build_features({"transactions": ledger}, source) if stored is None else stored
    return parity_certificate.certify_service(TRANSACTION_ANOMALY, source, ledger, table, settings)


def test_a_whole_ledger_is_certified_and_the_same_again(settings: Settings, ledger: LazyTable) -> None:
    first = certify(settings, ledger)
    assert (first["is_equal"], first["is_whole_ledger"], first["n_rows"]) == (True, True, N_EVENTS)
    assert parity_certificate.find_certificate_faults(TRANSACTION_ANOMALY, settings) == []
    assert certify(settings, ledger) == first
    assert list(parity_certificate.certificate_file(TRANSACTION_ANOMALY, settings).parent.iterdir()) == [
        parity_certificate.certificate_file(TRANSACTION_ANOMALY, settings)
    ], "the replayed events are personal data and do not stay"


def test_of_a_larger_ledger_customers_and_days_are_drawn(settings: Settings, ledger: LazyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity_certificate, "GROUP_EVENTS", 100)
    monkeypatch.setattr(parity_certificate, "SCORED_EVENTS", 50)
    certificate = certify(settings, ledger)
    assert (certificate["is_equal"], certificate["is_whole_ledger"]) == (True, False)
    assert (certificate["n_events"], certificate["n_customers"], certificate["n_rows"]) == (200, 10, 100)


def test_no_bento_is_built_where_the_paths_differ(settings: Settings, ledger: LazyTable) -> None:
    stored = TRANSACTION_ANOMALY.build_features({"transactions": ledger}, sources.load(settings))
    certify(settings, ledger, stored.mutate(customer_n_7d=stored.customer_n_7d + 1))
    (fault,) = parity_certificate.find_certificate_faults(TRANSACTION_ANOMALY, settings)
    assert "customer_n_7d" in fault
    champion_folder(TRANSACTION_ANOMALY, settings).mkdir(parents=True)
    assets = bento.build_assets([TRANSACTION_ANOMALY], {}, sources.load(settings), settings)
    result = dg.materialize([assets[0]], resources=build_resources(settings), raise_on_error=False)
    failure = result.failure_data_for_node("bento")
    assert failure is not None and failure.error is not None
    assert "customer_n_7d" in failure.error.message


def test_a_changed_missing_or_old_certificate_is_a_fault(settings: Settings, ledger: LazyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = lambda: parity_certificate.find_certificate_faults(TRANSACTION_ANOMALY, settings)  # noqa: E731
    assert "no parity certificate" in faults()[0]
    certify(settings, ledger)
    monkeypatch.setattr(parity_certificate, "_CODE", ("schemas",))
    assert "the code of features is not the one that was certified" in faults()[0]
    file = parity_certificate.certificate_file(TRANSACTION_ANOMALY, settings)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"n_rows": 10**6}))
    assert "was changed after it was signed" in faults()[0]
