"""The five canonical tables of the ledger, declared column by column.

One declaration serves every use: the casts and quarantine rules (`finrisk_assets.ledger.contract`), the Pandera contract
that re-reads what was stored, the Dagster column schema and the leakage rules. A source may add columns of its own with
`Table.with_columns`; it never changes the meaning of a canonical one.

Money is in the ledger's one currency, which the source states. Times are naive UTC timestamps, to the microsecond.
Identifiers are opaque text. Every text is in the normal form of `schemas.normal_form`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

DType = Literal["string", "int64", "float64", "boolean", "timestamp"]
ARROW_TYPES: Mapping[str, str] = {
    "string": "string", "int64": "int64", "float64": "float64", "boolean": "bool", "timestamp": "timestamp[us]",
}  # fmt: skip
"""Types of a contract -> Arrow's names of them."""
PersonalData = Literal["none", "identifier", "personal", "protected"]
"""`identifier` names a person or account; `personal` describes one; `protected` may never enter a model."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    name, dtype, description
        The column's name, its type in the warehouse and its meaning.
    unit
        Unit of a number (``"currency"``, ``"months"``, ``"percent a year"``), empty where there is none.
    nullable
        Whether a row without a value meets the contract.
    minimum, maximum
        Inclusive bounds of a number.
    allowed
        The only values of a text column.
    is_country
        Whether a text column holds countries: codes of ISO 3166-1 alpha-2.
    is_optional
        Whether a source may lack a column that has a value in every row elsewhere.
    zone
        The IANA zone of times that the source writes without an offset; empty means UTC. The ledger's own are always UTC.
    personal
        Class of personal data.
    known
        When the value becomes known: ``"always"``, or the column of the same table that holds the time.
    """

    name: str
    dtype: DType
    description: str
    unit: str = ""
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str, ...] = ()
    personal: PersonalData = "none"
    known: str = "always"
    is_country: bool = False
    zone: str = ""
    is_optional: bool = False


@dataclass(frozen=True)
class Table:
    """The contract of a table: its columns, its key, and its references (column -> table with a key of the same meaning)."""

    name: str
    description: str
    columns: tuple[Column, ...]
    key: str
    references: Mapping[str, str] = field(default_factory=dict)
    event_time: str | None = None

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"table {self.name!r} has no column {name!r}; it has {', '.join(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def with_columns(self, *columns: Column) -> "Table":
        """Return the table with a source's own columns added after the canonical ones.

        Raises
        ------
        ValueError
            If the table has a column of that name already.
        """
        clash = {column.name for column in columns} & set(self.names)
        if clash:
            raise ValueError(f"table {self.name!r} already has the columns {sorted(clash)}")
        return replace(self, columns=(*self.columns, *columns))

    def without(self, *names: str) -> "Table":
        """Return the table of a source that lacks optional columns: they are null in every row."""
        return replace(self, columns=tuple(replace(column, nullable=column.nullable or column.name in names) for column in self.columns))

    def with_zones(self, zones: Mapping[str, str]) -> "Table":
        """Return the table with the zone of a source's times, by column."""
        return replace(self, columns=tuple(replace(column, zone=zones.get(column.name, column.zone)) for column in self.columns))


def _identifier(name: str, description: str, *, nullable: bool = False) -> Column:
    return Column(name, "string", description, nullable=nullable, personal="identifier")


CUSTOMERS = Table(
    "customers",
    "The people whose money it is, one row each.",
    (
        _identifier("customer_id", "The person."),
        Column("birth_year", "int64", "Year of birth.", "year", True, 1900, 2100, personal="protected"),
        Column("gender", "string", "As the source states it.", nullable=True, personal="protected"),
        Column("country", "string", "Country of residence, ISO 3166 alpha-2.", nullable=True, personal="personal", is_country=True),
        Column("joined_at", "timestamp", "When the person became a customer.", nullable=True),
        Column(
            "income_amount",
            "float64",
            "Declared monthly income.",
            "currency a month",
            True,
            0,
            personal="personal",
            known="joined_at",
        ),
    ),
    key="customer_id",
    event_time="joined_at",
)

ACCOUNTS = Table(
    "accounts",
    "Accounts, each owned by one customer.",
    (
        _identifier("account_id", "The account."),
        _identifier("customer_id", "Its owner."),
        Column("opened_at", "timestamp", "When it was opened."),
        Column("overdraft_limit_amount", "float64", "Agreed overdraft.", "currency", True, 0, known="opened_at"),
    ),
    key="account_id",
    references={"customer_id": "customers"},
    event_time="opened_at",
)

TRANSACTIONS = Table(
    "transactions",
    "Movements of money, one row each.",
    (
        _identifier("transaction_id", "The movement."),
        _identifier("customer_id", "Whose money moved."),
        _identifier("account_id", "The account it moved on.", nullable=True),
        Column("occurred_at", "timestamp", "When it happened."),
        Column("amount", "float64", "Size of the movement, never negative.", "currency", minimum=0, known="occurred_at"),
        Column("direction", "string", "Money in or money out.", allowed=("credit", "debit"), known="occurred_at"),
        Column("category", "string", "What it was for.", nullable=True, personal="personal", known="occurred_at"),
        Column("merchant", "string", "The other side: a merchant, terminal or payee.", nullable=True, known="occurred_at"),
        Column(
            "country",
            "string",
            "Where it happened, ISO 3166 alpha-2.",
            nullable=True,
            personal="personal",
            known="occurred_at",
            is_country=True,
        ),
        Column("balance_amount", "float64", "Balance after it.", "currency", True, personal="personal", known="occurred_at"),
        Column("is_fraud", "boolean", "Whether it was fraud.", nullable=True, known="label_known_at"),
        Column("label_known_at", "timestamp", "When `is_fraud` became known.", nullable=True),
    ),
    key="transaction_id",
    references={"customer_id": "customers", "account_id": "accounts"},
    event_time="occurred_at",
)

IS_TEST = Column("is_test", "boolean", "Whether the row is of the test set that the source states.", nullable=True)
"""The column of a table whose source states which rows are the test set; a table without it is split by finrisk."""

LOANS = Table(
    "loans",
    "Loans applied for and granted, with their outcome once it is known.",
    (
        _identifier("loan_id", "The loan."),
        _identifier("customer_id", "The borrower."),
        _identifier("account_id", "The account it is repaid from.", nullable=True),
        Column("applied_at", "timestamp", "When it was applied for; what is decided on must be known by then.", nullable=True),
        Column("loan_amount", "float64", "Amount lent, or limit granted.", "currency", minimum=1, known="applied_at", is_optional=True),
        Column("term_months", "int64", "Months to repay.", "months", True, 1, 600, known="applied_at"),
        Column("instalment_amount", "float64", "Monthly instalment.", "currency a month", True, 0, known="applied_at"),
        Column("annual_rate_pct", "float64", "Nominal yearly interest rate.", "percent a year", True, 0, 1000, known="applied_at"),
        Column("is_default", "boolean", "Whether it defaulted, by the source's own outcome.", nullable=True, known="outcome_known_at"),
        Column("outcome_known_at", "timestamp", "When `is_default` became known.", nullable=True),
    ),
    key="loan_id",
    references={"customer_id": "customers", "account_id": "accounts"},
    event_time="applied_at",
)

OFFERS = Table(
    "offers",
    "Loan offers made, with the answer once it is known.",
    (
        _identifier("offer_id", "The offer."),
        _identifier("customer_id", "The customer who gets the offer."),
        Column("offered_at", "timestamp", "When it was made.", nullable=True),
        Column("loan_amount", "float64", "Amount offered.", "currency", True, 1, known="offered_at"),
        Column("term_months", "int64", "Months to repay.", "months", True, 1, 600, known="offered_at"),
        Column("annual_rate_pct", "float64", "Nominal yearly interest rate.", "percent a year", False, 0, 1000, known="offered_at"),
        Column("is_rate_random", "boolean", "Whether the rate was drawn at random, not set by a policy.", nullable=True),
        Column("is_accepted", "boolean", "Whether it was accepted.", nullable=True, known="outcome_known_at"),
        Column("outcome_known_at", "timestamp", "When `is_accepted` became known.", nullable=True),
    ),
    key="offer_id",
    references={"customer_id": "customers"},
    event_time="offered_at",
)

TABLES: Mapping[str, Table] = {table.name: table for table in (CUSTOMERS, ACCOUNTS, TRANSACTIONS, LOANS, OFFERS)}
