"""Tests of the leakage check on a finished run: planted leaks are found, clean features are not, and only the model is stopped."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import dagster as dg
import ibis
import pytest
from ibis.expr.types import Table as LazyTable

from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.domains.registry import domains_of
from finrisk_assets.domains.spending_risk.definition import SPENDING_RISK, SpendingRisk
from finrisk_assets.graph.stages import leakage
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.ledger import sources
from finrisk_assets.ledger.sources.source_definition import Source
from schemas.features import Feature
from tests.pipeline.conftest import Run

PLANTED = Feature("planted", "", "A feature that leaks.")


@dataclass(frozen=True)
class Planting:
    """A warehouse whose feature table has one more column."""

    warehouse: Warehouse
    plant: Callable[[LazyTable], LazyTable]

    def table(self, name: str) -> LazyTable:
        stored = self.warehouse.table(name)
        return self.plant(stored) if name.startswith("features_") else stored

    def has(self, name: str) -> bool:
        return self.warehouse.has(name)


def with_planted(domain: Domain, plant: Callable[[LazyTable], LazyTable]) -> Domain:
    """Return the domain with one more feature, computed by `plant` from its table."""

    class Planted(type(domain)):  # type: ignore[misc]
        def select_features(self, source: Source) -> tuple[Feature, ...]:
            return (*domain.select_features(source), PLANTED)

        def build_features(self, tables: Mapping[str, LazyTable], source: Source) -> LazyTable:
            return plant(domain.build_features(tables, source))

    planted: Domain = Planted()
    return planted


def find_leaks(run: Run, domain: Domain, plant: Callable[[LazyTable], LazyTable], **changes: str) -> set[tuple[str, str]]:
    settings = replace(run.settings, **changes)
    planted = Planting(run.warehouse, plant)
    findings = leakage.findings(with_planted(domain, plant), sources.load(settings), settings, planted)  # type: ignore[arg-type]
    return {(one.column, one.rule) for one in findings}


def test_no_model_of_the_run_leaks(run: Run) -> None:
    evaluated = {check.check_name: check for check in run.result.get_asset_check_evaluations()}
    for domain in domains_of(sources.load(run.settings)):
        check = evaluated[f"model_{domain.name}_leakage"]
        assert check.passed, check.description
        assert check.metadata["findings"].value == "none"


def test_it_stops_the_model_and_not_the_scores(run: Run) -> None:
    checks = {check.check_name: check for check in run.result.get_asset_check_evaluations()}
    assert checks["model_loan_default_leakage"].asset_key == dg.AssetKey("model_loan_default")
    assert checks["model_loan_default_leakage"].severity == dg.AssetCheckSeverity.ERROR


def test_an_echo_of_the_target_is_found_and_is_named(run: Run) -> None:
    """One in fifty rows says otherwise than the outcome."""

    def echo(rows: LazyTable) -> LazyTable:
        noise = rows.customer_month.hexdigest("md5").right(2) < "05"
        return rows.mutate(planted=(rows.is_trouble.fill_null(False) ^ noise).cast("float64"))

    assert find_leaks(run, SPENDING_RISK, echo) == {("planted", "target_echo")}


def test_an_echo_that_a_person_examined_is_excused(run: Run) -> None:
    def echo(rows: LazyTable) -> LazyTable:
        return rows.mutate(planted=rows.is_trouble.cast("float64"))

    assert find_leaks(run, SPENDING_RISK, echo, examined="cashflow.planted") == {("planted", "target_echo")}
    assert find_leaks(run, SPENDING_RISK, echo, examined="spending_risk.planted, cashflow.other") == set()


def test_a_window_that_reaches_beyond_the_decision_is_found_whatever_was_examined(run: Run) -> None:
    moves = run.warehouse.table("validated_transactions")

    def beyond(tables: dict[str, LazyTable] | None, rows: LazyTable) -> LazyTable:
        spent = (tables["transactions"] if tables else moves).select(who="customer_id", at="occurred_at", amount="amount")
        near = rows.select("customer_month", "customer_id", "as_of").join(spent, [ibis._.customer_id == spent.who])
        near = near.filter((near.at >= near.as_of) & (near.at < near.as_of + ibis.interval(days=10)))
        sums = near.group_by("customer_month").agg(planted=near.amount.sum()).rename(row="customer_month")
        return rows.left_join(sums, rows.customer_month == sums.row).drop("row")

    class Planted(SpendingRisk):
        def select_features(self, source: Source) -> tuple[Feature, ...]:
            return (*SPENDING_RISK.select_features(source), PLANTED)

        def build_features(self, tables: Mapping[str, LazyTable], source: Source) -> LazyTable:
            return beyond(dict(tables), SPENDING_RISK.build_features(tables, source))

    planted = Planting(run.warehouse, lambda rows: beyond(None, rows))
    settings = replace(run.settings, examined="spending_risk.planted")
    findings = leakage.findings(Planted(), sources.load(settings), settings, planted)  # type: ignore[arg-type]
    assert {(one.column, one.rule) for one in findings} == {("planted", "look_ahead")}


def test_a_source_column_that_numbers_the_rows_is_found(run: Run) -> None:
    """The product's own features are no identifiers, whatever they follow."""

    def numbered(rows: LazyTable) -> LazyTable:
        return rows.mutate(planted=ibis.row_number().over(order_by=rows.loan_id).cast("float64"))

    source = sources.load(run.settings)
    own_column = replace(source, features={**source.features, "loan_default": (PLANTED,)})

    class Numbered(type(LOAN_DEFAULT)):  # type: ignore[misc]
        def select_features(self, _: Source) -> tuple[Feature, ...]:
            return (*LOAN_DEFAULT.select_features(source), PLANTED)

        def build_features(self, tables: Mapping[str, LazyTable], _: Source) -> LazyTable:
            return numbered(LOAN_DEFAULT.build_features(tables, source))

    planted = Planting(run.warehouse, numbered)
    findings = {one.rule: one for one in leakage.findings(Numbered(), own_column, run.settings, planted)}  # type: ignore[arg-type]
    assert findings["identifier"].column == "planted"
    assert "FINRISK_EXAMINED=loan_default.planted" in findings["identifier"].advice
    assert ("planted", "identifier") not in find_leaks(run, LOAN_DEFAULT, numbered)


def test_rows_without_an_outcome_are_counted(run: Run) -> None:
    """A ledger without labels is sampled by its rows, of as many customers as may be read."""
    features = run.warehouse.table("features_transaction_anomaly").mutate(is_fraud=ibis.null("boolean"))
    rows_by_customer = features.group_by("customer_id").agg(rows=ibis._.count()).to_pandas().set_index("customer_id").rows
    drawn = leakage.draw_customers(features, "is_fraud", 1_000, 1)
    assert rows_by_customer[drawn[:-1]].sum() < 1_000 <= rows_by_customer[drawn].sum()


@pytest.mark.parametrize("given", ["", "cashflow.a", "cashflow.a,loan_default.b , cashflow.c"])
def test_examined_features_are_told_by_domain(run: Run, given: str) -> None:
    cashflow = next(domain for domain in domains_of(sources.load(run.settings)) if domain.name == "cashflow")
    findings = {entry.strip().partition(".")[2] for entry in given.split(",") if entry.strip().startswith("cashflow")}
    assert leakage.examined_columns(cashflow, replace(run.settings, examined=given)) == findings
