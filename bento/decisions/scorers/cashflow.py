"""The answer of `POST /v1/cashflow`: whether an account will hold more a month from now, and by how much."""

import math

import numpy as np

from bento.decisions.answers import ScoringInput, exactly_one_of, load_snapshot, row_from_request, row_from_snapshot
from bento.decisions.scorers.base import Scorer
from finrisk_assets.domains.cashflow.decide import DECISION_RULE, SURPLUS
from finrisk_assets.scoring.bundle import Scores
from finrisk_assets.scoring.spec import Rows
from schemas.api import AmountInterval, CashflowAnswer, CashflowRequest


class CashflowScorer(Scorer):
    """The scorer of one bundle of the domain `cashflow`, from the feature snapshots of accounts."""

    def warm_up(self) -> None:
        super().warm_up()
        self._forecast_amount(np.ones(len(self.bundle.features), np.float32), is_doubtful=False)

    def prepare(self, request: CashflowRequest) -> ScoringInput:
        """Return the row of an account's newest features, or of the features that the client sent."""
        if exactly_one_of(request, "customer_id", "account_id", "features") == "features":
            return ScoringInput(request, row_from_request(self.bundle, request.features or {}))
        snapshot = load_snapshot(self._store, "cashflow", customer_id=request.customer_id, account_id=request.account_id)
        return ScoringInput(request, row_from_snapshot(self.bundle, snapshot.features), snapshot)

    def build_answer(self, scoring_input: ScoringInput, scores: Scores) -> CashflowAnswer:
        """Return the direction and the expected change of an account."""
        row, snapshot = scoring_input.row, scoring_input.snapshot
        probability = float(scores.probability[0])
        direction = DECISION_RULE.decide(probability, self.bundle.thresholds)
        expected, interval = self._forecast_amount(row, is_doubtful=scores.doubts[0] is not None)
        return CashflowAnswer(
            customer_id=snapshot and snapshot.customer_id,
            account_id=snapshot and snapshot.account_id,
            as_of=snapshot and snapshot.as_of,
            direction=direction,
            surplus_probability=probability,
            expected_change_amount=expected,
            interval=interval,
            **self.explainer.fields(row, scores, high=direction == SURPLUS),
        )

    def _forecast_amount(self, row: Rows, *, is_doubtful: bool) -> tuple[float | None, AmountInterval | None]:
        """Return the expected change and its interval; None where the model has no amounts, or knows too little."""
        level = self.bundle.amount_level
        if level is None or is_doubtful:
            return None, None
        amount = self.bundle.amount(row[None, :])
        expected, low, high = float(amount.expected[0]), float(amount.low[0]), float(amount.high[0])
        return (None, None) if math.isnan(expected) else (expected, AmountInterval(low=low, high=high, coverage=level))
