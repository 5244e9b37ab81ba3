"""What `POST /v1/transactions` answers: how risky a movement of money is, given what came before it."""

from uuid import uuid4

import numpy as np

from bento.decisions.answers import Asked, explanation, model_version, reasons_of, score
from bento.decisions.scorers.transaction_features import TransactionFeatures
from bento.store.session import Store, Transaction
from finrisk_assets.domains.transaction_anomaly.decide import decide, is_anomaly, is_unseen
from finrisk_assets.scoring.bundle import Bundle, Scores
from finrisk_assets.scoring.reasons import LIMIT
from schemas.api import Reason, TransactionAnswer, TransactionRequest

_UNSEEN = Reason(
    code="AMOUNT_NEVER_SEEN",
    feature="log_amount",
    features=["log_amount"],
    text="The amount is larger than any that the model has learned from",
)


class TransactionScorer:
    """Answers for one bundle of the domain `transaction_anomaly`, with the history that a store holds."""

    def __init__(self, bundle: Bundle, store: Store) -> None:
        self._bundle = bundle
        self._store = store
        self._features = TransactionFeatures(bundle)
        self._log_amount = next((at for at, feature in enumerate(bundle.features) if feature.name == "log_amount"), None)

    def warm_up(self) -> None:
        """Score once, so that the first client does not wait for what is only done once."""
        self._bundle.score(np.ones((1, len(self._bundle.features)), np.float32))

    def answer(self, request: TransactionRequest) -> TransactionAnswer:
        """What the model says of a transaction, which is not kept; its customer's history is that before its own time."""
        asked = self.asked(request)
        return self.answered(asked, score(self._bundle, asked.row))

    def asked(self, request: TransactionRequest) -> Asked:
        """What the model is to be asked of a transaction; one that was sent without an identifier gets one."""
        if request.transaction_id is None:
            request = request.model_copy(update={"transaction_id": uuid4().hex})
        return Asked(request, self._features.row(self.transaction(request), self._store))

    @staticmethod
    def transaction(request: TransactionRequest) -> Transaction:
        """A request as history keeps it."""
        return Transaction(
            transaction_id=str(request.transaction_id),
            customer_id=request.user_id,
            occurred_at=request.timestamp,
            amount=request.amount,
            direction=request.direction,
            merchant=request.merchant,
            country=request.country,
        )

    def answered(self, asked: Asked, scores: Scores) -> TransactionAnswer:
        """The answer to a transaction, given the scores of its row."""
        row = asked.row
        risk = float(scores.probability[0])
        unseen = self._log_amount is not None and is_unseen(float(row[self._log_amount]), self._bundle.thresholds)
        anomaly = is_anomaly(risk, self._bundle.thresholds, unseen=unseen)
        decision = decide(risk, self._bundle.thresholds, unseen=unseen)
        reasons = reasons_of(self._bundle, scores, high=anomaly or decision != "allow")
        return TransactionAnswer(
            transaction_id=asked.request.transaction_id,
            score=float(scores.margin[0]),
            risk_score=risk,
            anomaly=anomaly,
            decision=decision,
            explanation=explanation(self._bundle, row, scores),
            reasons=[_UNSEEN, *reasons[: LIMIT - 1]] if unseen else reasons,
            model=model_version(self._bundle),
        )
