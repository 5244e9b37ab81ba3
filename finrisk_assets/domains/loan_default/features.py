"""The feature table of the loans: one row per loan, with everything known when the loan is applied for, as Ibis expressions.

`catalogue` defines the features, `joins` and `ledger.complete_months` add the columns that they read, and
`finrisk_assets.features.loan_terms` has the formulas of what follows from the terms.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import ibis
import ibis.expr.types as ir

from finrisk_assets.domains.loan_default.catalogue import CATALOGUE
from finrisk_assets.domains.loan_default.joins import join_owner
from finrisk_assets.features.arithmetic import epoch_micros, finite, ratio
from finrisk_assets.features.feature_definition import FeatureDefinition, check_source_features, filled_columns
from finrisk_assets.features.loan_terms import FORMULAS
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from finrisk_assets.ledger.complete_months import join_complete_months
from finrisk_assets.ledger.month_totals import ACCOUNT_TOTALS, find_totals
from finrisk_assets.scoring.ratios import LARGEST_RATIO
from schemas.features import Feature
from schemas.ledger import IS_TEST, TABLES, Column

KEYS: tuple[Column, ...] = tuple(
    TABLES["loans"][name] for name in ("loan_id", "customer_id", "applied_at", "is_default", "outcome_known_at")
)
"""The columns that identify a row of the feature table, and its outcome."""


def select_features(columns: Mapping[str, Collection[str]], source_features: Sequence[Feature] = ()) -> tuple[Feature, ...]:
    """Return the features that a source allows, in their order in the model.

    Parameters
    ----------
    columns
        Canonical table -> the columns that the source *fills*: ``{name: raw.columns for name, raw in source.tables.items()}``.
        A column that is there but always null must not be among them.
    source_features
        The source's own columns of ``loans`` that are features as they stand.

    Raises
    ------
    ValueError
        Where a source's feature has the name of a defined feature, or the source does not fill it.
    """
    filled = filled_columns(columns)
    check_source_features(source_features, CATALOGUE, "loans", filled)
    read = {definition.feature.name for definition in CATALOGUE if definition.value is not None and filled.issuperset(definition.needs)}
    available = read | {feature.name for feature in source_features}
    derived = {name for name, formula in FORMULAS.items() if available.issuperset(formula.reads)}
    return (*(definition.feature for definition in CATALOGUE if definition.feature.name in read | derived), *source_features)


def build(tables: Mapping[str, ir.Table], features: Sequence[Feature], span: TimeSpan = ALL_TIMES) -> ir.Table:
    """Return one row per loan: `KEYS`, `IS_TEST` where the source states the test set, then the features.

    Parameters
    ----------
    tables
        ``loans``, and ``customers``, ``accounts``, ``transactions`` or their totals where features need them; validated.
    features
        As `select_features` returns them; a name that is not in `CATALOGUE` is a column of ``loans``.
    span
        Whole months in which all loans were applied for.

    Returns
    -------
    ibis.Table
        Lazy; every feature is float64 or, where it is a category, text; null where it is missing.

    Raises
    ------
    ValueError
        Where a feature is neither defined nor a column of ``loans``, or needs a table that is not given.
    """
    names = [feature.name for feature in features]
    derived = [name for name in names if name in FORMULAS]
    read_by_formulas = [name for formula in derived for name in FORMULAS[formula].reads]
    read = list(dict.fromkeys([*(name for name in names if name not in FORMULAS), *read_by_formulas]))
    definitions = {definition.feature.name: definition for definition in CATALOGUE}
    loans = tables["loans"]
    unknown = [name for name in read if name not in definitions and name not in loans.columns]
    if unknown:
        raise ValueError(f"no feature and no column of the loans is called {', '.join(unknown)}")
    needs: dict[str, set[str]] = {}
    for name in read:
        for table, needed in (need.split(".") for need in (definitions[name].needs if name in definitions else ())):
            is_added_up = table == "transactions" and ACCOUNT_TOTALS.name in tables
            if not is_added_up and (table not in tables or needed not in tables[table].columns):
                raise ValueError(f"the feature {name} needs {table}.{needed}, which is not given")
            needs.setdefault(table, set()).add(needed)

    rows = loans.mutate(_applied_us=epoch_micros(loans.applied_at))
    if "customers" in needs:
        rows = join_owner(rows, tables["customers"], "customer_id", "joined_at", needs["customers"])
    if "accounts" in needs:
        rows = join_owner(rows, tables["accounts"], "account_id", "opened_at", needs["accounts"])
    if "transactions" in needs:
        rows = join_complete_months(rows, find_totals(tables), "applied_at", span)
    keys = [key.name for key in KEYS] + [IS_TEST.name] * (IS_TEST.name in loans.columns)
    own = {feature.name: FeatureDefinition(feature) for feature in features}
    columns = {name: (definitions.get(name) or own[name]).compute(rows) for name in read}
    known = rows.select(*keys, **columns)
    formulas = {name: FORMULAS[name].value(_COLUMNS, *(known[read] for read in FORMULAS[name].reads)) for name in derived}
    return known.select(*keys, **{name: finite(formulas[name]) if name in formulas else known[name] for name in names})


class _Columns:
    """The arithmetic of `loan_terms` over Ibis columns."""

    def ratio(self, part: ir.Value, whole: ir.Value, largest: float = LARGEST_RATIO) -> ir.Value:
        return ratio(part, whole, largest)

    def greatest(self, values: Iterable[ir.Value]) -> ir.Value:
        return ibis.greatest(*values)


_COLUMNS = _Columns()
