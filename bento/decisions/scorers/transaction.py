"""The answer of `POST /v1/transactions`: how risky a transaction is, given the history before it."""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from bento.decisions.answers import ScoringInput
from bento.decisions.scorers.base import Scorer
from bento.decisions.scorers.online_rules import OnlineRules
from bento.decisions.scorers.transaction_features import TransactionFeatures, read_definitions
from bento.store.records import DecisionPayload, Transaction
from bento.store.session import Store
from finrisk_assets.domains.transaction_anomaly.decide import decide, escalate, expect_loss, is_anomaly, is_unseen
from finrisk_assets.scoring.bundle import Bundle, Scores
from finrisk_assets.scoring.reasons import MAX_REASONS
from schemas.api import Reason, TransactionAnswer, TransactionRequest

_UNSEEN = Reason(
    code="AMOUNT_NEVER_SEEN",
    feature="log_amount",
    features=["log_amount"],
    text="The amount is larger than any that the model has learned from",
)


class TransactionScorer(Scorer):
    """The scorer of one bundle of the domain `transaction_anomaly`, from the history that a store holds."""

    def __init__(self, bundle: Bundle, store: Store) -> None:
        super().__init__(bundle, store)
        self._features = TransactionFeatures(read_definitions(bundle))
        self._rules = OnlineRules(bundle.policy.transaction_anomaly.rules, store)
        self._log_amount = next((at for at, feature in enumerate(bundle.features) if feature.name == "log_amount"), None)

    def prepare(self, request: TransactionRequest) -> ScoringInput:
        """Return the row of a transaction, as of its own time; a transaction without an identifier gets a new one."""
        request = _identify(request)
        transaction = _transaction_of(request)
        row, measured = self._features.row(transaction, self._store), self._rules.measure(transaction)
        return ScoringInput(request, row, decision_context=measured, transaction=transaction)

    def prepare_in_turn(self, requests: Sequence[TransactionRequest], add: Callable[[Transaction], None]) -> list[ScoringInput]:
        """Return the rows of transactions, each as if `prepare` were called and the transaction added one by one.

        Parameters
        ----------
        add
            Adds a transaction to history; called once for each of them, in order.
        """
        named = [_identify(request) for request in requests]
        transactions = [_transaction_of(request) for request in named]
        measured: list[Any] = []

        def measure_and_add(place: int) -> None:
            measured.append(self._rules.measure(transactions[place]))
            add(transactions[place])

        rows = self._features.rows(transactions, self._store, measure_and_add)
        return [
            ScoringInput(request, row, decision_context=context, transaction=transaction)
            for request, row, context, transaction in zip(named, rows, measured, transactions, strict=True)
        ]

    def renew(self, payload: DecisionPayload) -> DecisionPayload:
        """Return a stored decision with what this policy's rules read of the history before it: another policy has other rules."""
        transaction = _transaction_of(TransactionRequest.model_validate(payload.request))
        return payload._replace(decision_context=self._rules.measure(transaction))

    def build_answer(self, scoring_input: ScoringInput, scores: Scores) -> TransactionAnswer:
        """Return the risk score and the decision of a transaction."""
        row = scoring_input.row
        risk = float(scores.probability[0])
        log_amount = None if self._log_amount is None else float(row[self._log_amount])
        unseen = is_unseen(log_amount, self.bundle.thresholds)
        anomaly = is_anomaly(risk, self.bundle.thresholds, unseen=unseen)
        by_model = decide(risk, self.bundle.thresholds, log_amount, unseen=unseen or scores.doubts[0] is not None)
        rules = self._rules.find_fired(scoring_input.transaction or _transaction_of(scoring_input.request), scoring_input.decision_context)
        review_from = self.bundle.thresholds.get("review_loss")
        loss = None if review_from is None or log_amount is None else round(float(expect_loss(risk, log_amount)), 2)
        fields = self.explainer.fields(row, scores, high=anomaly or by_model != "allow")
        if unseen:
            fields["reasons"] = [_UNSEEN, *fields["reasons"][: MAX_REASONS - 1]]
        return TransactionAnswer(
            transaction_id=scoring_input.request.transaction_id,
            risk_score=risk,
            anomaly=anomaly,
            expected_loss_amount=loss,
            review_from_amount=review_from,
            decision=by_model if rules is None else escalate(by_model, (rule.action for rule in rules)),
            rules=rules,
            **fields,
        )


def _identify(request: TransactionRequest) -> TransactionRequest:
    return request if request.transaction_id is not None else request.model_copy(update={"transaction_id": uuid4().hex})


def _transaction_of(request: TransactionRequest) -> Transaction:
    return Transaction(
        transaction_id=str(request.transaction_id),
        customer_id=request.user_id,
        occurred_at=request.timestamp,
        amount=request.amount,
        direction=request.direction,
        merchant=request.merchant,
        country=request.country,
    )
