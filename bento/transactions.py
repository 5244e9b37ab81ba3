"""What `POST /v1/transactions` answers: how risky a movement of money is, given what came before it."""

import sqlite3
from uuid import uuid4

import numpy as np

from bento.answers import explanation, model_version, reasons_of, score
from bento.errors import Problem, log_failure
from bento.history import TransactionFeatures
from bento.store import Store, Transaction
from finrisk_assets.modelling.bundle import Bundle
from finrisk_assets.modelling.reasons import LIMIT
from finrisk_assets.transaction_anomaly.decide import decide, is_anomaly, is_unseen
from schemas.api import FieldError, Reason, TransactionAnswer, TransactionRequest

_UNSEEN = Reason(
    code="AMOUNT_NEVER_SEEN",
    feature="log_amount",
    features=["log_amount"],
    text="The amount is larger than any that the model has learned from",
)
_TAKEN = FieldError(field="transaction_id", reason="It belongs to a transaction with other content.")


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
        """Score one transaction and commit it with its answer, or give the answer that it got before.

        Raises
        ------
        bento.errors.Problem
            Where the identifier belongs to another transaction, the model misses a value, or the store takes no write.
        """
        transaction = _transaction(request)
        try:
            # The lock spans reading and writing, so that no transaction misses the one that another worker is just answering.
            with self._store.writing():
                known = self._store.find(transaction.transaction_id)
                if known is not None and not _same(known.transaction, transaction):
                    raise Problem(409, "conflict", "Another transaction was sent with this identifier.", [_TAKEN])
                if known is not None and known.answer is not None:
                    return TransactionAnswer.model_validate_json(known.answer)
                answer = self._score(transaction)
                self._store.keep(transaction, answer.model_dump_json())
        except sqlite3.Error as error:
            log_failure(error)
            raise Problem.of(503) from None
        return answer

    def consider(self, request: TransactionRequest) -> TransactionAnswer:
        """What the model says of a transaction, which is neither kept nor looked up; its customer's history is that before its own time."""
        return self._score(_transaction(request))

    def _score(self, transaction: Transaction) -> TransactionAnswer:
        row = self._features.row(transaction, self._store)
        scores = score(self._bundle, row)
        risk = float(scores.probability[0])
        unseen = self._log_amount is not None and is_unseen(float(row[self._log_amount]), self._bundle.thresholds)
        anomaly = is_anomaly(risk, self._bundle.thresholds, unseen=unseen)
        decision = decide(risk, self._bundle.thresholds, unseen=unseen)
        reasons = reasons_of(self._bundle, scores, high=anomaly or decision != "allow")
        return TransactionAnswer(
            transaction_id=transaction.transaction_id,
            score=float(scores.margin[0]),
            risk_score=risk,
            anomaly=anomaly,
            decision=decision,
            explanation=explanation(self._bundle, row, scores),
            reasons=[_UNSEEN, *reasons[: LIMIT - 1]] if unseen else reasons,
            model=model_version(self._bundle),
        )


def _transaction(request: TransactionRequest) -> Transaction:
    return Transaction(
        transaction_id=request.transaction_id or uuid4().hex,
        customer_id=request.user_id,
        occurred_at=request.timestamp,
        amount=request.amount,
        direction=request.direction,
        merchant=request.merchant,
        country=request.country,
    )


def _same(one: Transaction, other: Transaction) -> bool:
    """Whether two transactions say the same, apart from the fraud label, which is learned later."""
    return one._replace(is_fraud=None, label_known_at=None) == other
