"""The simulated economy as a source of the ledger: which of its tables fill which canonical ones."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from finrisk_assets.ledger.landing import Landed, land_arrow
from finrisk_assets.ledger.sources.base import Land, RawTable, Source
from finrisk_assets.settings import Settings
from schemas.features import Feature
from schemas.ledger import ACCOUNTS, CUSTOMERS, LOANS, TRANSACTIONS, Column, Table

from .economy import Economy

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

END_YEAR, END_MONTH = 2024, 7
"""The ledger ends as this month begins, however long it is, so that its last outcome, a year later, lies in the past."""

SIMULATED_CUSTOMERS = CUSTOMERS.with_columns(
    Column("region", "string", "Part of the country.", nullable=True, personal="protected"),
)

SIMULATED_LOANS = LOANS.with_columns(
    Column(
        "stated_income_amount", "float64", "Monthly income as the applicant states it.", "currency a month", True, 0,
        personal="personal", known="applied_at",
    ),
    Column(
        "employed_months", "int64", "Full months in the present job or trade; 0 out of work.", "months", True, 0,
        personal="personal", known="applied_at",
    ),
)  # fmt: skip

APPLICATION = (
    Feature(
        "stated_income_amount", "currency a month", SIMULATED_LOANS["stated_income_amount"].description,
        "The stated income is low", "The stated income is high", monotone=-1,
    ),
    Feature(
        "employed_months", "months", SIMULATED_LOANS["employed_months"].description,
        "The present job has not lasted long", "The present job has lasted long", monotone=-1,
    ),
)  # fmt: skip
"""What an application says of itself."""


def source(settings: Settings) -> Source:
    """Return a simulated economy of `sim_customers` people and `sim_months` months as a source.

    The economy is made when its first table lands, once per source.
    """
    economy = economy_of(settings)

    @cache
    def made() -> "dict[str, pa.Table]":
        from . import run

        return run(economy)

    def land(name: str) -> Land:
        def write(out: Path) -> Landed:
            return land_arrow(made()[name], out)

        return write

    def raw(table: Table) -> RawTable:
        return RawTable(table, land(table.name), {name: _column(name) for name in table.names})

    return Source(
        name="simulator",
        description=f"A simulated economy of {economy.n_customers:,} people over {economy.n_months} months, with known truth.",
        currency="EUR",
        tables={
            "customers": raw(SIMULATED_CUSTOMERS),
            "accounts": raw(ACCOUNTS),
            "transactions": raw(TRANSACTIONS),
            "loans": raw(SIMULATED_LOANS),
        },
        truth={name: land(name) for name in ("truth_loans", "truth_transactions")},
        features={"loan_default": APPLICATION},
    )


def economy_of(settings: Settings) -> Economy:
    """Return the economy that the settings ask for; one too short for loans has none."""
    years, month = divmod(END_YEAR * 12 + END_MONTH - 1 - settings.sim_months, 12)
    economy = Economy(n_customers=settings.sim_customers, n_months=settings.sim_months, seed=settings.seed, loans_per_customer=0)
    start = economy.start.replace(year=years, month=month + 1)
    borrows = settings.sim_months > Economy.first_application_month
    return replace(economy, start=start, loans_per_customer=Economy.loans_per_customer if borrows else 0.0)


def _column(name: str) -> "Callable[[ir.Table], ir.Value]":
    return lambda raw: raw[name]
