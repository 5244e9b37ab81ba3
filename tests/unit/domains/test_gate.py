"""Tests of the gate's demands on a challenger, and of the utility of decisions."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from finrisk_assets.domains import gate
from finrisk_assets.domains.base import Figure, ScoredWindow, TooFewRowsError
from finrisk_assets.domains.classifier import calibration_of_approved, net_benefit
from finrisk_assets.domains.loan_default import decide as loans
from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.domains.transaction_anomaly import decide as anomalies
from finrisk_assets.modelling.evaluation.fairness import FairnessFinding, Interval, group_by_value, group_protected, min_group_size
from finrisk_assets.modelling.evaluation.metrics import clustered_mean
from finrisk_assets.policy.document import Policy
from finrisk_assets.policy.policy_file import default_policy
from finrisk_assets.scoring.loan_decision import complete_terms, decide_loans
from finrisk_assets.settings import Settings
from schemas.features import Feature

GOOD = [
    Figure("auc", 0.8, 0.75, 0.85),
    Figure("default_rate", 0.1, 0.08, 0.12),
    Figure("mean_default", 0.11),
    Figure("calibration_in_the_large", 0.01, -0.01, 0.03),
    Figure("calibration_slope", 1.0, 0.8, 1.2),
    Figure("explanation_gap", 1e-6),
    Figure("auc_beside_champion", 0.01, -0.01, 0.03),
    Figure("gain_beside_champion", 0.001, -0.001, 0.003),
]


def _with(*figures: Figure) -> list[Figure]:
    named = {figure.metric: figure for figure in [*GOOD, *figures]}
    return list(named.values())


def _unfair(measure: str, cutoff: str) -> Figure:
    finding = FairnessFinding("gender", "F", measure, cutoff, "M", 400, 0.3, Interval(0.5, 0.4, 0.6), 0.8, "speaks against")
    return gate.fairness_figure(finding)


def test_a_challenger_that_meets_all_demands_may_decide() -> None:
    assert gate.find_faults(LOAN_DEFAULT, GOOD) == []


@pytest.mark.parametrize(
    ("demand", "figure"),
    [
        ("discrimination", Figure("auc", 0.52, 0.49, 0.55)),
        ("discrimination", Figure("auc_beside_champion", -0.05, -0.08, -0.02)),
        ("calibration", Figure("calibration_in_the_large", 0.2, 0.18, 0.22)),
        ("calibration", Figure("calibration_slope", 0.3, 0.25, 0.35)),
        ("calibration", Figure("calibration_slope", 1.6, 1.45, 1.75)),
        ("profit", Figure("gain_beside_champion", -0.004, -0.007, -0.001)),
        ("fairness", _unfair("adverse_impact_ratio", "refuse_from")),
        ("fairness", _unfair("calibration_gap", "")),
        ("explanation", Figure("explanation_gap", 0.01)),
        ("explanation", Figure("explanation_gap", float("nan"))),
        ("standing", Figure(gate.ROLLED_BACK, 1.0, meaning="this version was rolled back: complaints")),
    ],
)
def test_each_demand_is_named_where_it_is_not_met(demand: str, figure: Figure) -> None:
    faults = gate.find_faults(LOAN_DEFAULT, _with(figure))
    assert [fault.demand for fault in faults] == [demand]
    assert demand in gate.DEMANDS


def _scored(probability: np.ndarray, labels: np.ndarray, rows_of_a_person: int = 1) -> ScoredWindow:
    people = (np.arange(len(labels)) // rows_of_a_person).astype(str)
    return ScoredWindow(pd.DataFrame({"customer_id": people}), np.empty((len(labels), 0)), labels, probability)


def test_too_low_a_probability_among_the_approved_is_a_fault_although_the_mean_is_right() -> None:
    """4.4 % said and 14.9 % seen below the cutoff, made up for by those above it."""
    rng = np.random.default_rng(3)
    probability = np.where(np.arange(2_000) < 1_000, 0.044, 0.35)
    labels = rng.random(2_000) < np.where(np.arange(2_000) < 1_000, 0.149, 0.245)
    window = _scored(probability, labels)
    approved = window.select(probability < 0.08)
    figures = calibration_of_approved(approved, approved, "default")
    assert abs(probability.mean() - labels.mean()) < 0.02
    assert [fault.demand for fault in gate.find_faults(LOAN_DEFAULT, _with(*figures))] == ["calibration"]
    assert "among the approved the mean probability is 0.0440" in gate.find_faults(LOAN_DEFAULT, _with(*figures))[0].reason


def test_a_right_probability_among_the_approved_is_no_fault_and_few_approved_are_not_judged() -> None:
    rng = np.random.default_rng(4)
    probability = rng.uniform(0.01, 0.07, 1_000)
    window = _scored(probability, rng.random(1_000) < probability)
    figures = calibration_of_approved(window, window, "default")
    assert gate.find_faults(LOAN_DEFAULT, _with(*figures)) == []
    few = _scored(probability[:20], window.labels[:20])
    assert calibration_of_approved(few, window, "default") == []
    assert calibration_of_approved(None, None, "default") == []


def test_rows_of_one_person_widen_the_interval_of_the_approved() -> None:
    rng = np.random.default_rng(5)
    probability = np.full(1_000, 0.05)
    outcome_of_person = np.repeat(rng.random(100) < 0.05, 10)
    independent = _scored(probability, rng.permutation(outcome_of_person))
    together = _scored(probability, outcome_of_person, rows_of_a_person=10)
    rates = [calibration_of_approved(window, window, "default")[0] for window in (independent, together)]
    assert rates[1].high - rates[1].low > 2 * (rates[0].high - rates[0].low)


def test_what_chance_explains_is_no_fault() -> None:
    """A little worse, within the interval of the difference, is as good."""
    assert gate.find_faults(LOAN_DEFAULT, _with(Figure("gain_beside_champion", -0.001, -0.003, 0.001))) == []


def test_a_referral_is_judged_like_a_refusal() -> None:
    faults = gate.find_faults(LOAN_DEFAULT, _with(_unfair("adverse_impact_ratio", "refer_from")))
    assert [fault.demand for fault in faults] == ["fairness"]


def _accepting(*entries: dict[str, str]) -> Policy:
    """Return the shipped policy with accepted fairness figures."""
    content = default_policy().model_dump()
    content["fairness"]["accepted"] = entries
    return Policy.model_validate(content)


def test_an_unfair_figure_says_what_can_be_done_and_a_person_may_accept_it() -> None:
    figures = _with(_unfair("adverse_impact_ratio", "refuse_from"))
    (fault,) = gate.find_faults(LOAN_DEFAULT, figures)
    assert "move the cutoff" in fault.reason
    entry = {"domain": "loan_default", "figure": "adverse_impact_ratio/refuse_from/gender=F", "who": "J. Doe", "why": "incomes differ"}
    assert "{domain: loan_default, figure: 'adverse_impact_ratio/refuse_from/gender=F', who: <who>, why: <why>}" in fault.reason
    (accepted,) = gate.accepted_figures(LOAN_DEFAULT, figures, _accepting(entry, entry | {"figure": "calibration_gap/gender=F"}))
    assert accepted.meaning == "accepted by J. Doe: incomes differ"
    assert gate.find_faults(LOAN_DEFAULT, [*figures, accepted]) == []
    assert gate.accepted_figures(LOAN_DEFAULT, figures, _accepting(entry | {"domain": "cashflow"})) == []


@pytest.mark.parametrize("figure", [Figure("n_rarer", 12.0), Figure("n_people", 31.0)])
def test_too_few_rows_are_said_before_anything_else_and_are_no_fault_of_the_model(figure: Figure) -> None:
    faults = gate.find_faults(LOAN_DEFAULT, _with(Figure("auc", 0.52, 0.3, 0.74), figure))
    assert [fault.demand for fault in faults] == ["rows"]
    assert gate.is_unjudged(faults)
    assert "wait for more outcomes" in faults[0].reason


def test_a_window_with_few_outcomes_trains_no_model() -> None:
    draw = np.random.default_rng(1)
    n = 200
    frame = pd.DataFrame({f"x{number}": draw.normal(size=n) for number in range(3)})
    frame = frame.assign(
        loan_id=[f"L{number}" for number in range(n)],
        customer_id=[f"C{number}" for number in range(n)],
        applied_at=pd.NaT,
        outcome_known_at=pd.NaT,
        is_default=np.arange(n) % 10 == 0,
    )
    features = tuple(Feature(f"x{number}", "", "") for number in range(3))
    with pytest.raises(TooFewRowsError, match="validation window has 4 rows of the rarer outcome among 40, and 10 are needed"):
        LOAN_DEFAULT.train(frame, features, None, Settings())  # type: ignore[arg-type]


def test_an_accepted_figure_needs_a_person_and_a_reason() -> None:
    with pytest.raises(ValidationError, match="who"):
        _accepting({"domain": "loan_default", "figure": "calibration_gap/gender=F", "who": "", "why": "incomes differ"})


def test_higher_auc_and_lower_profit_is_refused() -> None:
    """The challenger orders better, but approves loans that lose more than they earn."""
    rng = np.random.default_rng(1)
    bad = rng.random(4_000) < 0.2
    champion = np.clip(0.2 + 0.15 * bad + rng.normal(0, 0.1, 4_000), 0.01, 0.99)
    challenger = np.clip(0.2 + 0.25 * bad + rng.normal(0, 0.1, 4_000), 0.01, 0.99)
    policy, terms = default_policy(), complete_terms(default_policy(), amount=np.full(4_000, 2_500.0))
    reckless = policy.model_copy(update={"lending": policy.lending.model_copy(update={"max_pd": 1.0, "lgd": 0.01})})
    theirs = loans.realised_profit(bad, decide_loans(champion, terms, policy), terms, policy)
    ours = loans.realised_profit(bad, decide_loans(challenger, terms, reckless), terms, policy)
    more = clustered_mean(np.subtract(ours, theirs), np.arange(len(bad)))
    figures = _with(Figure("auc_beside_champion", 0.1, 0.08, 0.12), Figure("gain_beside_champion", more.value, more.low, more.high))
    assert [fault.demand for fault in gate.find_faults(LOAN_DEFAULT, figures)] == ["profit"]


def test_profit_of_a_loan_is_what_happened_to_it() -> None:
    policy = default_policy()
    terms = complete_terms(policy, amount=np.full(4, 2_500.0))
    approved, refused = decide_loans(np.full(4, 0.001), terms, policy), decide_loans(np.full(4, 0.9), terms, policy)
    earned = loans.realised_profit(np.array([False, True, True, False]), approved, terms, policy)
    assert earned[0] == earned[3] > 0 > earned[1] == earned[2]
    assert -policy.lending.lgd * 2_500 < earned[1] < -0.5 * policy.lending.lgd * 2_500, "some instalments were paid before"
    assert loans.realised_profit(np.ones(4, bool), refused, terms, policy).tolist() == [0.0] * 4
    referred = decide_loans(np.full(4, 0.12), terms, policy)
    assert referred.words == ["refer"] * 4
    kept, cost = 1 - policy.loan_default.review.finds_share, policy.loan_default.review.cost_amount
    assert loans.realised_profit(np.ones(4, bool), referred, terms, policy)[0] == pytest.approx(kept * earned[1] - cost)


def test_a_stopped_fraud_saves_its_amount_less_what_looking_costs() -> None:
    rules = default_policy().transaction_anomaly
    saved = anomalies.compute_savings([100, 100, 100, 100, 100], [1, 1, 1, 0, 0], ["allow", "review", "block", "review", "block"], rules)
    assert saved.tolist() == [0, 100 - rules.review_cost_amount, 100, -rules.review_cost_amount, -rules.block_cost_amount]


def test_net_benefit_counts_false_alarms_at_the_odds_of_the_threshold() -> None:
    window = ScoredWindow(pd.DataFrame(), np.empty((4, 0)), np.array([True, False, True, False]), np.array([0.9, 0.9, 0.1, 0.1]))
    assert net_benefit(window, [0.8]).tolist() == pytest.approx([1.0, -4.0, 0.0, 0.0])
    assert net_benefit(window, [0.8, 0.05]).tolist() == pytest.approx([1.0, (-4 - 1 / 19) / 2, 0.5, -1 / 38])


def test_rows_of_one_person_count_once() -> None:
    """Every row ten times, and the interval stays as wide as it was."""
    rng = np.random.default_rng(2)
    values, people = rng.normal(1, 1, 200), np.arange(200)
    once, often = clustered_mean(values, people), clustered_mean(np.repeat(values, 10), np.repeat(people, 10))
    assert often.value == pytest.approx(once.value)
    assert often.high - often.low == pytest.approx(once.high - once.low)


def test_protected_columns_become_groups() -> None:
    customers = pd.DataFrame(
        {"birth_year": [1990, 1950, None], "gender": ["F", None, "M"], "n_dependants": [0, 2, 5], "education": [None, None, None]}
    )
    groups_by_column = group_protected(customers, list(customers.columns), pd.to_datetime(["2024-03-01"] * 3).to_numpy())
    assert groups_by_column["age"].tolist() == ["30 to under 45", "60 or more", "not stated"]
    assert groups_by_column["gender"].tolist() == group_by_value(["F", None, "M"]).tolist()
    assert groups_by_column["n_dependants"].tolist() == ["under 1", "1 to under 3", "3 or more"]
    assert "education" not in groups_by_column


def test_a_model_without_outcomes_has_neither_profit_nor_groups() -> None:
    window = ScoredWindow(pd.DataFrame({"customer_id": ["1"]}), np.empty((1, 0)), np.empty(0, bool), np.array([0.2]))
    assert gate.utility_figures(LOAN_DEFAULT, window, None) == []  # type: ignore[arg-type]


def test_a_small_share_of_the_people_is_no_group_to_judge() -> None:
    assert min_group_size(np.arange(500)) == 30
    assert min_group_size(np.repeat(np.arange(6_000), 3)) == 120
