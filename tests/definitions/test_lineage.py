"""Tests of the source columns of every feature, read from its expression over empty tables."""

from pathlib import Path

import ibis
import pytest

from finrisk_assets.domains import registry
from finrisk_assets.domains.base import Domain
from finrisk_assets.graph import lineage
from finrisk_assets.ledger import sources
from finrisk_assets.ledger.sources import BUILT_IN
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.settings import Settings
from schemas.ledger import Table


def empty_table(table: Table, name: str) -> ibis.Table:
    kinds = {"timestamp": "timestamp(6)"}
    return ibis.table({column.name: kinds.get(column.dtype, column.dtype) for column in table.columns}, name=name)


def trace_features(domain: Domain, source: Source, settings: Settings) -> tuple[dict[str, set[str]], set[str]]:
    """Return the source columns of each column of the feature table, and all existing columns."""
    tables = {name: empty_table(raw.table, f"validated_{name}") for name, raw in source.tables.items() if name in domain.tables}
    others = {one.name: one for one in registry.domains_of(source)}
    for scores in domain.upstream:
        if scores.removeprefix("scores_") in others:
            tables[scores] = empty_table(others[scores.removeprefix("scores_")].score_contract(), scores)
    sources_by_column = lineage.trace_columns(domain.build_features(tables, source))
    known = {f"{table.get_name()}.{column}" for table in tables.values() for column in table.columns}
    return {column: {f"{name}.{of}" for name, of in came} for column, came in sources_by_column.items()}, known


@pytest.mark.parametrize("source", BUILT_IN)
def test_every_feature_comes_from_columns_that_its_domain_reads(source: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, source=source)
    loaded = sources.load(settings)
    for domain in registry.domains_of(loaded):
        if domain.features_of:
            continue
        sources_by_column, known = trace_features(domain, loaded, settings)
        assert set(sources_by_column) == set(domain.feature_contract(loaded).names)
        for feature in domain.select_features(loaded):
            assert sources_by_column[feature.name], f"{domain.name}: {feature.name} comes from nowhere"
            assert sources_by_column[feature.name] <= known, f"{domain.name}: {feature.name}"


def sources_of(domain: str, feature: str, tmp_path: Path) -> set[str]:
    settings = Settings(home=tmp_path)
    loaded = sources.load(settings)
    one = next(one for one in registry.domains_of(loaded) if one.name == domain)
    return {column.removeprefix("validated_") for column in trace_features(one, loaded, settings)[0][feature]}


MOVED = {"transactions.customer_id", "transactions.account_id", "transactions.occurred_at"}


@pytest.mark.parametrize(
    ("domain", "feature", "expected"),
    [
        ("spending_risk", "Total_Income", {*MOVED, "transactions.amount", "transactions.direction", "transactions.category"}),
        ("spending_risk", "month_sin", MOVED),
        ("spending_risk", "n_negative_balance_1m", {*MOVED, "transactions.balance_amount"}),
        ("loan_default", "stated_income_amount", {"loans.stated_income_amount"}),
        ("loan_offers", "annual_rate_pct", {"offers.annual_rate_pct"}),
        ("transaction_anomaly", "log_amount", {"transactions.amount"}),
        ("transaction_anomaly", "merchant_n_1h", {"transactions.merchant", "transactions.occurred_at"}),
        (
            "transaction_anomaly",
            "merchant_risk_1d",
            {"transactions.merchant", "transactions.occurred_at", "transactions.is_fraud", "transactions.label_known_at"},
        ),
    ],
)
def test_what_a_person_reads_in_the_definition_is_what_is_traced(domain: str, feature: str, expected: set[str], tmp_path: Path) -> None:
    assert sources_of(domain, feature, tmp_path) == expected


def test_the_label_of_a_decision_reaches_no_feature_of_it_but_as_known_history(tmp_path: Path) -> None:
    """Of the columns that tell an outcome, only frauds that were known by then are looked at."""
    settings = Settings(home=tmp_path)
    loaded = sources.load(settings)
    reached = {}
    for domain in registry.domains_of(loaded):
        if domain.features_of:
            continue
        sources_by_column, _ = trace_features(domain, loaded, settings)
        reached[domain.name] = {
            feature.name
            for feature in domain.select_features(loaded)
            if any(column.endswith((".is_default", ".is_fraud")) for column in sources_by_column[feature.name])
        }
    assert reached["transaction_anomaly"], "the risk of a merchant is computed from its known frauds"
    names = set().union(*reached.values())
    assert {name for name in names if not any(outcome in name for outcome in ("risk", "fraud", "default"))} == set()
