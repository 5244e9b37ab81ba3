"""The feature table of spending risk: one row per person and month that has ended, as Ibis expressions.

`joins` adds the sums over the ledger, `target` the outcome, and `catalogue` defines the features.
"""

from collections.abc import Collection, Mapping, Sequence

import ibis.expr.types as ir

from finrisk_assets.domains.spending_risk.catalogue import CATALOGUE
from finrisk_assets.domains.spending_risk.joins import (
    MONTHS,
    WINDOW_MONTHS,
    add_up_last_months,
    add_up_trailing_days,
    join_columns,
    join_usual_income,
)
from finrisk_assets.domains.spending_risk.target import QUARTER_MONTHS, Trouble, find_outcomes
from finrisk_assets.features.feature_definition import filled_columns, select_available
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from finrisk_assets.ledger.month_totals import add_up_people, find_first_month, find_month_ends, find_totals
from schemas.features import Feature
from schemas.ledger import Column

KEYS: tuple[Column, ...] = (
    Column("customer_month", "string", "The person and the month that ended: <customer_id>@2024-06.", personal="identifier"),
    Column("customer_id", "string", "The person.", personal="identifier"),
    Column("as_of", "timestamp", "The month-end: first instant of the next month."),
    Column("is_trouble", "boolean", "Whether trouble followed.", nullable=True, personal="personal", known="outcome_known_at"),
    Column("outcome_known_at", "timestamp", "When `is_trouble` became known.", nullable=True),
)
"""The columns that identify a row of the feature table, and its outcome."""


def select_features(columns: Mapping[str, Collection[str]], without: Collection[str] = ()) -> tuple[Feature, ...]:
    """Return the features that a source allows, in their order in the model.

    Parameters
    ----------
    columns
        Canonical table -> the columns that the source *fills*.
    without
        Names of features that the source leaves out.
    """
    available = select_available(CATALOGUE, filled_columns(columns))
    return tuple(feature for feature in available if feature.name not in without)


def build(tables: Mapping[str, ir.Table], features: Sequence[Feature], trouble: Trouble, span: TimeSpan = ALL_TIMES) -> ir.Table:
    """Return one row per person and month-end: `KEYS`, then the features.

    Parameters
    ----------
    tables
        ``transactions``, with balances and categories, and ``customers`` where features need them; validated. The transactions'
        totals are read where they are among the tables.
    features
        As `select_features` returns them.
    trouble
        What counts as trouble in this ledger.
    span
        Whole months: the month-ends to return.

    Returns
    -------
    ibis.Table
        Lazy; every feature is float64, null where it is missing.
    """
    totals = find_totals(tables)
    assert totals is not None
    movements = span.widen(WINDOW_MONTHS + 1, QUARTER_MONTHS).filter_rows(tables["transactions"], "occurred_at")
    months = add_up_people(span.widen(MONTHS[-1], QUARTER_MONTHS).filter_rows(totals, "month"))
    # The length of the history, and whether a ledger runs on, are asked of all months.
    later_ends = find_month_ends(totals, "customer_id", span.widen(0, QUARTER_MONTHS))
    ends = span.filter_rows(later_ends, "as_of")
    rows = join_columns(ends, add_up_trailing_days(ends, movements))
    rows = join_columns(rows, add_up_last_months(ends, months, find_first_month(totals)))
    if "customers" in tables:
        rows = join_usual_income(rows, tables["customers"])
    rows = join_columns(rows, find_outcomes(ends.select("customer_id", "as_of"), later_ends, movements, months, trouble))
    rows = rows.mutate(customer_month=rows.customer_id + "@" + rows.month)
    definitions = {definition.feature.name: definition for definition in CATALOGUE}
    return rows.select(*(column.name for column in KEYS), **{feature.name: definitions[feature.name].compute(rows) for feature in features})
