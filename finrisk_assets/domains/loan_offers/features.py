"""The feature table of the loan offers: one row per offer, with everything known when the offer is made, as Ibis expressions.

After the offers there is one month-end row per customer and month-end where the source has movements: no terms, no answer, the number
``<customer>@2024-06``. The best offer is looked for on it; it never teaches. `joins` adds the columns that the features of `catalogue`
read. Columns of the source's own are features as they stand; on a month-end row they are missing.
"""

from collections.abc import Collection, Mapping, Sequence

import ibis
import ibis.expr.types as ir

from finrisk_assets.domains.loan_offers.catalogue import CATALOGUE, INCOME_NEEDS, LEDGER_NEEDS
from finrisk_assets.domains.loan_offers.joins import build_month_end_rows, join_earlier_offers, join_newest_score
from finrisk_assets.features.arithmetic import finite
from finrisk_assets.features.feature_definition import FeatureDefinition, check_source_features, filled_columns, select_available
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from finrisk_assets.ledger.complete_months import join_complete_months
from finrisk_assets.ledger.month_totals import find_totals
from schemas.features import Feature
from schemas.ledger import TABLES, Column

PD = Column(
    "pd", "float64", "Newest probability of default known of the customer.", "probability", True, 0, 1, personal="personal",
    known="offered_at",
)  # fmt: skip
SPENDING = Column(
    "spending_probability", "float64", "Newest probability known of trouble by the customer's spending.", "probability", True, 0, 1,
    personal="personal", known="offered_at",
)  # fmt: skip
MONTHLY_INCOME = Column(
    "monthly_income_amount", "float64", "Usual monthly income on the account, or what the source states.", "currency a month",
    True, 0, personal="personal", known="offered_at",
)  # fmt: skip

KEYS: tuple[Column, ...] = (
    *(TABLES["offers"][name] for name in ("offer_id", "customer_id", "offered_at", "is_accepted", "is_rate_random", "outcome_known_at")),
    PD,
    SPENDING,
    MONTHLY_INCOME,
)
"""The columns that identify a row of the feature table, its answer, and what the price of an offer needs beside the acceptance."""


def select_features(columns: Mapping[str, Collection[str]], source_features: Sequence[Feature] = ()) -> tuple[Feature, ...]:
    """Return the features that a source allows, in their order in the model.

    Parameters
    ----------
    columns
        Canonical table -> the columns that the source *fills*.
    source_features
        The source's own columns of ``offers`` that are features as they stand.

    Raises
    ------
    ValueError
        Where a source's feature has the name of a defined feature, or the source does not fill it.
    """
    filled = filled_columns(columns)
    if filled.issuperset(LEDGER_NEEDS.split()) or "offers.stated_income_amount" in filled:
        filled.add(INCOME_NEEDS)
    check_source_features(source_features, CATALOGUE, "offers", filled)
    return (*select_available(CATALOGUE, filled), *source_features)


def build(tables: Mapping[str, ir.Table], features: Sequence[Feature], span: TimeSpan = ALL_TIMES) -> ir.Table:
    """Return one row per offer and one month-end row per customer and month-end: `KEYS`, then the features.

    Parameters
    ----------
    tables
        ``offers``, and ``transactions`` or their totals where the source has them; validated. ``scores_loan_default`` and
        ``scores_spending_risk``, where there are such, give the PD and the probability of trouble.
    features
        As `select_features` returns them; a name that is not in `CATALOGUE` is a column of ``offers``.
    span
        Whole months: the rows to return.

    Returns
    -------
    ibis.Table
        Lazy; every feature is float64, null where it is missing.

    Raises
    ------
    ValueError
        Where a feature is neither defined nor a column of ``offers``.
    """
    definitions = {definition.feature.name: definition for definition in CATALOGUE}
    offers = tables["offers"]
    unknown = [feature.name for feature in features if feature.name not in definitions and feature.name not in offers.columns]
    if unknown:
        raise ValueError(f"no feature and no column of the offers is called {', '.join(unknown)}")
    offered = span.filter_rows(offers, "offered_at")
    totals = find_totals(tables)
    if totals is not None:
        offered = ibis.union(offered, build_month_end_rows(offers, totals, span))
    # What is joined starts from the bare rows each time, so that the engine does not work out the other joins again.
    moments = offered.select("offer_id", "customer_id", "offered_at")
    rows = offered.mutate(_usual_income=ibis.null("float64"))
    if totals is not None:
        rows = join_complete_months(offered, totals, "offered_at", span)
    rows = join_earlier_offers(rows, moments, offers)
    rows = join_newest_score(rows, moments, tables.get("scores_loan_default"), "applied_at", "_pd")
    rows = join_newest_score(rows, moments, tables.get("scores_spending_risk"), "as_of", "_spending")
    stated = rows.stated_income_amount if "stated_income_amount" in offers.columns else ibis.null("float64")
    rows = rows.mutate(_monthly_income=rows._usual_income.coalesce(stated))
    keys = {column.name: rows[column.name] for column in KEYS if column.name in offers.columns}
    keys |= {PD.name: finite(rows._pd), SPENDING.name: finite(rows._spending), MONTHLY_INCOME.name: finite(rows._monthly_income)}
    values = {feature.name: definitions.get(feature.name, FeatureDefinition(feature)).compute(rows) for feature in features}
    return rows.select(**keys, **values)
