"""Tests of the reason catalogue: every feature has a theme and sentences of its values, and no protected column has a reason."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from finrisk_assets.cli import main
from finrisk_assets.domains.loan_default import catalogue as loan_default
from finrisk_assets.domains.loan_offers import catalogue as loan_offers
from finrisk_assets.domains.registry import domains_of
from finrisk_assets.ledger import sources
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.operations import reason_catalogue
from finrisk_assets.scoring.reasons import MAX_REASONS, find_reasons, group_by_factor
from finrisk_assets.settings import Settings
from schemas.features import Feature, themes

DOCS = Path(__file__).parents[3] / "docs"
BUILT_IN = {name: Settings(source=name) for name in sources.BUILT_IN}
MAPPED = {file.name: Settings(source="mapped", mapping=file) for file in (DOCS / "mapped-example.yaml", DOCS / "bank-marketing.yaml")}


def each(settings: dict[str, Settings]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("source", [sources.load(one) for one in settings.values()], ids=list(settings))


@each(BUILT_IN)
def test_every_feature_has_a_theme_and_sentences_and_a_source_has_few_themes(source: Source) -> None:
    for domain in domains_of(source):
        features = domain.select_features(source)
        names = {one.name for one in features}
        assert [one.name for one in features if not one.theme or not (sentences_of(one) or one.spoken_by in names)] == []
        assert [one.name for one in features if len(sentences_of(one)) > len(set(sentences_of(one)))] == []
        assert len(group_by_factor(features)) <= 25


def sentences_of(feature: Feature) -> list[str]:
    return [text for text in (feature.low, feature.high, feature.zero, feature.one, feature.fact) if text]


@each(BUILT_IN | MAPPED)
def test_a_sentence_says_what_its_value_is(source: Source) -> None:
    """A sentence is about the value, not about the risk: one that is turned round would be false of every value it is said of."""
    small = re.compile(r"\b(little|few|small|low|short|seldom|fallen)\b")
    large = re.compile(r"\b(much|many|large|high|long|often|grown|widely|irregular)\b")
    vague = re.compile("speaks? (for|against)|for the (worse|better)|unusual|ordinary")
    for domain in domains_of(source):
        for one in domain.select_features(source):
            low, high = (
                re.sub("no large|no single|did not fall low|not [a-z ]*long", "", text) for text in (one.low.lower(), one.high.lower())
            )
            assert not large.search(low), one
            assert not small.search(high), one
            assert not any(vague.search(text) for text in sentences_of(one)), one


@each(BUILT_IN)
def test_a_sentence_belongs_to_one_theme(source: Source) -> None:
    """Two reasons of one decision never say the same."""
    for domain in domains_of(source):
        themes_by_sentence: dict[str, set[str]] = {}
        for one in domain.select_features(source):
            for words in sentences_of(one):
                themes_by_sentence.setdefault(words, set()).add(one.theme)
        assert {words: shown_reasons for words, shown_reasons in themes_by_sentence.items() if len(shown_reasons) > 1} == {}


@each(BUILT_IN | MAPPED)
def test_no_reason_is_of_a_protected_column_or_names_anybody(source: Source) -> None:
    columns = [column for raw in source.tables.values() for column in raw.table.columns]
    barred = {column.name for column in columns if column.personal in ("protected", "identifier")}
    assert barred & {"customer_id", "gender", "transaction_id"}
    for domain in domains_of(source):
        assert barred.isdisjoint(one.name for one in domain.select_features(source))


@pytest.mark.parametrize("module", [loan_default, loan_offers])
def test_no_feature_is_computed_from_a_protected_column(module) -> None:  # type: ignore[no-untyped-def]
    from schemas.ledger import TABLES

    protected = {f"{name}.{column.name}" for name, table in TABLES.items() for column in table.columns if column.personal == "protected"}
    assert "customers.birth_year" in protected
    assert protected.isdisjoint(need for defined in module.CATALOGUE for need in defined.needs)


@each(BUILT_IN)
def test_whatever_moved_a_score_at_most_four_reasons_are_given(source: Source) -> None:
    draw = np.random.default_rng(0)
    for domain in domains_of(source):
        features = domain.select_features(source)
        for moved in draw.normal(size=(20, len(features))):
            shown_reasons = find_reasons(moved, draw.normal(size=len(features)), features, smallest_share=0.0)
            assert len(shown_reasons) <= MAX_REASONS
            named = [name for one in shown_reasons for name in one.features]
            assert len(named) == len(set(named))
            assert len({one.sentence for one in shown_reasons}) == len({one.code for one in shown_reasons}) == len(shown_reasons)


def test_no_theme_names_a_feature_that_is_not_there() -> None:
    from finrisk_assets.domains.cashflow import catalogue as cashflow
    from finrisk_assets.domains.spending_risk import catalogue as spending_risk
    from finrisk_assets.domains.transaction_anomaly import catalogue as transaction_anomaly

    for module in (loan_default, loan_offers, cashflow, spending_risk):
        assert set(module.THEMES) == {defined.feature.name for defined in module.CATALOGUE}
    used = {declared.feature.name for declared in transaction_anomaly.FEATURES}
    assert set(transaction_anomaly.THEMES) - used == {"amount"}  # the book's, which has no other theme


def test_a_feature_under_two_themes_is_refused() -> None:
    with pytest.raises(ValueError, match="income: under 'money' and under 'pay'"):
        themes({"pay": ("income",), "money": ("balance", "income")})


def test_a_feature_is_counted_with_its_theme_else_alone() -> None:
    plain = Feature("hour_sin", "", "")
    assert [one.factor for one in (plain, replace(plain, theme="hour"))] == ["hour_sin", "hour"]


def test_the_page_is_the_one_that_the_code_writes() -> None:
    written = (DOCS / "reason-catalogue.md").read_text(encoding="utf-8")
    assert reason_catalogue.page() == written, "write it anew: finrisk reasons --page > docs/reason-catalogue.md"


def test_the_command_prints_the_features_of_the_present_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINRISK_SOURCE", "taiwan")
    monkeypatch.setenv("COLUMNS", "200")
    printed = CliRunner().invoke(main.cli, ["reasons", "loan_default"])
    assert printed.exit_code == 0, printed.output
    assert "payment record" in printed.output and "worst_late_6m" in printed.output
    refused = CliRunner().invoke(main.cli, ["reasons", "cashflow"])
    assert refused.exit_code == 2 and "taiwan has no domain cashflow; it has loan_default" in refused.output
