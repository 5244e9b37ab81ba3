"""Tests of explanations: encoded contributions are the bytes of a list, and prepared reasons are those of `find_reasons`."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from bento.decisions.explanations import Explainer
from finrisk_assets.scoring.bundle import Scores
from finrisk_assets.scoring.feature_values import FeatureValues
from finrisk_assets.scoring.reasons import find_reasons, group_by_factor
from schemas.api import Contribution, Explanation, LoanAnswer
from schemas.features import Feature

FEATURES = (
    Feature("cash_share_180d", "share, in %", "Share of cash", "Little %s cash", "Much %s cash.", theme="cash"),
    Feature('the "quoted"', "", "A quoted name", "Quoted rose.", "Quoted fell."),
    Feature("n_loans_3y", "loans", "Loans before", "Many loans.", "Few loans.", theme="loans"),
    Feature("n_cash_30d", "movements", "Cash movements", "", "Often cash.", theme="cash"),
)
KNOWN = (FeatureValues(-1.0, 1.0, True, -0.5, 0.0, 0.5, 0.25),) * 4
REFERENCE = (0.1, -0.2, 0.3, 0.0)
DRAW = np.random.default_rng(5)
VALUES = DRAW.normal(size=(50, 4)) * 10.0 ** DRAW.integers(-8, 9, size=(50, 4))


@pytest.fixture
def explainer() -> Explainer:
    factors = group_by_factor(FEATURES)
    policy = SimpleNamespace(version="p")
    bundle = SimpleNamespace(name="m", version="v", features=FEATURES, values=KNOWN, factors=factors, policy=policy)
    bundle.reference, bundle.reference_group = REFERENCE, "others"
    return Explainer(bundle)  # type: ignore[arg-type]


def scores_of(contributions: np.ndarray, base: float = -1.5) -> Scores:
    margin = np.array([base + contributions.sum()])
    return Scores(margin, 1 / (1 + np.exp(-margin)), base, contributions[None, :], [None])


def answer_of(explanation: Explanation, **fields: object) -> LoanAnswer:
    known = {"loan_id": None, "customer_id": None, "as_of": None, "pd": 0.1, "decision": "approve", "grade": None, "score": 1.0}
    known |= {"decision_reason": None, "value_amount": 1.0, "policy_version": "p"}
    return LoanAnswer(**known | fields, explanation=explanation, reasons=[], model={"name": "m", "version": "v"})


def test_encoded_contributions_are_the_bytes_of_a_list(explainer: Explainer) -> None:
    for row, contributions in zip(VALUES.astype(np.float32), VALUES[::-1], strict=True):
        row[DRAW.random(4) < 0.2] = np.nan
        listed: list[Contribution] = [
            {"feature": feature.name, "unit": feature.unit, "value": None if np.isnan(value) else float(value), "contribution": moved}
            for feature, value, moved in zip(FEATURES, row, contributions.tolist(), strict=True)
        ]
        explanation = explainer.explain(row, scores_of(contributions))
        assert list(explanation.contributions) == listed
        assert explanation.contributions[0] == listed[0] and len(explanation.contributions) == 4
        plain, encoded = answer_of(Explanation(base=-1.5, contributions=listed)), answer_of(explanation)
        assert encoded.model_dump_json() == plain.model_dump_json()
        assert encoded.model_dump_json(exclude={"pd"}) == plain.model_dump_json(exclude={"pd"})
        assert encoded.model_dump(mode="json") == plain.model_dump(mode="json")


@pytest.mark.parametrize("loan_id", ['"explanation":{', '\\"explanation":{', '{"explanation":{"base":0}}', "}", '"contributions":[]'])
def test_no_identifier_takes_the_place_of_an_explanation(explainer: Explainer, loan_id: str) -> None:
    explanation = explainer.explain(VALUES[0].astype(np.float32), scores_of(VALUES[1]))
    decoded = json.loads(answer_of(explanation, loan_id=loan_id).model_dump_json())
    assert decoded["loan_id"] == loan_id
    assert decoded["explanation"] == {"base": -1.5, "contributions": list(explanation.contributions)}


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_contribution_that_is_no_number_is_an_error(explainer: Explainer, wrong: float) -> None:
    contributions = VALUES[0].copy()
    contributions[2] = wrong
    with pytest.raises(ValueError, match="m v: a contribution is not a finite number"):
        explainer.explain(VALUES[0].astype(np.float32), scores_of(contributions))
    with pytest.raises(ValueError, match="not a finite number"):
        explainer.explain(VALUES[0].astype(np.float32), scores_of(VALUES[0], base=wrong))


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("high", [False, True])
def test_reasons_are_those_of_training(explainer: Explainer, high: bool, refused: bool) -> None:
    for contributions in VALUES:
        row = contributions[::-1].astype(np.float32)
        reasons = explainer.find_reasons(row, scores_of(contributions), high=high, refused=refused)
        direction, reference = "raises" if high else "lowers", REFERENCE if refused else None
        expected = find_reasons(contributions, row, FEATURES, KNOWN, direction=direction, reference=reference)  # type: ignore[arg-type]
        assert [(one.code, one.feature, tuple(one.features), one.text) for one in reasons] == [
            (one.code, one.feature, one.features, one.sentence) for one in expected
        ]
