"""Taiwan: 30,000 credit card clients of 2005 with six months of bills and payments, and whether they defaulted next."""

from collections.abc import Callable
from pathlib import Path

import ibis
import ibis.expr.types as ir

from finrisk_assets.ledger.landing import LandingResult, land_csv
from finrisk_assets.ledger.sources.source_definition import RawTable, Source
from finrisk_assets.ledger.text_expressions import normalise
from finrisk_assets.settings import Settings
from schemas.features import Feature
from schemas.ledger import CUSTOMERS, LOANS, Column

TARGET = "default.payment.next.month"
MONTHS = range(1, 7)
"""Months back from the decision; 1 is the newest (September 2005)."""

GENDERS = {"1": "M", "2": "F"}
EDUCATIONS = {"1": "graduate school", "2": "university", "3": "high school"}
MARRIAGES = {"1": "married", "2": "single"}


def _status(month: int) -> str:
    return f"PAY_{0 if month == 1 else month}"  # the file numbers the newest status 0 and knows no 1


def _ago(month: int) -> str:
    return "last month" if month == 1 else f"{month} months ago"


CUSTOMERS_OF_TAIWAN = CUSTOMERS.with_columns(
    Column("age_years", "int64", "Age.", "years", True, 18, 120, personal="protected"),
    Column("education", "string", "Highest education.", nullable=True, personal="protected"),
    Column("marriage", "string", "Marital status.", nullable=True, personal="protected"),
)

LOANS_OF_TAIWAN = LOANS.with_columns(
    *(
        Column(
            f"payment_status_{month}m", "int64",
            f"Repayment {_ago(month)}: -2 nothing spent, -1 paid in full, 0 minimum paid, above 0 months overdue.",
            "months overdue", minimum=-2, maximum=9, personal="personal",
        )
        for month in MONTHS
    ),
    *(
        Column(
            f"bill_amount_{month}m", "float64", f"Bill {_ago(month)}; negative where too much was paid.", "currency",
            personal="personal",
        )
        for month in MONTHS
    ),
    *(
        Column(f"paid_amount_{month}m", "float64", f"Paid {_ago(month)}.", "currency", minimum=0, personal="personal")
        for month in MONTHS
    ),
)  # fmt: skip

FEATURES = (
    *(
        Feature(
            f"payment_status_{month}m", "months overdue", LOANS_OF_TAIWAN[f"payment_status_{month}m"].description,
            f"Nothing was overdue {_ago(month)}", f"A payment was overdue {_ago(month)}", low_below=1.0, high_above=0.0, is_absolute=True,
            theme="payment record",
        )
        for month in MONTHS
    ),
    *(
        Feature(
            f"bill_amount_{month}m", "currency", LOANS_OF_TAIWAN[f"bill_amount_{month}m"].description,
            f"The bill {_ago(month)} was small", f"The bill {_ago(month)} was large",
            theme="use of the limit",
        )
        for month in MONTHS
    ),
    *(
        Feature(
            f"paid_amount_{month}m", "currency", LOANS_OF_TAIWAN[f"paid_amount_{month}m"].description,
            f"Little was repaid {_ago(month)}", f"Much was repaid {_ago(month)}", monotone=-1, theme="repayments",
        )
        for month in MONTHS
    ),
)  # fmt: skip


def source(settings: Settings) -> Source:
    """Return the Taiwan clients as a source; each client is a customer with one loan, the card's limit."""
    path = settings.data_dir / "taiwan" / "UCI_Credit_Card.csv"
    required = ["ID", "LIMIT_BAL", "SEX", "EDUCATION", "MARRIAGE", "AGE", TARGET]
    required += [name for month in MONTHS for name in (_status(month), f"BILL_AMT{month}", f"PAY_AMT{month}")]

    def land(out: Path) -> LandingResult:
        return land_csv(path, out, required=required)

    return Source(
        name="taiwan",
        description="UCI default of credit card clients: 30,000 in Taiwan in 2005, 22 % of whom defaulted the next month.",
        currency="TWD",
        tables={
            "customers": RawTable(
                CUSTOMERS_OF_TAIWAN,
                land,
                {
                    "customer_id": lambda raw: raw.ID,
                    "gender": lambda raw: normalise(raw.SEX).substitute(GENDERS),
                    "country": lambda raw: ibis.literal("TW"),
                    "age_years": lambda raw: raw.AGE,
                    "education": lambda raw: normalise(raw.EDUCATION).cases(*EDUCATIONS.items(), else_="other"),
                    "marriage": lambda raw: normalise(raw.MARRIAGE).cases(*MARRIAGES.items(), else_="other"),
                },
                lambda: (path,),
            ),
            "loans": RawTable(
                LOANS_OF_TAIWAN,
                land,
                {
                    "loan_id": lambda raw: raw.ID,
                    "customer_id": lambda raw: raw.ID,
                    "loan_amount": lambda raw: raw.LIMIT_BAL,
                    "is_default": lambda raw: raw[TARGET],
                    **{f"payment_status_{month}m": _column(_status(month)) for month in MONTHS},
                    **{f"bill_amount_{month}m": _column(f"BILL_AMT{month}") for month in MONTHS},
                    **{f"paid_amount_{month}m": _column(f"PAY_AMT{month}") for month in MONTHS},
                },
                lambda: (path,),
            ),
        },
        begins="2005-10",  # Nothing is dated: all of it belongs to the month whose defaults are told.
        ends="2005-10",
        features={"loan_default": FEATURES},
        without={"transaction_anomaly": "the Taiwan data has monthly bills only, no transactions"},
    )


def _column(name: str) -> Callable[[ir.Table], ir.Value]:
    return lambda raw: raw[name]
