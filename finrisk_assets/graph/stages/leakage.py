"""The check ``model_<domain>_leakage``: no model learns from what was not known when the decision fell.

The rules are those of `modelling.evaluation.leakage` and `look_ahead`. They are applied to a sample of the labelled rows, and to the
domain's features computed again from a ledger cut off at a decision. The check blocks what is downstream of a *model*: a challenger with
a finding that is near certain is neither evaluated nor promoted, and the champion goes on scoring. Other findings are warnings.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg

from finrisk_assets.domains.base import Domain
from finrisk_assets.graph import checks
from finrisk_assets.graph.resources import Tracking, TrackingResource
from finrisk_assets.graph.warehouse import Warehouse, WarehouseResource, markdown_table
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.evaluation.leakage import PROVEN, TIME
from finrisk_assets.modelling.training import gate_verdict, model_registry
from finrisk_assets.settings import Settings
from schemas.ledger import Column

if TYPE_CHECKING:
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.modelling.evaluation.leakage import LeakageFinding

CELLS = 100_000
"""Rows times features that the linter's models are fitted on: more find smaller leaks and take longer."""
MAX_ROWS_READ = 20_000
"""Rows that the check reads, of customers drawn by the seed."""
REPLAYED_CUSTOMERS = 40
"""Customers whose features are computed again."""
REPLAYED_AT = 0.9
"""Share of the rows that are decided before the ledger is cut off."""
SHOWN = 3
"""Findings in the check's description; its table holds all of them."""
ORDER = "_ordered_at"
"""Column that orders the rows where no column says when they are decided."""


def build_assets(domain: Domain, source: Source, settings: Settings) -> list[Any]:
    """Return the check of the features that the domain's model reads."""

    @checks.asset_check(
        f"model_{domain.name}",
        f"model_{domain.name}_leakage",
        "No feature tells what was not known when the decision fell: none known later, none that echoes the target, none that "
        "only works within its own time, none that names rows, and none that changes when later events are taken away.",
    )
    def check(warehouse: WarehouseResource, tracking: TrackingResource) -> dg.AssetCheckResult:
        leaks = findings(domain, source, settings, warehouse)
        blocking = [leak for leak in leaks if leak.severity == "block"]
        _tag_challenger(tracking, domain, [leak.column or TIME for leak in blocking])
        rows = [
            {
                "column": leak.column or TIME,
                "rule": leak.rule,
                "verdict": leak.severity,
                "evidence": leak.evidence,
                "why": leak.shows,
                "what to do": leak.advice,
            }
            for leak in leaks
        ]
        return dg.AssetCheckResult(
            passed=not leaks,
            severity=dg.AssetCheckSeverity.ERROR if blocking or not leaks else dg.AssetCheckSeverity.WARN,
            description="; ".join(map(str, leaks[:SHOWN])) or "nothing leaks",
            metadata={
                "features": len(domain.select_features(source)),
                "findings": dg.MetadataValue.md(markdown_table(rows) if rows else "none"),
                "examined": ", ".join(sorted(examined_columns(domain, settings))) or "none",
            },
        )

    return [check]


def _tag_challenger(tracking: Tracking, domain: Domain, columns: Sequence[str]) -> None:
    """Tag the challenger, so that it is refused too where its stages are materialised one by one."""
    client = tracking.client()
    challenger = model_registry.find_version(client, domain.name, model_registry.CHALLENGER)
    if challenger is not None:
        gate_verdict.record_leaks(client, challenger.name, challenger.version, columns)


def findings(domain: Domain, source: Source, settings: Settings, warehouse: Warehouse) -> "list[LeakageFinding]":
    """Lint a sample of the rows that may teach, and replay a sample of customers where the source has movements of theirs."""
    from finrisk_assets.modelling.evaluation import leakage, look_ahead
    from finrisk_assets.modelling.training.parallel import run_both
    from finrisk_assets.modelling.training.provenance import limit_threads

    decision_time, names = domain.decision_time, [feature.name for feature in domain.select_features(source)]
    own = {feature.name for feature in source.features.get(domain.group, ())}
    frame, sample_rows = sample(domain, source, warehouse, settings), sample_size(names)

    def lint() -> "list[LeakageFinding]":
        return leakage.lint(
            frame,
            names,
            domain.label,
            decision_time=decision_time,
            order=ORDER,
            group="customer_id",
            columns=own_columns(source, domain),
            computed=[name for name in names if name not in own],
            examined=examined_columns(domain, settings),
            most=sample_rows,
            seed=settings.seed,
        )

    def replay() -> "list[LeakageFinding]":
        if "transactions" not in source.tables or not frame[decision_time].notna().any():
            return []
        return look_ahead.find_look_ahead(
            lambda tables: domain.build_features(tables, source),
            load_feature_inputs(domain, source, warehouse),
            names,
            key=domain.keys[0].name,
            decision_time=decision_time,
            shares=(REPLAYED_AT,),
            before=domain.known_before,
            contracts={name: raw.table for name, raw in source.tables.items()},
            sample=REPLAYED_CUSTOMERS,
            seed=settings.seed,
        )

    with limit_threads():
        linted, replayed = run_both(lint, replay, settings.threads)
    return [_with_excuse(leak, domain) for leak in sorted([*replayed, *linted], key=lambda leak: leak.severity != "block")]


def _with_excuse(leak: "LeakageFinding", domain: Domain) -> "LeakageFinding":
    """Return the finding with the setting that records an examination, where an examination excuses its rule."""
    if leak.rule in PROVEN:
        return leak
    setting = f"FINRISK_EXAMINED={domain.name}.{leak.column or TIME}"
    return replace(leak, advice=f"{leak.advice}; if it is legitimate, say that it was examined: {setting}")


def examined_columns(domain: Domain, settings: Settings) -> frozenset[str]:
    """Return the columns that the domain declares as examined, or ``FINRISK_EXAMINED`` (``cashflow.net_flow_30d, loan_default.time``)."""
    entries = (entry.strip().partition(".") for entry in settings.examined.split(","))
    return frozenset(column for group, _, column in entries if group in (domain.name, domain.group)) | frozenset(domain.examined)


def own_columns(source: Source, domain: Domain) -> list[Column]:
    """Return the contract, which says when they become known, of a source's own columns that are features as they stand."""
    own = {feature.name for feature in source.features.get(domain.group, ())}
    return [column for raw in source.tables.values() for column in raw.table.columns if column.name in own]


def load_feature_inputs(domain: Domain, source: Source, warehouse: Warehouse) -> "dict[str, LazyTable]":
    """Return the stored tables that a domain's features are computed from."""
    tables = {name: warehouse.table(f"validated_{name}") for name in domain.tables if name in source.tables}
    return tables | {name: warehouse.table(name) for name in domain.upstream if warehouse.has(name)}


def sample_size(names: Sequence[str]) -> int:
    """Return how many rows the models of the linter are fitted on."""
    from finrisk_assets.modelling.evaluation.leakage_evidence import LARGEST_SAMPLE

    return min(LARGEST_SAMPLE, CELLS // len(names))


def sample(domain: Domain, source: Source, warehouse: Warehouse, settings: Settings) -> "pd.DataFrame":
    """Return labelled rows of enough customers, in the order of the key, with the column `ORDER`.

    Where no outcome is known, return all rows of these customers with the label False, so that the rules that need an outcome find
    nothing.
    """
    from finrisk_assets.modelling.training.candidates import number_levels

    features = warehouse.table(f"features_{domain.group}")
    customers = draw_customers(
        features, domain.label, sample_size([feature.name for feature in domain.select_features(source)]), settings.seed
    )
    rows = _with_order(features.filter(features.customer_id.isin(customers)), domain, source, warehouse)
    frame = rows.order_by(domain.keys[0].name).to_pyarrow().to_pandas()
    for feature in domain.select_features(source):
        if feature.is_category:  # numbers of levels in the order of their names: weights would be means of outcomes
            levels = sorted(frame[feature.name].dropna().unique())
            frame[feature.name] = number_levels(frame[feature.name], levels)
    labelled = domain.labelled_rows(frame, settings)
    return labelled if len(labelled) else frame.assign(**{domain.label: False})


def _with_order(rows: "LazyTable", domain: Domain, source: Source, warehouse: Warehouse) -> "LazyTable":
    """Add the column `ORDER`: the time of the account, loan or offer that a row names, else of its customer."""
    import ibis

    for name in sorted(domain.tables, key=lambda name: name == "customers"):
        table = source.tables[name].table if name in source.tables else None
        if table is not None and table.event_time is not None and table.key in rows.columns:
            subject = warehouse.table(f"validated_{name}").select(_about=table.key, **{ORDER: table.event_time})
            return rows.left_join(subject, rows[table.key] == subject._about).drop("_about")
    return rows.mutate(**{ORDER: ibis.null("timestamp")})


def draw_customers(features: "LazyTable", label: str, most: int, seed: int) -> list[str]:
    """Draw customers until they have enough rows, half of them of either outcome, or as many as may be read.

    Rows without an outcome count where no row has one.
    """
    import ibis
    import numpy as np

    outcomes = features[label].cast("int64")
    counted = features.group_by("customer_id").agg(
        rows=ibis._.count(), labelled=outcomes.count(), yes=outcomes.sum().fill_null(0), no=(1 - outcomes).sum().fill_null(0)
    )
    people = counted.order_by("customer_id").to_pyarrow().to_pydict()
    order = np.random.default_rng(seed).permutation(len(people["customer_id"]))
    sums = {name: np.cumsum(np.asarray(people[name], float)[order]) for name in ("rows", "labelled", "yes", "no")}
    if not len(order):
        return []
    needed = {"labelled": most, "yes": most // 2, "no": most // 2} if sums["labelled"][-1] else {"rows": most}
    enough = max(int(np.searchsorted(sums[name], min(rows, sums[name][-1]))) for name, rows in needed.items())
    readable = sums["labelled" if sums["labelled"][-1] else "rows"]
    return [people["customer_id"][place] for place in order[: min(enough, int(np.searchsorted(readable, MAX_ROWS_READ))) + 1]]
