"""Tests of the leakage linter on tables with a known leak and on clean tables."""

from datetime import datetime, timedelta

import ibis
import numpy as np
import pandas as pd
import pytest

from benchmarks.planted_leaks import LEAKS
from finrisk_assets.modelling.evaluation import leakage, look_ahead
from schemas.ledger import TABLES, Column

N = 3_000
HONEST = tuple(f"behaviour_{number}" for number in range(8))


@pytest.fixture
def table() -> pd.DataFrame:
    """Return eight noisy views of one hidden risk, with an hourly decision time, a thousand people, some missing values, and amounts."""
    draw = np.random.default_rng(7)
    risk = draw.normal(size=N)
    frame = pd.DataFrame({name: risk * weight + draw.normal(size=N) for name, weight in zip(HONEST, np.linspace(0.3, 1.2, 8), strict=True)})
    frame = frame.mask(draw.random(frame.shape) < 0.1)
    frame["behaviour_0"] = np.exp(7 + frame.behaviour_0).round()
    frame["is_default"] = risk + draw.normal(size=N) > 1.3
    frame["applied_at"] = np.datetime64("2024-01-01") + np.arange(N) * np.timedelta64(3600, "s")
    frame["customer_id"] = draw.integers(0, 1_000, N).astype(str)
    return frame


def lint(table: pd.DataFrame, *more: str, **options) -> list[tuple[str, str]]:
    findings = leakage.lint(table, [*HONEST, *more], "is_default", decision_time="applied_at", group="customer_id", **options)
    assert all(np.isfinite(finding.evidence) and finding.advice for finding in findings)
    return [(finding.column, finding.rule) for finding in findings]


def test_a_clean_table_has_no_findings(table):
    assert lint(table) == []


def test_a_noisy_copy_of_the_label_is_an_echo(table):
    table["copy"] = table.is_default ^ (np.random.default_rng(1).random(N) < 0.05)
    assert lint(table, "copy") == [("copy", "target_echo")]


def test_two_echoes_do_not_excuse_each_other(table):
    draw = np.random.default_rng(2)
    for name in ("copy", "second"):
        table[name] = table.is_default ^ (draw.random(N) < 0.06)
    assert lint(table, "copy", "second") == [("copy", "target_echo"), ("second", "target_echo")]


def test_the_label_itself_is_an_echo_even_without_other_features(table):
    table["outcome"] = -3.0 * table.is_default
    findings = leakage.lint(table, ["outcome"], "is_default")
    assert [(one.column, one.rule) for one in findings] == [("outcome", "target_echo")]


def test_having_a_value_that_only_defaults_have_is_an_echo(table):
    draw = np.random.default_rng(3)
    table["collected_amount"] = np.where(table.is_default & (draw.random(N) < 0.4), draw.lognormal(5, 1, N), np.nan)
    assert ("collected_amount", "target_echo") in lint(table, "collected_amount")


def test_a_value_missing_at_random_is_none(table):
    table["sometimes"] = np.where(np.random.default_rng(3).random(N) < 0.4, 1.0, np.nan)
    assert lint(table, "sometimes") == []


def test_a_column_that_has_values_only_since_lately_is_no_finding(table):
    """As one that looks a year back, in a ledger of fourteen months."""
    table["a_year_ago"] = np.where(np.arange(N) < N * 0.7, np.nan, np.random.default_rng(4).normal(size=N))
    assert lint(table, "a_year_ago") == []
    assert lint(table.assign(a_year_ago=np.nan), "a_year_ago") == []


def test_without_moments_rows_are_halved_by_another_time(table):
    """Of such a table nothing is said of time; the halves differ in what teaches them."""
    options = {"label": "is_default", "order": "applied_at", "group": "customer_id"}
    table["copy"] = table.is_default ^ (np.random.default_rng(1).random(N) < 0.05)
    findings = leakage.lint(table, [*HONEST, "copy"], **options)
    assert [(one.column, one.rule) for one in findings] == [("copy", "target_echo")]
    assert leakage.lint(table, HONEST, **options) == []
    with pytest.raises(ValueError, match="has no never_heard_of"):
        leakage.lint(table, HONEST, "is_default", order="never_heard_of")


def test_what_a_person_examined_is_no_echo(table):
    table["bureau_score"] = table.is_default ^ (np.random.default_rng(1).random(N) < 0.05)
    assert lint(table, "bureau_score", examined=["bureau_score"]) == []


def test_a_column_known_after_the_decision_is_flagged(table):
    table["known_at"] = table.applied_at + np.timedelta64(1, "D")
    late = Column("behaviour_3", "float64", "Of the next day.", known="known_at")
    in_time = Column("behaviour_4", "float64", "Of the day.", known="applied_at")
    unsaid = Column("behaviour_5", "float64", "Of a day that the table does not hold.", known="another_moment")
    assert lint(table, columns=[late, in_time, unsaid]) == [("behaviour_3", "known_later"), ("behaviour_5", "known_later")]
    assert lint(table.assign(known_at=table.applied_at), columns=[late]) == []


def test_a_batch_number_that_names_its_time_is_blamed_for_the_fall(table):
    """Outcomes come in batches, so that other rows of the batch reveal the outcome; at decision time no such row was known."""
    draw = np.random.default_rng(5)
    batch = np.arange(N) // 60
    table["batch_code"] = draw.permutation(batch.max() + 1)[batch].astype(float)
    table["is_default"] = draw.random(N) < draw.choice([0.05, 0.7], batch.max() + 1)[batch]
    assert lint(table, "batch_code") == [("batch_code", "time_collapse")]


def test_a_table_without_moments_is_not_judged_by_time(table):
    table["applied_at"] = pd.NaT
    assert lint(table) == []


def test_numbers_that_were_handed_out_are_identifiers(table):
    draw = np.random.default_rng(6)
    table["loan_number"] = draw.permutation(4 * N)[:N].astype(float)
    table["person_number"] = table.customer_id.astype(int) * 3.0 + 17
    table["hashed"] = draw.integers(0, 2**52, N).astype(float)
    table["running"] = np.arange(N) + draw.random(N)
    names = ["loan_number", "person_number", "hashed", "running"]
    assert lint(table, *names) == [(name, "identifier") for name in names]


def test_amounts_are_no_identifiers(table):
    draw = np.random.default_rng(6)
    table["whole_amount"] = draw.lognormal(9, 1, N).round()
    table["large_amount"] = draw.lognormal(24, 1, N).round()
    table["exact_amount"] = draw.uniform(0, 1e6, N)
    table["months"] = draw.integers(1, 600, N).astype(float)
    assert lint(table, "whole_amount", "large_amount", "exact_amount", "months") == []


def test_what_is_wrong_with_the_input_is_said(table):
    with pytest.raises(ValueError, match="has no nothing"):
        lint(table, "nothing")
    with pytest.raises(ValueError, match="is_default must be 0 or 1"):
        lint(table.assign(is_default=np.nan))


# --- looking ahead -------------------------------------------------------------------------------------------------


def ledger() -> dict[str, ibis.Table]:
    """Return ten people with a transaction every 8 hours for 100 days, whose fraud becomes known after 7 days."""
    start, rows = datetime(2024, 1, 1), 300
    moments = [start + timedelta(hours=8 * number) for number in range(rows)]
    frame = pd.concat(
        pd.DataFrame(
            {
                "customer_id": str(person),
                "occurred_at": moments,
                "amount": [1.0 + (number * person) % 7 for number in range(rows)],
                "is_fraud": [number % 5 == 0 for number in range(rows)],
                "label_known_at": [moment + timedelta(days=7) for moment in moments],
            }
        )
        for person in range(10)
    )
    people = pd.DataFrame({"customer_id": [str(person) for person in range(10)]})
    decisions = people.merge(pd.DataFrame({"applied_at": [datetime(2024, 2, 1), datetime(2024, 3, 1)]}), how="cross")
    decisions["loan_id"] = decisions.customer_id + decisions.applied_at.astype(str)
    return {"transactions": ibis.memtable(frame), "loans": ibis.memtable(decisions)}


def features(days_after: int):
    """Return a build function: expenses from 30 days before to `days_after` days after the decision, and the frauds known then."""

    def build(tables):
        loans, moves = tables["loans"], tables["transactions"].rename(who="customer_id")
        near = loans.join(moves, [loans.customer_id == moves.who, moves.occurred_at >= loans.applied_at - ibis.interval(days=30)])
        near = near.mutate(
            spent=near.occurred_at < near.applied_at + ibis.interval(days=days_after),
            told=near.is_fraud.fill_null(False) & (near.occurred_at < near.applied_at),
        )
        return near.group_by("loan_id", "applied_at").agg(
            spent_amount=near.amount.sum(where=near.spent),
            n_frauds=near.told.sum().cast("float64"),
            n_known_frauds=(near.told & (near.label_known_at < near.applied_at)).sum().cast("float64"),
        )

    return build


def test_spending_after_the_decision_looks_ahead():
    names = ["spent_amount", "n_known_frauds"]
    assert look_ahead.find_look_ahead(features(0), ledger(), names, key="loan_id", decision_time="applied_at") == []
    findings = look_ahead.find_look_ahead(features(10), ledger(), names, key="loan_id", decision_time="applied_at")
    # Of the decisions at the cut and those a month before it, whose ten days had passed.
    assert [(one.column, one.rule, one.evidence) for one in findings] == [("spent_amount", "look_ahead", 0.5)]


def test_an_outcome_used_before_it_was_known_looks_ahead():
    findings = look_ahead.find_look_ahead(features(0), ledger(), ["n_frauds"], key="loan_id", decision_time="applied_at")
    assert [one.column for one in findings] == ["n_frauds"]


def test_a_cut_without_decisions_is_refused():
    with pytest.raises(ValueError, match="Choose other cuts"):
        look_ahead.find_look_ahead(
            features(0), ledger(), ["n_frauds"], key="loan_id", decision_time="applied_at", cut_times=[datetime(2020, 1, 1)]
        )


def test_a_table_as_known_has_neither_later_events_nor_later_labels():
    moment = datetime(2024, 2, 1)
    moves = ledger()["transactions"]
    before = look_ahead.restrict_to_known(moves, TABLES["transactions"], moment, is_strict=True).to_pandas()
    through = look_ahead.restrict_to_known(moves, TABLES["transactions"], moment).to_pandas()
    assert before.occurred_at.max() < moment <= through.occurred_at.max()
    assert before.is_fraud[before.label_known_at >= moment].isna().all()
    assert before.is_fraud[before.label_known_at < moment].notna().all()


# --- columns that tell some of the outcome ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clean_set() -> pd.DataFrame:
    """Return 4,000 loans with ten overlapping features of one risk, of which the best model of all has an AUC of about .8."""
    draw = np.random.default_rng(11)
    risk, n = draw.normal(size=4_000), 4_000
    frame = pd.DataFrame({f"behaviour_{number}": risk + draw.normal(size=n) * (1 + number / 3) for number in range(10)})
    frame["is_default"] = risk + draw.normal(size=n) * 0.9 > 1.2
    frame["customer_id"] = np.arange(n).astype(str)
    return frame.assign(risk=risk)


def lint_clean_set(frame: pd.DataFrame, *more: str, **options) -> list[leakage.LeakageFinding]:
    names = [f"behaviour_{number}" for number in range(10)]
    return leakage.lint(frame, [*names, *more], "is_default", group="customer_id", **options)


def test_a_clean_set_has_no_findings(clean_set):
    assert lint_clean_set(clean_set) == []


@pytest.mark.parametrize("name", LEAKS)
def test_a_column_that_tells_some_of_the_outcome_is_found(name, clean_set):
    labels, rank = clean_set.is_default.to_numpy(), clean_set.risk.rank(pct=True).to_numpy()
    planted = clean_set.assign(planted=LEAKS[name](labels, rank, np.random.default_rng(1)))
    assert [finding.column for finding in lint_clean_set(planted, "planted")] == ["planted"]
    assert lint_clean_set(planted, "planted", examined=["planted"]) == []


def test_five_leaks_do_not_excuse_each_other(clean_set):
    labels, rank, draw = clean_set.is_default.to_numpy(), clean_set.risk.rank(pct=True).to_numpy(), np.random.default_rng(1)
    planted = clean_set.assign(**{name: plant(labels, rank, draw) for name, plant in LEAKS.items()})
    found = {finding.column for finding in lint_clean_set(planted, *LEAKS)}
    assert found <= set(LEAKS)
    assert len(found) >= 4


def test_only_what_is_near_certain_blocks(clean_set):
    labels, rank, draw = clean_set.is_default.to_numpy(), clean_set.risk.rank(pct=True).to_numpy(), np.random.default_rng(1)
    severities = {}
    for name, plant in LEAKS.items():
        (finding,) = lint_clean_set(clean_set.assign(planted=plant(labels, rank, draw)), "planted")
        severities[name] = finding.severity
    assert severities["group mean with the own outcome"] == "block"
    assert severities["arrears at the extract"] == severities["rating revised afterwards"] == "examine"


def test_a_group_mean_of_other_rows_is_no_leak(clean_set):
    """Half of the rows of each group give the mean, the other half are linted."""
    draw = np.random.default_rng(3)
    group, labels = draw.integers(0, 500, 4_000), clean_set.is_default.to_numpy()
    is_linted = draw.random(4_000) < 0.5
    means = np.bincount(group[~is_linted], labels[~is_linted], 500) / np.maximum(np.bincount(group[~is_linted], minlength=500), 1)
    linted = clean_set.assign(group_rate=means[group])[is_linted].reset_index(drop=True)
    assert lint_clean_set(linted, "group_rate") == []


def test_a_feature_of_the_product_is_no_identifier(clean_set):
    """The age of the ledger counts the days, as the row number counts the rows."""
    table = clean_set.assign(history_days=np.arange(4_000.0))
    assert [(one.column, one.rule) for one in lint_clean_set(table, "history_days")] == [("history_days", "identifier")]
    assert lint_clean_set(table, "history_days", computed=["history_days"]) == []
