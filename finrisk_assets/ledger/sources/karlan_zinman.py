"""Karlan–Zinman: direct-mail loan offers of a South African lender in 2003, each at a monthly rate drawn at random by risk grade.

Decisions that the file leaves open: clients have no number in it, so the row's number identifies both the person and the
offer; the letter named the amount of the last loan, and the term of the last loan stands beside it; an offer is accepted where the
person *applied*, which is the take-up of the published sensitivity (653 of those who applied were then refused).

The file dates an offer only to one of three mailings, and the first, a tenth of all, knows no income. Three moments give no split by
time that a model could be trained on, so offers carry no time here.

A loan stands for every offer, on the terms known when it was made. Only those who borrowed have an outcome: a default is an average
arrears, over the months on record, of one instalment or more.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import ibis.expr.types as ir

from finrisk_assets.ledger.landing import ROW, LandingError, LandingResult, land_arrow
from finrisk_assets.ledger.sources.source_definition import RawTable, Source
from finrisk_assets.ledger.text_expressions import scale_numbers
from finrisk_assets.settings import Settings
from schemas.features import Feature
from schemas.ledger import CUSTOMERS, LOANS, OFFERS, Column, Table

if TYPE_CHECKING:
    import pandas as pd

FILE = "kz_demandelasts_aer08.dta"

COLUMNS = (
    "wave", "risk", "offer4", "final4", "yearlong", "applied", "tookup", "loansize", "term", "pstdue_average", "normrate_less",
    "normrate_more", "grossinterest", "grossincome", "dependants", "dormancy", "trcount", "itcscore", "appscore", "lastterm",
    "lastamount", "female", "married", "age", "edhi",
)  # fmt: skip
"""The columns that are read; the file's others are copies of these, places (a proxy for race there), or known only later."""

GRADES = {"LOW": 1, "MEDIUM": 2, "HIGH": 3}

OWN = (
    Column("risk_grade", "int64", "The lender's risk grade: 1 low, 2 medium, 3 high.", "grade", minimum=1, maximum=3),
    Column("n_earlier_loans", "float64", "Earlier loans with the lender.", "loans", True, 0, personal="personal"),
    Column("months_since_loan", "float64", "Months since the last loan with the lender.", "months", True, 0, personal="personal"),
    Column("bureau_score", "float64", "Score of the external credit bureau.", "points", True, 0, personal="personal"),
    Column("lender_score", "float64", "The lender's own credit score.", "points", True, 0, personal="personal"),
    Column("stated_income_amount", "float64", "Gross income as stated.", "currency a month", True, 0, personal="personal"),
)
"""Facts that the lender knew about a client when the letter was sent: columns of the offers and of the loans."""

MAILING = Column("mailing", "int64", "Which of the three mailings: 1 July, 2 September, 3 October 2003.", minimum=1, maximum=3)
OFFERS_OF_KZ = OFFERS.with_columns(
    *OWN,
    Column("is_rate_kept_a_year", "boolean", "Whether the rate was promised for a year if paid on time; drawn at random."),
    Column("is_rate_above_standard", "boolean", "Whether the rate lies above the standard rate of the risk grade."),
    MAILING,
)
LOANS_OF_KZ = LOANS.with_columns(*OWN)
CUSTOMERS_OF_KZ = CUSTOMERS.with_columns(
    Column("age_years", "float64", "Age.", "years", True, 18, 120, personal="protected"),
    Column("is_married", "boolean", "Marital status.", nullable=True, personal="protected"),
    Column("n_dependants", "float64", "Dependants.", "people", True, 0, personal="protected"),
    Column("education", "string", "Higher or lower, guessed from the occupation.", nullable=True, personal="protected"),
)

_DESCRIBED: dict[str, tuple[str, str]] = {
    "risk_grade": ("The risk grade", "scores"),
    "n_earlier_loans": ("The number of earlier loans", "earlier loans"),
    "months_since_loan": ("The time since the last loan", "earlier loans"),
    "bureau_score": ("The bureau's score", "scores"),
    "lender_score": ("The lender's score", "scores"),
}
"""Feature -> the subject of its sentences, and its theme."""


def _features(table: Table) -> tuple[Feature, ...]:
    return tuple(
        Feature(name, table[name].unit, table[name].description, f"{subject} is low", f"{subject} is high", theme=theme)
        for name, (subject, theme) in _DESCRIBED.items()
    )


FEATURES = {
    "loan_offers": (
        *_features(OFFERS_OF_KZ),
        Feature(
            "is_rate_kept_a_year", "", OFFERS_OF_KZ["is_rate_kept_a_year"].description,
            one="The rate is promised for a year", zero="The rate is for one loan only", theme="interest rate",
        ),
    ),
    "loan_default": _features(LOANS_OF_KZ),
}  # fmt: skip


def source(settings: Settings) -> Source:
    """Return the Karlan–Zinman offers as a source."""
    path = settings.data_dir / "karlan_zinman" / FILE

    def land(out: Path) -> LandingResult:
        import pyarrow as pa

        return land_arrow(pa.Table.from_pandas(read(path), preserve_index=False), out)

    own: dict[str, Callable[[ir.Table], ir.Value]] = {
        "risk_grade": lambda raw: raw.risk.cases(*GRADES.items(), else_=ibis.null("int64")),
        "n_earlier_loans": lambda raw: raw.trcount,
        "months_since_loan": lambda raw: raw.dormancy,
        "bureau_score": lambda raw: raw.itcscore.nullif(0),
        "lender_score": lambda raw: raw.appscore.nullif(0),
        "stated_income_amount": lambda raw: scale_numbers(raw.grossincome, 1000),
    }
    terms: dict[str, Callable[[ir.Table], ir.Value]] = {
        "loan_amount": lambda raw: raw.lastamount,
        "term_months": lambda raw: raw.lastterm,
        "annual_rate_pct": lambda raw: scale_numbers(raw.offer4, 12),
    }
    return Source(
        name="karlan_zinman",
        description="Direct-mail loan offers in South Africa, 2003, at randomised rates: 53,810, of which 8.4 % were applied for.",
        currency="ZAR",
        tables={
            "customers": RawTable(
                CUSTOMERS_OF_KZ,
                land,
                {
                    "customer_id": _number,
                    "gender": lambda raw: (raw.female == 1).ifelse("F", "M"),
                    "country": lambda raw: ibis.literal("ZA"),
                    "age_years": lambda raw: (raw.age >= 18).ifelse(raw.age, ibis.null("float64")),
                    "is_married": lambda raw: raw.married == 1,
                    "n_dependants": lambda raw: raw.dependants,
                    "education": lambda raw: (raw.edhi == 1).ifelse("higher", "lower"),
                },
                lambda: (path,),
            ),
            "offers": RawTable(
                OFFERS_OF_KZ,
                land,
                {
                    "offer_id": _number,
                    "customer_id": _number,
                    **terms,
                    "is_rate_random": lambda raw: ibis.literal(True),
                    "is_accepted": lambda raw: raw.applied == 1,
                    **own,
                    "is_rate_kept_a_year": lambda raw: raw.yearlong == 1,
                    "is_rate_above_standard": lambda raw: raw.normrate_more == 1,
                    "mailing": lambda raw: raw.wave,
                },
                lambda: (path,),
            ),
            "loans": RawTable(
                LOANS_OF_KZ,
                land,
                {
                    "loan_id": _number,
                    "customer_id": _number,
                    **terms,
                    "instalment_amount": lambda raw: _instalment(raw.lastamount, raw.offer4, raw.lastterm),
                    "is_default": _is_default,
                    **own,
                },
                lambda: (path,),
            ),
        },
        begins="2003-07",
        ends="2003-10",
        features=FEATURES,
        without={"transaction_anomaly": "the Karlan–Zinman data has offers only, no transactions"},
    )


def read(path: Path) -> "pd.DataFrame":
    """Read the Stata file: one row per offer, the columns named in `COLUMNS`, in the file's order.

    Raises
    ------
    LandingError
        If the file is missing, is no Stata file, or lacks a column.
    """
    import pandas as pd

    if not path.is_file():
        raise LandingError(f"{path} is missing; set FINRISK_DATA_DIR to the folder that holds karlan_zinman/{FILE}")
    try:
        frame = pd.read_stata(path, convert_categoricals=False, columns=list(COLUMNS))
    except Exception as error:  # pandas raises many kinds for a file that is no Stata file
        raise LandingError(f"{path} cannot be read ({type(error).__name__}: {error}); is it another format, or cut short?") from None
    return frame.astype({name: "float64" for name in frame.columns if name != "risk"})


def _number(raw: ir.Table) -> ir.Value:
    return raw[ROW].cast("string")


def _instalment(amount: ir.Value, monthly_rate_pct: ir.Value, months: ir.Value) -> ir.Value:
    """Return the instalment of an annuity at a rate per month."""
    # `features.arithmetic.instalment` takes a yearly rate: twelve times the file's, over 1200, is another number in its last digits.
    rate = monthly_rate_pct / 100
    return amount * rate / (1 - (1 + rate) ** (-months))


def _is_default(raw: ir.Table) -> ir.Value:
    """Return whether a loan was overdue by an instalment or more, averaged over the months on record; null without a loan."""
    due = _instalment(raw.loansize, raw.final4, (raw.term > 0).ifelse(raw.term, ibis.null("float64")))
    return (raw.tookup == 1).ifelse(raw.pstdue_average >= due, ibis.null("boolean"))
