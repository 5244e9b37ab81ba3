"""Tests of an analyst's label on its way from the service's store to the ledger and the features, from its date on."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from bento.decisions.feedback import record
from bento.store.records import NewDecision, Transaction
from bento.store.session import open_store
from finrisk_assets.graph import automation, build, partitions
from finrisk_assets.operations import load_feedback
from finrisk_assets.settings import Settings
from schemas.api import FeedbackRequest
from tests.pipeline.shop import FEATURES, Shop

pytestmark = pytest.mark.slow

MAPPING = """
name: shop
currency: EUR
begins: 2024-01
ends: 2024-04
tables:
  transactions:
    file: in/*.csv
    columns:
      transaction_id: id
      customer_id: who
      occurred_at: at
      amount: amount
      direction: {value: debit}
      merchant: shop
      is_fraud: fraud
      label_known_at: known
"""
HEADER = "id,who,at,amount,shop,fraud,known"
FRAUD, KNOWN = "02-3", datetime(2024, 2, 8)
"""Findings of the analyst, within the week that the feature of a merchant's risk waits for."""


def payments(month: int) -> list[str]:
    """Return a payment a day of two people at one merchant; the source labels all but one as no fraud, a week later."""
    lines = []
    for number in range(27):
        at = datetime(2024, month, 1 + number, 9)
        known = "," if f"{month:02d}-{number}" == FRAUD else f"false,{(at + timedelta(days=7)).isoformat()}"
        lines.append(f"{month:02d}-{number},{'anna' if number % 2 else 'ben'},{at.isoformat()},{10 + number % 9}.5,corner,{known}")
    return lines


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """Yield the shop with its files landed and the features of its transactions computed."""
    (tmp_path / "shop.yaml").write_text(MAPPING)
    settings = Settings(home=tmp_path / "home", source="mapped", mapping=tmp_path / "shop.yaml", as_of=datetime(2024, 5, 1))
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(tmp_path, settings, build.build_definitions(settings), instance)
        (tmp_path / "in").mkdir()
        for month in range(1, 5):
            (tmp_path / "in" / f"{month}.csv").write_text("\n".join((HEADER, *payments(month))) + "\n")
        shop.run(dg.RunRequest(job_name=automation.LATE))
        compute(shop)
        yield shop


def compute(shop: Shop) -> None:
    job = shop.definitions.resolve_job_def(automation.DAILY)
    wanted, every = [dg.AssetKey(FEATURES)], partitions.run_tags("2024-01", "2024-04")
    assert job.execute_in_process(instance=shop.instance, asset_selection=wanted, tags=every).success


def tell(shop: Shop) -> None:
    """Let the service decide on a payment, and an analyst report it as fraud."""
    with closing(open_store(replace(shop.settings, source="shop"))) as store:
        with store.writing():
            person = store.person("anna", make=True)
            assert person is not None
            store.insert_transaction(Transaction(FRAUD, "anna", datetime(2024, 2, 4, 9), 13.5, "debit", "corner"), person)
            decision = NewDecision(
                store.new_id(), domain="transaction_anomaly", route="/v1/transactions", model_version="0" * 12, request=b"{}",
                answer=json.dumps({"transaction_id": FRAUD}).encode(), row=np.zeros(3, np.float32), probability=0.1, decision="allow",
                person=person, transaction_id=FRAUD,
            )  # fmt: skip
            store.insert_decisions([decision])
        record(store, FeedbackRequest(transaction_id=FRAUD, label=False, known_at=KNOWN - timedelta(days=1)))
        record(store, FeedbackRequest(transaction_id=FRAUD, label=True, known_at=KNOWN, note="The customer did not make it."))


def test_a_label_reaches_the_ledger_and_the_features_from_its_date_on(shop: Shop) -> None:
    cursor = shop.sensor(None).cursor
    before = shop.table(FEATURES)
    assert shop.table("validated_transactions")[FRAUD]["is_fraud"] is None
    assert all(row["merchant_risk_30d"] == 0 for row in before.values())

    tell(shop)
    written = load_feedback.load(shop.settings)
    tick = shop.sensor(cursor)

    assert [str(one) for one in written] == ["transactions: 1 labels, known in 2024-02 to 2024-02"]
    assert len(tick.run_requests) == 1
    shop.run(tick.run_requests[0])
    assert set(shop.materialised("validated_transactions", since=shop.last_event - 60)) >= {"2024-02"}
    stored = shop.table("validated_transactions")[FRAUD]
    assert (stored["is_fraud"], stored["label_known_at"]) == (True, KNOWN)

    compute(shop)
    after = shop.table(FEATURES)
    assert (after[FRAUD]["is_fraud"], after[FRAUD]["label_known_at"]) == (True, KNOWN)
    risky = {row["occurred_at"].date() for row in after.values() if row["merchant_risk_30d"] > 0}
    # Up to seven days before, and 30 days long: from a week after the payment until it is forgotten.
    assert min(risky) == datetime(2024, 2, 11).date()
    assert max(risky) < datetime(2024, 3, 14).date()

    assert shop.sensor(tick.cursor).run_requests in ([], None)  # the same labels again are nothing new
    load_feedback.load(shop.settings)
    assert not shop.sensor(tick.cursor).run_requests
