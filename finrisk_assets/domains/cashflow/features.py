"""The feature table of cashflow: one row per account and month that has ended, as Ibis expressions.

`joins` adds up the months and `catalogue` defines the features. A source that brings a panel of its own, with the outcome and the
features as columns of ``accounts``, is taken as it is (`build_from_panel`).
"""

from collections.abc import Collection, Mapping, Sequence

import ibis
import ibis.expr.types as ir

from finrisk_assets.domains.cashflow.catalogue import CATALOGUE
from finrisk_assets.domains.cashflow.joins import add_history, add_up_months, join_declared_income
from finrisk_assets.features.arithmetic import to_currency
from finrisk_assets.features.feature_definition import FeatureDefinition, filled_columns, select_available
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from finrisk_assets.ledger.month_totals import CATEGORY_TOTALS, find_totals
from schemas.features import Feature
from schemas.ledger import TABLES, Column

KEYS: tuple[Column, ...] = (
    Column("account_month", "string", "The account and the month that has ended: 4711@2024-06.", personal="identifier"),
    Column("account_id", "string", "The account.", personal="identifier"),
    TABLES["customers"]["customer_id"],
    Column(
        "as_of", "timestamp", "First instant after the month that has ended; what is decided on is strictly before it.", nullable=True
    ),
    Column("is_surplus", "boolean", "Whether more came in than went out in the next month.", nullable=True, known="outcome_known_at"),
    Column(
        "change_amount", "float64", "Net of the next month's movements: by how much the closing balance changes.", "currency", True,
        personal="personal", known="outcome_known_at",
    ),
    Column("outcome_known_at", "timestamp", "When the next month has ended.", nullable=True),
)  # fmt: skip
"""The columns that identify a row of the feature table, and its outcome."""


def is_panel(columns: Mapping[str, Collection[str]]) -> bool:
    """Return whether a source brings a panel of its own: accounts with the outcome of the next month."""
    return "is_surplus" in columns.get("accounts", ())


def select_features(columns: Mapping[str, Collection[str]], source_features: Sequence[Feature] = ()) -> tuple[Feature, ...]:
    """Return the features that a source allows, in their order in the model.

    Parameters
    ----------
    columns
        Canonical table -> the columns that the source *fills*.
    source_features
        The source's own columns of ``accounts`` that are features as they stand; only a panel of the source's own has them.
    """
    if is_panel(columns):
        return tuple(source_features)
    return select_available(CATALOGUE, filled_columns(columns))


def build(tables: Mapping[str, ir.Table], features: Sequence[Feature], span: TimeSpan = ALL_TIMES) -> ir.Table:
    """Return one row per account and month that has ended: `KEYS`, then the features.

    Parameters
    ----------
    tables
        ``transactions`` or their totals, and ``customers`` where a feature needs them; or ``accounts`` with a panel of the source's own.
    features
        As `select_features` returns them.
    span
        Whole months: the month-ends to return.

    Returns
    -------
    ibis.Table
        Lazy; every feature is float64 or, where it is a category, text; null where it is missing. The outcome is known where the
        account has a row of exactly the next month too.

    Raises
    ------
    ValueError
        For a feature that is not defined here.
    """
    if is_panel({name: table.columns for name, table in tables.items()}):
        return span.filter_rows(build_from_panel(tables["accounts"], features), "as_of")
    definitions = {definition.feature.name: definition for definition in CATALOGUE}
    unknown = [feature.name for feature in features if feature.name not in definitions]
    if unknown:
        raise ValueError(f"cashflow has no feature {', '.join(unknown)}; see CATALOGUE")
    totals, categories = find_totals(tables), find_totals(tables, CATEGORY_TOTALS)
    assert totals is not None and categories is not None
    months = span.filter_rows(add_history(add_up_months(totals, categories, span)), "as_of")
    if "customers" in tables:
        months = join_declared_income(months, tables["customers"])
    return months.select(
        account_month=months.account_id + "@" + months.month,
        account_id=months.account_id,
        customer_id=months.customer_id,
        as_of=months.as_of,
        is_surplus=months._next_change > 0,
        change_amount=to_currency(months._next_change),
        outcome_known_at=months._next_as_of,
        **{feature.name: definitions[feature.name].compute(months) for feature in features},
    )


def build_from_panel(accounts: ir.Table, features: Sequence[Feature]) -> ir.Table:
    """Return the rows of a source that brings the outcome and the features itself, one per account.

    Parameters
    ----------
    accounts
        With ``is_surplus``; with ``as_of``, ``change_amount`` and ``outcome_known_at`` where the source knows them. An account's
        opening is no ``as_of``: a panel without that column has no time.

    Raises
    ------
    ValueError
        For a feature that the accounts do not have.
    """
    missing = [feature.name for feature in features if feature.name not in accounts.columns]
    if missing:
        raise ValueError(f"the accounts have no column {', '.join(missing)}")

    def optional(name: str, kind: str) -> ir.Value:
        return accounts[name].cast(kind) if name in accounts.columns else ibis.null(kind)

    return accounts.select(
        account_month=accounts.account_id,
        account_id=accounts.account_id,
        customer_id=accounts.customer_id,
        as_of=optional("as_of", "timestamp(6)"),
        is_surplus=accounts.is_surplus,
        change_amount=optional("change_amount", "float64"),
        outcome_known_at=optional("outcome_known_at", "timestamp(6)"),
        **{feature.name: FeatureDefinition(feature).compute(accounts) for feature in features},
    )
