"""The Fraud Detection Handbook's simulated card transactions: one table, labelled, from April to September 2018."""

from pathlib import Path

import ibis

from finrisk_assets.ledger.landing import LandingResult, land_parquet
from finrisk_assets.ledger.sources.source_definition import RawTable, Source
from finrisk_assets.settings import Settings
from schemas.ledger import TRANSACTIONS

LABEL_DELAY_DAYS = 7
"""The Handbook's protocol: a fraud is reported a week after it happened."""

REQUIRED = ("TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD")


def source(settings: Settings) -> Source:
    """Return the Handbook as a source."""
    path = settings.data_dir / "handbook" / "transactions.parquet"

    def land(out: Path) -> LandingResult:
        return land_parquet(path, out, required=REQUIRED)

    transactions = RawTable(
        TRANSACTIONS,
        land,
        {
            "transaction_id": lambda raw: raw.TRANSACTION_ID,
            "customer_id": lambda raw: raw.CUSTOMER_ID,
            "occurred_at": lambda raw: raw.TX_DATETIME,
            "amount": lambda raw: raw.TX_AMOUNT,
            "direction": lambda raw: ibis.literal("debit"),
            "merchant": lambda raw: raw.TERMINAL_ID,
            "is_fraud": lambda raw: raw.TX_FRAUD,
            "label_known_at": lambda raw: raw.TX_DATETIME + ibis.interval(days=LABEL_DELAY_DAYS),
        },
        files=lambda: (path,),
    )
    return Source(
        name="handbook",
        description="Fraud Detection Handbook: simulated card payments of 4,990 customers at 10,000 terminals, labelled.",
        currency="XXX",  # ISO 4217: no currency is involved
        tables={"transactions": transactions},
        begins="2018-04",
        ends="2018-09",
        without={"loan_default": "the Handbook has card payments only, no loans"},
    )
