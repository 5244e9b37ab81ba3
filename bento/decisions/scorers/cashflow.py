"""What `POST /v1/cashflow` answers: whether an account will hold more a month from now, and by how much."""

import math

import numpy as np

from bento.decisions.answers import Asked, explained, one_of, score, sent_row, stored, stored_row
from bento.store.session import Store
from finrisk_assets.domains.cashflow.decide import SURPLUS, decide
from finrisk_assets.scoring.bundle import Bundle, Scores
from finrisk_assets.scoring.spec import Rows
from schemas.api import AmountInterval, CashflowAnswer, CashflowRequest


class CashflowScorer:
    """Answers for one bundle of the domain `cashflow`, with a store that knows the ledger's accounts."""

    def __init__(self, bundle: Bundle, store: Store) -> None:
        self._bundle = bundle
        self._store = store

    def warm_up(self) -> None:
        """Score once, so that the first client does not wait for what is only done once."""
        row = np.ones(len(self._bundle.features), np.float32)
        self._bundle.score(row[None, :])
        self._amount(row)

    def answer(self, request: CashflowRequest) -> CashflowAnswer:
        """Look a month ahead.

        Raises
        ------
        bento.problems.Problem
            For a feature that the model lacks, one that is missing, a value that it cannot use, or an account of which nothing is stored.
        """
        asked = self.asked(request)
        return self.answered(asked, score(self._bundle, asked.row))

    def asked(self, request: CashflowRequest) -> Asked:
        """What the model is to be asked of an account; the refusals of `answer` are made here."""
        if one_of(request, "customer_id", "account_id", "features") == "features":
            return Asked(request, sent_row(self._bundle, request.features or {}))
        standing = stored(self._store, "cashflow", customer_id=request.customer_id, account_id=request.account_id)
        return Asked(request, stored_row(self._bundle, standing.features), standing)

    def answered(self, asked: Asked, scores: Scores) -> CashflowAnswer:
        """The answer to an account, given the scores of its row."""
        row, standing = asked.row, asked.standing
        probability = float(scores.probability[0])
        direction = decide(probability, self._bundle.thresholds)
        expected, interval = self._amount(row)
        return CashflowAnswer(
            customer_id=standing and standing.customer_id,
            account_id=standing and standing.account_id,
            as_of=standing and standing.as_of,
            direction=direction,
            surplus_probability=probability,
            expected_change_amount=expected,
            interval=interval,
            **explained(self._bundle, row, scores, high=direction == SURPLUS),
        )

    def _amount(self, row: Rows) -> tuple[float | None, AmountInterval | None]:
        """The expected change and its interval; neither where the model has learned none, or the row does not tell."""
        level = self._bundle.amount_level
        if level is None:
            return None, None
        found = self._bundle.amount(row[None, :])
        expected, low, high = float(found.expected[0]), float(found.low[0]), float(found.high[0])
        return (None, None) if math.isnan(expected) else (expected, AmountInterval(low=low, high=high, coverage=level))
