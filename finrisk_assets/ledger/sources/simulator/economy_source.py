"""The simulated economy as a source of the ledger: which of its tables fill which canonical ones."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from finrisk_assets.ledger.landing import LandingResult
from finrisk_assets.ledger.sources.simulator.economy_file import read_economy
from finrisk_assets.ledger.sources.simulator.population.economy import Economy
from finrisk_assets.ledger.sources.simulator.table_writer import link_or_copy, write_tables
from finrisk_assets.ledger.sources.simulator.towns import TRUTH_TABLES, simulate_towns
from finrisk_assets.ledger.sources.source_definition import Lander, RawTable, Source
from finrisk_assets.settings import Settings, SettingsError
from schemas.features import Feature
from schemas.ledger import ACCOUNTS, CUSTOMERS, LOANS, OFFERS, TRANSACTIONS, Column, Table

if TYPE_CHECKING:
    import ibis.expr.types as ir

END_YEAR, END_MONTH = 2024, 7
"""The ledger ends as this month begins, however long it is, so that its last outcome, a year later, lies in the past."""

ENOUGH_STOLEN_CARDS = 200
"""Stolen cards in a ledger; with fewer, the last fifth of the months has too few to judge a model of fraud on."""
MOST_STOLEN_CARDS = 0.2
"""Share of people a year; the rate of a small ledger does not rise beyond it."""

SIMULATED_CUSTOMERS = CUSTOMERS.with_columns(
    Column("region", "string", "Part of the country.", nullable=True, personal="protected"),
)

SIMULATED_LOANS = LOANS.with_columns(
    Column(
        "stated_income_amount", "float64", "Monthly income as the form states it.", "currency a month", True, 0,
        personal="personal", known="applied_at",
    ),
    Column(
        "employed_months", "int64", "Full months in the present job or trade, as the form states; 0 out of work.", "months", True, 0,
        personal="personal", known="applied_at",
    ),
)  # fmt: skip

APPLICATION = (
    Feature(
        "stated_income_amount", "currency a month", SIMULATED_LOANS["stated_income_amount"].description,
        "The stated income is low", "The stated income is high", monotone=-1, theme="income",
    ),
    Feature(
        "employed_months", "months", SIMULATED_LOANS["employed_months"].description,
        "The present job has not lasted long", "The present job has lasted long", monotone=-1, theme="employment",
    ),
)  # fmt: skip
"""The features that the applicant states."""


def source(settings: Settings) -> Source:
    """Return the simulated economy that the settings describe as a source.

    The economy is simulated when its first table lands, once per source: town by town, every table at once, into a folder beside that
    table's file. Each landing then links or copies its file.

    Raises
    ------
    EconomyError
        If the file of `sim_economy` is invalid.
    """
    economy = economy_from_settings(settings)
    written: dict[str, tuple[Path, LandingResult]] = {}

    def land(name: str) -> Lander:
        def write(out: Path) -> LandingResult:
            if name not in written or not written[name][0].exists():
                folder = out.parent / "economy"
                for table, landed in write_tables(simulate_towns(economy), folder).items():
                    written[table] = folder / f"{table}.parquet", landed
            file, landed = written[name]
            link_or_copy(file, out)
            return landed

        return write

    def raw(table: Table) -> RawTable:
        return RawTable(table, land(table.name), {name: _column(name) for name in table.names})

    return Source(
        name="simulator",
        description=f"A simulated economy of {economy.n_customers:,} people over {economy.n_months} months, with known truth.",
        currency="EUR",
        tables={table.name: raw(table) for table in (SIMULATED_CUSTOMERS, ACCOUNTS, TRANSACTIONS, SIMULATED_LOANS, OFFERS)},
        begins=economy.start.strftime("%Y-%m"),
        ends=f"{END_YEAR}-{END_MONTH:02d}",
        is_live=True,
        truth={name: land(name) for name in TRUTH_TABLES},
        features={"loan_default": APPLICATION},
    )


def economy_from_settings(settings: Settings) -> Economy:
    """Return the economy that the settings describe; a ledger too short for loans and offers has none.

    A setting wins over the same number in the file of `sim_economy`.

    Raises
    ------
    SettingsError
        If the file is invalid, or the shock comes after the last month.
    """
    if settings.sim_shock_month > settings.sim_months:
        raise SettingsError(
            f"FINRISK_SIM_SHOCK_MONTH={settings.sim_shock_month} lies after the last of FINRISK_SIM_MONTHS={settings.sim_months} months: "
            "set an earlier one"
        )
    years, month = divmod(END_YEAR * 12 + END_MONTH - 1 - settings.sim_months, 12)
    economy = Economy(seed=settings.seed, fraud_rate=choose_fraud_rate(settings.sim_customers * settings.sim_months / 12))
    if settings.sim_economy:
        economy = read_economy(settings.sim_economy, economy)
    if settings.sim_fraud_rate is not None:
        economy = replace(economy, fraud_rate=settings.sim_fraud_rate)
    if settings.sim_shock_month:
        economy = replace(economy, shock_month=settings.sim_shock_month, shock_size=settings.sim_shock_size)
    borrows = settings.sim_months > economy.first_application_month
    return replace(
        economy,
        n_customers=settings.sim_customers,
        n_months=settings.sim_months,
        start=economy.start.replace(year=years, month=month + 1),
        loans_per_customer=economy.loans_per_customer if borrows else 0.0,
        offers_per_customer=economy.offers_per_customer if borrows else 0.0,
    )


def choose_fraud_rate(person_years: float) -> float:
    """Return the realistic rate of stolen cards in a large ledger, and in a small one a rate that gives enough of them to learn from."""
    return min(max(Economy.fraud_rate, ENOUGH_STOLEN_CARDS / person_years), MOST_STOLEN_CARDS)


def _column(name: str) -> "Callable[[ir.Table], ir.Value]":
    return lambda raw: raw[name]
