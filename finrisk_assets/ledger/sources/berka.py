"""Berka: the Czech bank of the PKDD'99 challenge, with accounts, two slices of their movements and loans with outcome.

Decisions that the files leave open: a customer is the owner of an account, not a person who may merely dispose of it; a loan is good
while it is paid (status A, C) and bad where it ended or runs in debt (B, D); standing orders and second users of an account are
undated, so no loan's features use them.
"""

from collections.abc import Mapping
from pathlib import Path

import ibis
import ibis.expr.types as ir

from finrisk_assets.ledger.landing import Csv, LandingResult, land_joined
from finrisk_assets.ledger.sources.source_definition import RawExpression, RawTable, Source
from finrisk_assets.ledger.text_expressions import normalise
from finrisk_assets.settings import Settings
from schemas.features import Feature
from schemas.ledger import ACCOUNTS, CUSTOMERS, LOANS, TRANSACTIONS, Column, Table

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "account.asc": ("account_id", "district_id", "frequency", "date"),
    "card.asc": ("card_id", "disp_id", "type", "issued"),
    "client.asc": ("client_id", "birth_number", "district_id"),
    "disp.asc": ("disp_id", "client_id", "account_id", "type"),
    "district.asc": ("A1", "A4", "A10", "A11", "A12", "A13", "A14", "A16"),
    "loan.asc": ("loan_id", "account_id", "date", "amount", "duration", "payments", "status"),
    "trans_1993.asc": ("trans_id", "account_id", "date", "type", "operation", "amount", "balance", "k_symbol", "bank", "account"),
}

DIRECTIONS = {
    "PRIJEM": "credit",
    "credit": "credit",
    "VYDAJ": "debit",
    "VYBER": "debit",
    "withdrawal": "debit",
    "withdrawal in cash": "debit",
}
"""`type` of both slices -> direction."""

PURPOSES = {
    "UROK": "interest",
    "interest credited": "interest",
    "DUCHOD": "pension",
    "POJISTNE": "insurance",
    "insurrance payment": "insurance",
    "SIPO": "household",
    "household": "household",
    "UVER": "loan payment",
    "SLUZBY": "statement fee",
    "payment for statement": "statement fee",
    "SANKC. UROK": "penalty interest",
    "sanction interest if negative balance": "penalty interest",
}
"""`k_symbol` of both slices -> category."""

OPERATIONS = {
    "VKLAD": "cash deposit",
    "credit in cash": "cash deposit",
    "VYBER": "cash withdrawal",
    "withdrawal in cash": "cash withdrawal",
    "VYBER KARTOU": "card withdrawal",
    "credit card withdrawal": "card withdrawal",
    "PREVOD Z UCTU": "transfer in",
    "collection from another bank": "transfer in",
    "PREVOD NA UCET": "transfer out",
    "remittance to another bank": "transfer out",
}
"""`operation` of both slices -> category, where no purpose is given."""

FREQUENCIES = {"POPLATEK MESICNE": "monthly", "POPLATEK TYDNE": "weekly", "POPLATEK PO OBRATU": "after each movement"}

OUTCOMES = {"A": "false", "B": "true", "C": "false", "D": "true"}

LAST_DAY = "1998-12-31"
"""The day of the challenge's snapshot: a loan that still ran then has the outcome that it had on this day."""

DISTRICT = {
    "district_inhabitants": ("A4", "persons", "Inhabitants of the account's district."),
    "district_urban_pct": ("A10", "percent", "Share of the district's inhabitants who live in towns."),
    "district_salary_amount": ("A11", "currency a month", "Average salary in the district."),
    "district_unemployment_1995_pct": ("A12", "percent", "Unemployment in the district in 1995; one figure for all years."),
    "district_unemployment_1996_pct": ("A13", "percent", "Unemployment in the district in 1996; one figure for all years."),
    "district_entrepreneurs": ("A14", "per 1,000 inhabitants", "Entrepreneurs in the district."),
    "district_crimes_1996": ("A16", "crimes", "Crimes committed in the district in 1996."),
}

LOANS_OF_BERKA = LOANS.with_columns(
    Column("is_statement_weekly", "boolean", "Whether the account's statement comes weekly.", nullable=True),
    Column("is_statement_per_movement", "boolean", "Whether a statement comes after each movement.", nullable=True),
    Column("has_card", "boolean", "Whether the account had a card at the application.", nullable=True, known="applied_at"),
    *(Column(name, "float64", text, unit, True, 0) for name, (_, unit, text) in DISTRICT.items()),
)

FEATURES = (
    Feature(
        "is_statement_weekly", "", "Whether the account's statement comes weekly.",
        one="Account statements are asked for weekly", zero="Account statements are not asked for weekly", theme="account statements",
    ),
    Feature(
        "is_statement_per_movement", "", "Whether a statement comes after each movement.",
        one="A statement is asked for after each movement", zero="Statements are not asked for after each movement",
        theme="account statements",
    ),
    Feature(
        "has_card", "", "Whether the account had a card at the application.",
        zero="No payment card is held on the account", one="A payment card is held on the account", theme="payment card",
    ),
    # Of the district only what hardly changes: the snapshot's unemployment and crimes of 1995 and 1996 were not known to
    # those who granted the loans of 1993.
    *(
        Feature(
            name, *DISTRICT[name][1:], f"{label} of the district is low", f"{label} of the district is high",
            theme="district",
        )
        for name, label in {
            "district_inhabitants": "The population",
            "district_urban_pct": "The share of townspeople",
            "district_salary_amount": "The average salary",
            "district_entrepreneurs": "The number of entrepreneurs",
        }.items()
    ),
)  # fmt: skip

OWNERS = "(SELECT account_id, client_id, disp_id FROM disp WHERE type = 'OWNER')"

CUSTOMERS_QUERY = """
SELECT base.*, client.birth_number, account.date AS account_date
FROM base LEFT JOIN client USING (client_id) LEFT JOIN account USING (account_id)
WHERE base.type IS DISTINCT FROM 'DISPONENT'
"""

ACCOUNTS_QUERY = f"SELECT base.*, owner.client_id FROM base LEFT JOIN {OWNERS} AS owner USING (account_id)"

TRANSACTIONS_QUERY = ACCOUNTS_QUERY

LOANS_QUERY = f"""
SELECT base.*, owner.client_id, account.frequency, issue.issued,
       {", ".join(f"district.{code}" for code, _, _ in DISTRICT.values())}
FROM base
LEFT JOIN {OWNERS} AS owner USING (account_id)
LEFT JOIN account USING (account_id)
LEFT JOIN district ON district.A1 = account.district_id
LEFT JOIN (SELECT disp_id, min(issued) AS issued FROM card GROUP BY disp_id) AS issue ON issue.disp_id = owner.disp_id
"""


def source(settings: Settings) -> Source:
    """Return Berka's bank as a source."""
    folder = settings.data_dir / "berka"

    def file(name: str, *more: str) -> Csv:
        return Csv(tuple(folder / file_name for file_name in (name, *more)), ";", required=COLUMNS[name])

    def landing(base: Csv, query: str, *names: str) -> "LandFile":
        return LandFile(base, {name: file(f"{name}.asc") for name in names}, query)

    def table(declared: Table, land: LandFile, columns: Mapping[str, RawExpression]) -> RawTable:
        return RawTable(declared, land, columns, land.files)

    movements = file("trans_1993.asc", "trans_loan_history.csv")
    return Source(
        name="berka",
        description="Berka (PKDD'99): 4,500 accounts of a Czech bank, two slices of their movements, 682 loans with outcome.",
        currency="CZK",
        tables={
            "customers": table(CUSTOMERS, landing(file("disp.asc"), CUSTOMERS_QUERY, "client", "account"), CUSTOMER_COLUMNS),
            "accounts": table(ACCOUNTS_OF_BERKA, landing(file("account.asc"), ACCOUNTS_QUERY, "disp"), ACCOUNT_COLUMNS),
            "transactions": table(TRANSACTIONS, landing(movements, TRANSACTIONS_QUERY, "disp"), TRANSACTION_COLUMNS),
            "loans": table(LOANS_OF_BERKA, landing(file("loan.asc"), LOANS_QUERY, "disp", "account", "card", "district"), LOAN_COLUMNS),
        },
        begins="1993-01",
        ends="1999-01",
        features={"loan_default": FEATURES},
        without={"transaction_anomaly": "Berka dates its transactions only to the day, without the time"},
    )


class LandFile:
    """The landing of one of Berka's files, with the columns that it looks up in the others."""

    def __init__(self, base: Csv, lookups: Mapping[str, Csv], query: str) -> None:
        self.base, self.lookups, self.query = base, lookups, query

    def files(self) -> tuple[Path, ...]:
        """Return the files that the landing reads."""
        return tuple(path for file in (self.base, *self.lookups.values()) for path in file.paths)

    def __call__(self, out: Path) -> LandingResult:
        return land_joined(self.base, self.lookups, self.query, out)


# --- how the columns read ------------------------------------------------------------------------------------------


def _day(text: ir.StringValue) -> ir.StringValue:
    """Convert YYMMDD, always in the twentieth century, to ISO text; other text stays unchanged, and the contract refuses it."""
    day = ibis.literal("19") + text.substr(0, 2) + "-" + text.substr(2, 2) + "-" + text.substr(4, 2)
    return ibis.cases((text.re_search("^[0-9]{6}( 00:00:00)?$"), day), else_=text)


def _translate(code: ir.StringValue, names: Mapping[str, str]) -> ir.StringValue:
    """Return the name of a code; an unknown code stays unchanged, so that a rule can refuse it."""
    return normalise(code).substitute(dict(names))


def _decode(code: ir.StringValue, names: Mapping[str, str]) -> ir.StringValue:
    """Return the name of a code, or null."""
    return normalise(code).cases(*names.items(), else_=ibis.null("string"))


def _outcome_known(raw: ir.Table) -> ir.Value:
    end = _day(raw.date).try_cast("timestamp") + raw.duration.try_cast("int64").as_interval("M")
    return ibis.least(end, ibis.literal(LAST_DAY).cast("timestamp"))


def _payee(raw: ir.Table) -> ir.Value:
    account = normalise(raw.account)
    return ibis.cases((account.notin(["", "0"]), normalise(raw.bank) + "/" + account), else_=ibis.null("string"))


def _birth_month(raw: ir.Table) -> ir.Value:
    return raw.birth_number.substr(2, 2).try_cast("int64")


def _district(code: str) -> RawExpression:
    return lambda raw: raw[code].nullif("?")


ACCOUNTS_OF_BERKA = ACCOUNTS.with_columns(
    Column("statement_frequency", "string", "How often a statement comes.", nullable=True, allowed=tuple(FREQUENCIES.values())),
)

CUSTOMER_COLUMNS: Mapping[str, RawExpression] = {
    "customer_id": lambda raw: raw.client_id,
    "birth_year": lambda raw: _day(raw.birth_number).substr(0, 4),
    # In a Czech birth number a woman's month is raised by 50.
    "gender": lambda raw: ibis.cases((_birth_month(raw) > 50, "F"), (_birth_month(raw) > 0, "M"), else_=ibis.null("string")),
    "country": lambda raw: ibis.literal("CZ"),
    "joined_at": lambda raw: _day(raw.account_date),
}

ACCOUNT_COLUMNS: Mapping[str, RawExpression] = {
    "account_id": lambda raw: raw.account_id,
    "customer_id": lambda raw: raw.client_id,
    "opened_at": lambda raw: _day(raw.date),
    "statement_frequency": lambda raw: _translate(raw.frequency, FREQUENCIES),
}

TRANSACTION_COLUMNS: Mapping[str, RawExpression] = {
    "transaction_id": lambda raw: raw.trans_id,
    "customer_id": lambda raw: raw.client_id,
    "account_id": lambda raw: raw.account_id,
    "occurred_at": lambda raw: _day(raw.date),
    "amount": lambda raw: raw.amount,
    "direction": lambda raw: _translate(raw.type, DIRECTIONS),
    "category": lambda raw: _decode(raw.k_symbol, PURPOSES).fill_null(_decode(raw.operation, OPERATIONS)),
    "merchant": _payee,
    "balance_amount": lambda raw: raw.balance,
}

LOAN_COLUMNS: Mapping[str, RawExpression] = {
    "loan_id": lambda raw: raw.loan_id,
    "customer_id": lambda raw: raw.client_id,
    "account_id": lambda raw: raw.account_id,
    "applied_at": lambda raw: _day(raw.date),
    "loan_amount": lambda raw: raw.amount,
    "term_months": lambda raw: raw.duration,
    "instalment_amount": lambda raw: raw.payments,
    "is_default": lambda raw: _translate(raw.status, OUTCOMES),
    "outcome_known_at": _outcome_known,
    "is_statement_weekly": lambda raw: raw.frequency == "POPLATEK TYDNE",
    "is_statement_per_movement": lambda raw: raw.frequency == "POPLATEK PO OBRATU",
    "has_card": lambda raw: (_day(raw.issued) <= _day(raw.date)).fill_null(False),
    **{name: _district(code) for name, (code, _, _) in DISTRICT.items()},
}
