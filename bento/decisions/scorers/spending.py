"""What `POST /v1/spending-risk` answers: whether spending leads into trouble.

A customer of the ledger is judged by the model of all features. Eight behaviour fields are judged by the model of those eight.
"""

import numpy as np

from bento.decisions.answers import Asked, explained, row_of, score, stored, stored_row, without
from bento.problems import Problem
from bento.store.session import Store
from finrisk_assets.domains.spending_risk.decide import EIGHT, HIGH, LARGEST_RATIO, LOW, consistent, decide
from finrisk_assets.scoring.bundle import Bundle, Scores
from finrisk_assets.scoring.spec import Rows
from schemas.api import FieldError, SpendingAnswer, SpendingRequest

_REQUIRED = "This field is required: send all eight, or customer_id alone."


class SpendingScorer:
    """Answers for one bundle of the domain: of all features, with the store that holds them, or of the eight fields."""

    def __init__(self, bundle: Bundle, store: Store) -> None:
        self._bundle = bundle
        self._store = store

    def warm_up(self) -> None:
        """Score once, so that the first client does not wait for what is only done once."""
        self._bundle.score(np.ones((1, len(self._bundle.features)), np.float32))

    def answer(self, request: SpendingRequest) -> SpendingAnswer:
        """Judge a customer or eight fields.

        Raises
        ------
        bento.problems.Problem
            For fields that are missing or contradict each other, or a customer of whom nothing is stored.
        """
        asked = self.asked(request)
        return self.answered(asked, score(self._bundle, asked.row))

    def asked(self, request: SpendingRequest) -> Asked:
        """What the model is to be asked of a customer or eight fields; the refusals of `answer` are made here."""
        if request.customer_id is None:
            return Asked(request, _behaviour_row(self._bundle, request))
        without(request, [name for name in request.behaviour_fields()], "customer_id")
        standing = stored(self._store, "spending_risk", customer_id=request.customer_id)
        return Asked(request, stored_row(self._bundle, standing.features), standing)

    def answered(self, asked: Asked, scores: Scores) -> SpendingAnswer:
        """The answer to a customer or eight fields, given the scores of their row."""
        row, standing = asked.row, asked.standing
        probability = float(scores.probability[0])
        level = decide(probability, self._bundle.thresholds)
        return SpendingAnswer(
            customer_id=standing and standing.customer_id,
            as_of=standing and standing.as_of,
            risk_probability=probability,
            risk_level=level,
            **explained(self._bundle, row, scores, high=level != LOW, refused=level == HIGH),
        )


def _behaviour_row(bundle: Bundle, request: SpendingRequest) -> Rows:
    """The eight fields as the model of those eight takes them, once they can be true together."""
    sent = request.behaviour()
    fields = {name: value for name in EIGHT if (value := sent[name]) is not None}
    missing = [name for name in EIGHT if name not in fields]
    if missing:
        raise Problem.of(422, [FieldError(field=name, reason=_REQUIRED) for name in missing])
    faults = consistent(fields)
    if faults:
        raise Problem.of(422, [FieldError(field=request.as_sent(name), reason=f"It {reason}.") for name, reason in faults])
    return row_of(bundle, fields | {"Expense_Income_Ratio": min(fields["Expense_Income_Ratio"], LARGEST_RATIO)}, "")
