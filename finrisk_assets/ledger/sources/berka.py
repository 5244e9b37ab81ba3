"""Berka: the Czech bank of the PKDD'99 challenge, with accounts, two slices of their movements and loans with outcome.

What the files leave unsaid and is decided here: a customer is the owner of an account (a person who may merely dispose
of one is not); a loan is good while it is paid (status A, C) and bad where it ended or runs in debt (B, D); standing
orders and second users of an account are undated, so that no loan's features may use them.
"""

from collections.abc import Mapping
from pathlib import Path

import ibis
import ibis.expr.types as ir

from finrisk_assets.ledger.contract import trim
from finrisk_assets.ledger.landing import Csv, Landed, land_joined
from finrisk_assets.ledger.sources.base import Expression, RawTable, Source
from finrisk_assets.settings import Settings
from schemas.features import Feature
from schemas.ledger import ACCOUNTS, CUSTOMERS, LOANS, TRANSACTIONS, Column

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
        "Account statements are asked for weekly", "Account statements are not asked for weekly",
    ),
    Feature(
        "is_statement_per_movement", "", "Whether a statement comes after each movement.",
        "A statement is asked for after each movement", "Statements are not asked for after each movement",
    ),
    Feature(
        "has_card", "", "Whether the account had a card at the application.",
        "No payment card is held on the account", "A payment card is held on the account",
    ),
    # Of the district only what hardly changes: the snapshot's unemployment and crimes of 1995 and 1996 were not known to
    # those who granted the loans of 1993.
    *(
        Feature(name, *DISTRICT[name][1:], f"{label} of the district speaks against it", f"{label} of the district speaks for it")
        for name, label in {
            "district_inhabitants": "The size",
            "district_urban_pct": "The share of town dwellers",
            "district_salary_amount": "The average salary",
            "district_entrepreneurs": "The number of entrepreneurs",
        }.items()
    ),
)

CUSTOMER_COLUMNS: Mapping[str, Expression] = {
    "customer_id": lambda raw: raw.client_id,
    "birth_year": lambda raw: _day(raw.birth_number).substr(0, 4),
    # In a Czech birth number a woman's month is raised by 50.
    "gender": lambda raw: ibis.cases((_birth_month(raw) > 50, "F"), (_birth_month(raw) > 0, "M"), else_=ibis.null("string")),
    "country": lambda raw: ibis.literal("CZ"),
    "joined_at": lambda raw: _day(raw.account_date),
}

ACCOUNT_COLUMNS: Mapping[str, Expression] = {
    "account_id": lambda raw: raw.account_id,
    "customer_id": lambda raw: raw.client_id,
    "opened_at": lambda raw: _day(raw.date),
    "statement_frequency": lambda raw: _named(raw.frequency, FREQUENCIES),
}

TRANSACTION_COLUMNS: Mapping[str, Expression] = {
    "transaction_id": lambda raw: raw.trans_id,
    "customer_id": lambda raw: raw.client_id,
    "account_id": lambda raw: raw.account_id,
    "occurred_at": lambda raw: _day(raw.date),
    "amount": lambda raw: raw.amount,
    "direction": lambda raw: _named(raw.type, DIRECTIONS),
    "category": lambda raw: _known(raw.k_symbol, PURPOSES).fill_null(_known(raw.operation, OPERATIONS)),
    "merchant": _payee,
    "balance_amount": lambda raw: raw.balance,
}

LOAN_COLUMNS: Mapping[str, Expression] = {
    "loan_id": lambda raw: raw.loan_id,
    "customer_id": lambda raw: raw.client_id,
    "account_id": lambda raw: raw.account_id,
    "applied_at": lambda raw: _day(raw.date),
    "loan_amount": lambda raw: raw.amount,
    "term_months": lambda raw: raw.duration,
    "instalment_amount": lambda raw: raw.payments,
    "is_default": lambda raw: _named(raw.status, OUTCOMES),
    "outcome_known_at": _outcome_known,
    "is_statement_weekly": lambda raw: raw.frequency == "POPLATEK TYDNE",
    "is_statement_per_movement": lambda raw: raw.frequency == "POPLATEK PO OBRATU",
    "has_card": lambda raw: (_day(raw.issued) <= _day(raw.date)).fill_null(False),
    **{name: _district(code) for name, (code, _, _) in DISTRICT.items()},
}
