"""What `POST /v1/loan-default` answers: a probability of default and what follows from it.

An application is described by its features, or by a customer of the ledger and the loan that is asked for.
"""

import numpy as np

from bento.answers import explained, one_of, row_of, score, sent_row, stored, stored_row, without
from bento.errors import invalid
from bento.store import Standing, Store
from finrisk_assets.loan_default.decide import APPROVE, REFUSE, decide, grade
from finrisk_assets.loan_default.terms import TermsError, with_terms
from finrisk_assets.modelling.bundle import Bundle, Rows
from schemas.api import LoanAnswer, LoanRequest

_TERMS = ("loan_amount", "term_months", "annual_rate_pct")


class LoanScorer:
    """Answers for one bundle of the domain `loan_default`, with a store that knows the ledger's customers."""

    def __init__(self, bundle: Bundle, store: Store) -> None:
        self._bundle = bundle
        self._store = store

    def warm_up(self) -> None:
        """Score once, so that the first client does not wait for what is only done once."""
        self._bundle.score(np.ones((1, len(self._bundle.features)), np.float32))

    def answer(self, request: LoanRequest) -> LoanAnswer:
        """Score one application.

        Raises
        ------
        bento.errors.Problem
            For a feature that the model lacks, one that is missing, a value that it cannot use, terms that no loan can have, or a
            customer of whom nothing is stored.
        """
        row, standing = self._row(request)
        scores = score(self._bundle, row)
        probability = float(scores.probability[0])
        decision = decide(probability, self._bundle.thresholds)
        return LoanAnswer(
            loan_id=request.loan_id,
            customer_id=request.customer_id,
            as_of=standing and standing.as_of,
            pd=probability,
            decision=decision,
            grade=grade(probability),
            **explained(self._bundle, row, scores, high=decision != APPROVE, refused=decision == REFUSE),
        )

    def _row(self, request: LoanRequest) -> tuple[Rows, Standing | None]:
        if one_of(request, "features", "customer_id") == "features":
            without(request, _TERMS, "features")
            return sent_row(self._bundle, request.features or {}), None
        if request.loan_amount is None:
            raise invalid("loan_amount", "This field is required with customer_id.")
        standing = stored(self._store, "loan_default", customer_id=request.customer_id)
        stored_row(self._bundle, standing.features)  # refuses a store that does not fit before anything is computed from it
        try:
            asked = with_terms(
                standing.features,
                loan_amount=request.loan_amount,
                term_months=request.term_months,
                annual_rate_pct=request.annual_rate_pct,
            )
        except TermsError as error:
            raise invalid(error.field, f"It {error.reason}.") from None
        return row_of(self._bundle, {feature.name: asked[feature.name] for feature in self._bundle.features}, "loan_amount"), standing
