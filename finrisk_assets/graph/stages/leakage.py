"""The check ``model_<domain>_leakage``: no model that was told what nobody could know when the decision falls.

The rules are those of `modelling.leakage`. Here stands what they are asked about: a sample of the rows that taught, and the domain's
features computed again from a ledger cut off at a decision. The check blocks what is downstream of a *model*: a challenger with a
finding is neither judged nor promoted, and the champion goes on scoring.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from finrisk_assets.domains.base import Domain
from finrisk_assets.graph.resources import Tracking
from finrisk_assets.graph.warehouse import Warehouse, markdown_table
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.training import gate_verdict, model_registry
from finrisk_assets.settings import Settings
from schemas.ledger import Column

if TYPE_CHECKING:
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.modelling.evaluation.leakage import LeakageFinding

CELLS = 100_000
"""Values that models are fitted on, rows times features: what a check may take. More find smaller leaks and take longer."""
MAX_ROWS_READ = 20_000
"""Rows that are read for it, of customers drawn by the seed."""
REPLAYED_CUSTOMERS = 40
"""Customers whose features are computed again."""
REPLAYED_AT = 0.9
"""The share of the rows that are decided up to the moment at which the ledger is cut off."""
SHOWN = 3
"""Findings in the check's one line; all of them are in its table."""
ORDER = "_ordered_at"
"""A time of each row where nothing says when it is decided."""
NEVER_EXCUSED = ("known_later", "look_ahead")
"""Rules that no examination overrules: they say when a value was known, not how it behaves."""
TIME = "time"
"""What a fall out of time is called that no single column makes, where it was examined."""


def build_assets(domain: Domain, source: Source, settings: Settings) -> list[Any]:
    """The check of the features that the domain's model reads; none where nothing says what its outcome is."""
    if domain.watch is None:
        return []

    @dg.asset_check(
        asset=f"model_{domain.name}",
        name=f"model_{domain.name}_leakage",
        blocking=True,
        description="No feature tells what was not known when the decision fell: none known later, none that echoes the target, none that "
        "only works within its own time, none that names rows, and none that changes when later events are taken away.",
    )
    def check(warehouse: Warehouse, tracking: Tracking) -> dg.AssetCheckResult:
        found = findings(domain, source, settings, warehouse)
        _tag_challenger(tracking, domain, [one.column or TIME for one in found])
        told = [
            {"column": one.column or TIME, "rule": one.rule, "evidence": one.evidence, "why": one.shows, "what to do": one.advice}
            for one in found
        ]
        return dg.AssetCheckResult(
            passed=not found,
            description="; ".join(map(str, found[:SHOWN])) or "nothing leaks",
            metadata={
                "features": len(domain.features(source)),
                "findings": dg.MetadataValue.md(markdown_table(told) if told else "none"),
                "examined": ", ".join(sorted(examined_columns(domain, settings))) or "none",
            },
        )

    return [check]


def _tag_challenger(tracking: Tracking, domain: Domain, columns: Sequence[str]) -> None:
    """Tag the challenger, so that it is refused too where its stages are materialised one by one."""
    client = tracking.client()
    challenger = model_registry.find(client, domain.name, model_registry.CHALLENGER)
    if challenger is not None:
        gate_verdict.record_leaks(client, challenger.name, challenger.version, columns)


def findings(domain: Domain, source: Source, settings: Settings, warehouse: Warehouse) -> "list[LeakageFinding]":
    """Lint a sample of the rows that may teach, and replay a sample of customers where the source has movements of theirs."""
    from finrisk_assets.modelling.evaluation import leakage
    from finrisk_assets.modelling.training.parallel import each
    from finrisk_assets.modelling.training.provenance import fixed_threads

    if domain.watch is None:
        return []
    watch, moment, names = domain.watch, domain.moment, [feature.name for feature in domain.features(source)]
    examined = examined_columns(domain, settings)
    frame, most = sample(domain, source, warehouse, settings), sample_size(names)

    def lint() -> "list[LeakageFinding]":
        return leakage.lint(
            frame,
            names,
            watch.label,
            moment=moment,
            order=ORDER,
            group="customer_id",
            columns=declared(source, domain),
            examined=examined,
            most=most,
            seed=settings.seed,
        )

    def replay() -> "list[LeakageFinding]":
        if "transactions" not in source.tables or not frame[moment].notna().any():
            return []
        return leakage.looks_ahead(
            lambda tables: domain.build(tables, source),
            load_feature_inputs(domain, source, warehouse),
            names,
            key=domain.keys[0].name,
            moment=moment,
            shares=(REPLAYED_AT,),
            before=domain.known_before,
            contracts={name: raw.table for name, raw in source.tables.items()},
            sample=REPLAYED_CUSTOMERS,
            seed=settings.seed,
        )

    with fixed_threads():
        linted, replayed = each(lambda look: look(), (lint, replay), settings.threads)
    found = [*linted, *replayed]
    return [one for one in found if one.rule in NEVER_EXCUSED or (one.column or TIME) not in examined]


def examined_columns(domain: Domain, settings: Settings) -> frozenset[str]:
    """The columns of a domain that a person has looked into, of ``FINRISK_EXAMINED`` (``cashflow.net_flow_30d, loan_default.time``)."""
    named = (entry.strip().partition(".") for entry in settings.examined.split(","))
    return frozenset(column for group, _, column in named if group in (domain.name, domain.group))


def declared(source: Source, domain: Domain) -> list[Column]:
    """What a source declares of its own columns that are features as they stand: when they become known."""
    own = {feature.name for feature in source.features.get(domain.group, ())}
    return [column for raw in source.tables.values() for column in raw.table.columns if column.name in own]


def load_feature_inputs(domain: Domain, source: Source, warehouse: Warehouse) -> "dict[str, LazyTable]":
    """What a domain's features are computed from, as they are stored."""
    tables = {name: warehouse.table(f"validated_{name}") for name in domain.tables if name in source.tables}
    return tables | {name: warehouse.table(name) for name in domain.upstream if warehouse.has(name)}


def sample_size(names: Sequence[str]) -> int:
    """How many rows the models of the linter are fitted on."""
    from finrisk_assets.modelling.evaluation import leakage

    return min(leakage.LARGEST_SAMPLE, CELLS // len(names))


def sample(domain: Domain, source: Source, warehouse: Warehouse, settings: Settings) -> "pd.DataFrame":
    """The rows with a known outcome of as many customers as it takes, in the order of the key; `ORDER` is a time that all of them have.

    Where no outcome is known, all rows of these customers, and none had it: what needs an outcome says nothing of them.
    """
    watch, key = domain.watch, domain.keys[0].name
    assert watch is not None
    features = warehouse.table(f"features_{domain.group}")
    customers = drawn(features, watch.label, sample_size([feature.name for feature in domain.features(source)]), settings.seed)
    held = _with_order(features.filter(features.customer_id.isin(customers)), domain, source, warehouse)
    frame = held.order_by(key).to_pyarrow().to_pandas()
    known = watch.matured(frame, settings)
    return known if len(known) else frame.assign(**{watch.label: False})


def _with_order(rows: "LazyTable", domain: Domain, source: Source, warehouse: Warehouse) -> "LazyTable":
    """The rows with the moment of what they are about as `ORDER`: that of the account, loan or offer they name, else of the person."""
    import ibis

    for name in sorted(domain.tables, key=lambda name: name == "customers"):
        table = source.tables[name].table if name in source.tables else None
        if table is not None and table.event_time is not None and table.key in rows.columns:
            about = warehouse.table(f"validated_{name}").select(_about=table.key, **{ORDER: table.event_time})
            return rows.left_join(about, rows[table.key] == about._about).drop("_about")
    return rows.mutate(**{ORDER: ibis.null("timestamp")})


def drawn(features: "LazyTable", label: str, most: int, seed: int) -> list[str]:
    """Customers, drawn until there are enough rows, half of them of either outcome, or as many as may be read."""
    import numpy as np

    came = features[label].cast("int64")
    counted = features.group_by("customer_id").agg(rows=came.count(), yes=came.sum().fill_null(0), no=(1 - came).sum().fill_null(0))
    people = counted.order_by("customer_id").to_pyarrow().to_pydict()
    order = np.random.default_rng(seed).permutation(len(people["customer_id"]))
    sums = {name: np.cumsum(np.asarray(people[name], float)[order]) for name in ("rows", "yes", "no")}
    least = {"rows": most, "yes": most // 2, "no": most // 2}
    enough = max(int(np.searchsorted(total, min(least[name], total[-1]))) for name, total in sums.items())
    return [people["customer_id"][place] for place in order[: min(enough, int(np.searchsorted(sums["rows"], MAX_ROWS_READ))) + 1]]
