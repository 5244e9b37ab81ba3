"""What `POST /v1/loan-default` answers: a probability of default and what follows from it."""

from collections.abc import Mapping

import numpy as np

from bento.answers import explanation, model_version, reasons_of, score
from bento.errors import Problem, invalid
from finrisk_assets.loan_default.decide import APPROVE, REFUSE, decide, grade
from finrisk_assets.modelling.bundle import Bundle, Rows
from schemas.api import FieldError, LoanAnswer, LoanRequest

_MAX_FIELDS = 50
_UNKNOWN = "The model has no such feature; GET /v1/models lists them."
_MISSING = "This feature is required; null says that it is not known."


class LoanScorer:
    """Answers for one bundle of the domain `loan_default`."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._names = [feature.name for feature in bundle.features]

    def warm_up(self) -> None:
        """Score once, so that the first client does not wait for what is only done once."""
        self._bundle.score(np.ones((1, len(self._names)), np.float32))

    def answer(self, request: LoanRequest) -> LoanAnswer:
        """Score one application.

        Raises
        ------
        bento.errors.Problem
            For a feature that the model lacks, one that is missing, or a value that it cannot use.
        """
        row = self._row(request.features)
        scores = score(self._bundle, row)
        probability = float(scores.probability[0])
        decision = decide(probability, self._bundle.thresholds)
        return LoanAnswer(
            loan_id=request.loan_id,
            pd=probability,
            decision=decision,
            grade=grade(probability),
            score=float(scores.margin[0]),
            explanation=explanation(self._bundle, row, scores),
            reasons=reasons_of(self._bundle, scores, high=decision != APPROVE, refused=decision == REFUSE),
            model=model_version(self._bundle),
        )

    def _row(self, features: Mapping[str, float | None]) -> Rows:
        wrong = [FieldError(field=f"features.{name[:64]}", reason=_UNKNOWN) for name in features if name not in self._names]
        wrong += [FieldError(field=f"features.{name}", reason=_MISSING) for name in self._names if name not in features]
        if wrong:
            raise Problem.of(422, wrong[:_MAX_FIELDS])
        try:
            return self._bundle.row(features)
        except ValueError as error:  # too large for the model's 32 bits; the message names the feature
            raise invalid("features", str(error)) from None
