"""The answers of `POST /v1/loan-default` (probability of default and decision) and `POST /v1/loan-default/nearest-change`.

An application is described by its features, or by a customer of the ledger and the loan that is asked for.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from bento.decisions.answers import (
    ScoringInput,
    exactly_one_of,
    load_snapshot,
    reject_fields,
    row_from_request,
    row_from_snapshot,
    row_of,
    score,
)
from bento.decisions.scorers.base import Scorer
from bento.problems import Problem, invalid_field
from bento.store.records import FeatureSnapshot
from bento.store.session import Store
from finrisk_assets.domains.loan_default.actionability import CHANGEABLE, apply_changes, find_allowed_changes
from finrisk_assets.domains.loan_default.decide import APPROVE, REFER, TERM_COLUMNS, decide_applications, measure_shortfall
from finrisk_assets.features.loan_terms import TermsError, with_terms
from finrisk_assets.scoring.bundle import Bundle, Scores
from finrisk_assets.scoring.loan_decision import REASONS, LoanDecisions, name_grade
from finrisk_assets.scoring.recourse import NearestChange, RecourseSearch, Row, approved_quantile_rows
from finrisk_assets.scoring.spec import Floats, Rows
from schemas.api import ChangedValue, LoanAnswer, LoanRequest, NearestChangeAnswer, NearestChangeRequest, NeededChange

_TERMS = ("loan_amount", "term_months", "annual_rate_pct")
_GOALS = (APPROVE, REFER)


class LoanScorer(Scorer):
    """The scorer of one bundle of the domain `loan_default`, from applications or the feature snapshots of customers."""

    def __init__(self, bundle: Bundle, store: Store) -> None:
        super().__init__(bundle, store)
        self._searches = (
            {
                goal: RecourseSearch(bundle, {}, approved_quantile_rows(bundle), partial(self._measure_shortfall, goal=goal), apply_changes)
                for goal in _GOALS
            }
            if bundle.approved
            else {}
        )

    def prepare(self, request: LoanRequest) -> ScoringInput:
        """Return the row of an application, from the features that the client sent or the customer's newest features and the terms."""
        application, snapshot = self._load_application(request)
        return ScoringInput(request, self._row(application, request), snapshot, _read_terms(application, request))

    def build_answer(self, scoring_input: ScoringInput, scores: Scores) -> LoanAnswer:
        """Return the probability of default, the decision and the grade of an application."""
        request, row, snapshot = scoring_input.request, scoring_input.row, scoring_input.snapshot
        probability = float(scores.probability[0])
        decided = self._decide(scoring_input.decision_context, probability)
        doubt = scores.doubts[0]
        decision = decided.words[0] if doubt is None else REFER
        return LoanAnswer(
            loan_id=request.loan_id,
            customer_id=request.customer_id,
            as_of=snapshot and snapshot.as_of,
            pd=probability,
            decision=decision,
            decision_reason=_sentence(decided) if doubt is None else f"{doubt.text}.",
            value_amount=float(decided.value.value[0]),
            grade=name_grade(probability, self.bundle.policy),
            **self.explainer.fields(row, scores, high=decision != APPROVE, refused=decision != APPROVE),
        )

    async def nearest_change(self, request: NearestChangeRequest) -> NearestChangeAnswer:
        """Return the smallest change after which an application would be approved, or referred.

        The search runs in a thread: other requests are answered meanwhile.

        Raises
        ------
        bento.problems.Problem
            As of `prepare`; 501 where the model's bundle has no data on approved applicants.
        """
        application, snapshot = await self._store.thread.run_if_busy(self._load_application, request)
        row = self._row(application, request)
        if request.goal not in self._searches:
            raise Problem(501, "model_absent", "This model does not know what approved applicants have: it has to be trained again.")
        before = float(score(self.bundle, row).probability[0])
        nearest = await asyncio.to_thread(self._search_nearest, request.goal, application)
        after = None if nearest.changes is None else nearest.probability
        return NearestChangeAnswer(
            loan_id=request.loan_id,
            customer_id=request.customer_id,
            as_of=snapshot and snapshot.as_of,
            goal=request.goal,
            pd=before,
            decision=self._choose_word(application, request, before),
            changes=None if nearest.changes is None else self._needed_changes(nearest),
            follows=self._consequences(application, nearest),
            pd_after=after,
            decision_after=None if after is None else self._choose_word(nearest.row, request, after),
            reason=f"{nearest.reason[0].upper()}{nearest.reason[1:]}." if nearest.reason else None,
            model=self.explainer.model,
            policy_version=self.explainer.policy_version,
        )

    def _decide(self, terms: Mapping[str, float | None], probability: float) -> LoanDecisions:
        """Decide on one application at its own terms."""
        columns = {name: np.array([np.nan if value is None else value]) for name, value in terms.items()}
        return decide_applications(columns, np.array([probability]), self.bundle.policy)

    def _choose_word(self, application: Row, request: LoanRequest, probability: float) -> str:
        """Return the decision on an application: where too little is known it is referred."""
        is_doubtful = self.bundle.find_doubt(self._row(application, request)) is not None
        return REFER if is_doubtful else self._decide(_read_terms(application, request), probability).words[0]

    def _measure_shortfall(self, rows: Rows, probability: Floats, goal: str) -> Floats:
        """Return how far applications are from a goal, as of `decide.measure_shortfall`; where too little is known none is approved."""
        measured = measure_shortfall(rows, probability, list(self.bundle.columns), self.bundle.policy, goal=goal)
        return np.where(self.bundle.is_doubtful(rows), 1.0 if goal == APPROVE else -1.0, measured)

    def _search_nearest(self, goal: str, application: Row) -> NearestChange:
        changeable = {name: direction for name, direction in find_allowed_changes(application).items() if name in self.bundle.approved}
        return replace(self._searches[goal], allowed=changeable).find_nearest(application)

    def _needed_changes(self, nearest: NearestChange) -> list[NeededChange]:
        features = {feature.name: feature for feature in self.bundle.features}
        return [
            NeededChange(
                feature=change.feature,
                unit=features[change.feature].unit,
                description=features[change.feature].description,
                action=CHANGEABLE[change.feature],
                before=change.before,
                after=change.after,
            )
            for change in nearest.changes or ()
        ]

    def _consequences(self, application: Row, nearest: NearestChange) -> list[ChangedValue]:
        """Return the features that differ as a consequence of the needed changes, in the model's order."""
        needed = {change.feature for change in nearest.changes or ()}
        return [
            ChangedValue(
                feature=name,
                unit=feature.unit,
                description=feature.description,
                before=application.get(name),
                after=nearest.row.get(name),
            )
            for feature in self.bundle.features
            if (name := feature.name) not in needed and application.get(name) != nearest.row.get(name)
        ]

    def _load_application(self, request: LoanRequest) -> tuple[Row, FeatureSnapshot | None]:
        """Return the values of an application by name, and the customer's feature snapshot where the request names a customer."""
        if exactly_one_of(request, "features", "customer_id") == "features":
            reject_fields(request, _TERMS, "features")
            return request.features or {}, None
        if request.loan_amount is None:
            raise invalid_field("loan_amount", "This field is required with customer_id.")
        snapshot = load_snapshot(self._store, "loan_default", customer_id=request.customer_id)
        row_from_snapshot(self.bundle, snapshot.features)  # refuses a store older than the model before the terms are computed
        try:
            application = with_terms(
                snapshot.features,
                loan_amount=request.loan_amount,
                term_months=request.term_months,
                annual_rate_pct=request.annual_rate_pct,
            )
        except TermsError as error:
            raise invalid_field(error.field, f"It {error.reason}.") from None
        return application, snapshot

    def _row(self, application: Row, request: LoanRequest) -> Rows:
        if request.customer_id is None:
            return row_from_request(self.bundle, application)
        return row_of(self.bundle, {feature.name: application[feature.name] for feature in self.bundle.features}, "loan_amount")


def _read_terms(application: Row, request: LoanRequest) -> dict[str, float | None]:
    """Return what a decision reads of an application beside the PD: recorded with the decision, so that replay decides on the same."""
    terms = {name: application[name] for name in TERM_COLUMNS if name in application}
    # A rate that was asked for counts even where the model has no such feature.
    return terms if request.annual_rate_pct is None else terms | {"annual_rate_pct": float(request.annual_rate_pct)}


def _sentence(decided: LoanDecisions) -> str | None:
    """Return why the loan is not approved, as a sentence; None where it is."""
    reason = REASONS[int(decided.reason[0])]
    return f"{reason[0].upper()}{reason[1:]}." if reason else None
