"""What `POST /v1/loan-default` answers: a probability of default and what follows from it; and what would have to differ.

An application is described by its features, or by a customer of the ledger and the loan that is asked for.
"""

import asyncio
from dataclasses import replace

import numpy as np

from bento.decisions.answers import Asked, explained, model_version, one_of, row_of, score, sent_row, stored, stored_row, without
from bento.problems import Problem, invalid
from bento.store.session import FeatureSnapshot, Store
from finrisk_assets.domains.loan_default.actionability import CHANGEABLE, allowed, consistent
from finrisk_assets.domains.loan_default.decide import APPROVE, REFER, decide, grade
from finrisk_assets.domains.loan_default.terms import TermsError, with_terms
from finrisk_assets.scoring.bundle import Bundle, Scores
from finrisk_assets.scoring.recourse import Nearest, Row, Search, approved_by
from finrisk_assets.scoring.spec import Rows
from schemas.api import ChangedValue, LoanAnswer, LoanRequest, NearestChangeAnswer, NearestChangeRequest, NeededChange

_TERMS = ("loan_amount", "term_months", "annual_rate_pct")
_NOT_BELOW = {APPROVE: "refer_from", REFER: "refuse_from"}
"""Goal -> the threshold below which it is reached."""


class LoanScorer:
    """Answers for one bundle of the domain `loan_default`, with a store that knows the ledger's customers."""

    def __init__(self, bundle: Bundle, store: Store) -> None:
        self._bundle = bundle
        self._store = store
        self._searches = (
            {goal: Search(bundle, {}, approved_by(bundle), bundle.thresholds[turn], consistent) for goal, turn in _NOT_BELOW.items()}
            if bundle.approved
            else {}
        )

    def warm_up(self) -> None:
        """Score once, so that the first client does not wait for what is only done once."""
        self._bundle.score(np.ones((1, len(self._bundle.features)), np.float32))

    def answer(self, request: LoanRequest) -> LoanAnswer:
        """Score one application.

        Raises
        ------
        bento.problems.Problem
            For a feature that the model lacks, one that is missing, a value that it cannot use, terms that no loan can have, or a
            customer of whom nothing is stored.
        """
        asked = self.asked(request)
        return self.answered(asked, score(self._bundle, asked.row))

    def asked(self, request: LoanRequest) -> Asked:
        """What the model is to be asked of one application; the refusals of `answer` are made here."""
        known, standing = self._asked(request)
        return Asked(request, self._row(known, request), standing)

    def answered(self, asked: Asked, scores: Scores) -> LoanAnswer:
        """The answer to one application, given the scores of its row."""
        request, row, standing = asked.request, asked.row, asked.standing
        probability = float(scores.probability[0])
        decision = decide(probability, self._bundle.thresholds)
        return LoanAnswer(
            loan_id=request.loan_id,
            customer_id=request.customer_id,
            as_of=standing and standing.as_of,
            pd=probability,
            decision=decision,
            grade=grade(probability),
            **explained(self._bundle, row, scores, high=decision != APPROVE, refused=decision != APPROVE),
        )

    async def nearest_change(self, request: NearestChangeRequest) -> NearestChangeAnswer:
        """Tell what would have to differ for an application to be approved, or looked at.

        The search runs beside the event loop, so that others are answered meanwhile.

        Raises
        ------
        bento.problems.Problem
            As of `answer`; and where the model's bundle does not say what approved applicants have.
        """
        asked, standing = self._asked(request)
        row = self._row(asked, request)
        if request.goal not in self._searches:
            raise Problem(501, "model_absent", "This model does not know what approved applicants have: it has to be trained again.")
        before = float(score(self._bundle, row).probability[0])
        found = await asyncio.to_thread(self._nearest, request.goal, asked)
        after = None if found.changes is None else found.probability
        return NearestChangeAnswer(
            loan_id=request.loan_id,
            customer_id=request.customer_id,
            as_of=standing and standing.as_of,
            goal=request.goal,
            pd=before,
            decision=decide(before, self._bundle.thresholds),
            changes=None if found.changes is None else self._needed(found),
            follows=self._follows(asked, found),
            pd_after=after,
            decision_after=None if after is None else decide(after, self._bundle.thresholds),
            reason=f"{found.reason[0].upper()}{found.reason[1:]}." if found.reason else None,
            model=model_version(self._bundle),
        )

    def _nearest(self, goal: str, asked: Row) -> Nearest:
        able = {name: how for name, how in allowed(asked).items() if name in self._bundle.approved}
        return replace(self._searches[goal], allowed=able).nearest(asked)

    def _needed(self, found: Nearest) -> list[NeededChange]:
        meaning = {feature.name: feature for feature in self._bundle.features}
        return [
            NeededChange(
                feature=one.feature,
                unit=meaning[one.feature].unit,
                description=meaning[one.feature].description,
                action=CHANGEABLE[one.feature],
                before=one.before,
                after=one.after,
            )
            for one in found.changes or ()
        ]

    def _follows(self, asked: Row, found: Nearest) -> list[ChangedValue]:
        """The features that differ though nobody changed them, in the model's order."""
        needed = {one.feature for one in found.changes or ()}
        return [
            ChangedValue(feature=name, unit=one.unit, description=one.description, before=asked.get(name), after=found.row.get(name))
            for one in self._bundle.features
            if (name := one.name) not in needed and asked.get(name) != found.row.get(name)
        ]

    def _asked(self, request: LoanRequest) -> tuple[Row, FeatureSnapshot | None]:
        """All that is known of an application, by name, and where it comes from."""
        if one_of(request, "features", "customer_id") == "features":
            without(request, _TERMS, "features")
            return request.features or {}, None
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
        return asked, standing

    def _row(self, asked: Row, request: LoanRequest) -> Rows:
        if request.customer_id is None:
            return sent_row(self._bundle, asked)
        return row_of(self._bundle, {feature.name: asked[feature.name] for feature in self._bundle.features}, "loan_amount")
