"""The answer of `POST /v1/loan-offers`: the loan that is worth offering, or the reason why there is none.

Every offer on the policy's grid is priced: the probability that the customer accepts the offer, and its value at the PD of its terms. An
offer is made only where `POST /v1/loan-default` would approve the customer at the same terms.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bento.decisions.answers import (
    ScoringInput,
    exactly_one_of,
    find_snapshots,
    load_snapshot,
    reject_fields,
    row_from_request,
    row_from_snapshot,
)
from bento.decisions.scorers.base import Scorer
from bento.problems import invalid_field
from bento.store.records import FeatureSnapshot
from bento.store.session import Store
from finrisk_assets.domains.loan_offers.decide import TERMS, Grid, PricedOffer, build_rows, choose_offer, find_cheapest
from finrisk_assets.domains.loan_offers.pd_at_terms import LoanApplicants
from finrisk_assets.scoring.bundle import Bundle, Scores
from finrisk_assets.scoring.spec import Rows
from schemas.api import CurvePoint, Offer, OfferAnswer, OfferRequest, ProfitParts


@dataclass(frozen=True)
class _Customer:
    """A customer as the pricing needs them.

    Attributes
    ----------
    state
        The model's row.
    monthly_income, usual_income
        The income that amounts are multiples of, and that an application would be decided by; None where not known.
    pds
        PD at each point of the grid, or one for all points.
    spending_probability
        Probability of trouble by the customer's spending; None where not known.
    snapshot, pd_model
        The feature snapshot of the customer, and the version of the model of the PD.
    """

    state: Rows
    monthly_income: float | None
    pds: list[float | None]
    usual_income: float | None = None
    spending_probability: float | None = None
    snapshot: FeatureSnapshot | None = None
    pd_model: str | None = None


class OfferScorer(Scorer):
    """The scorer of one bundle of the domain `loan_offers`, from the feature snapshots of customers and their PDs."""

    def __init__(self, bundle: Bundle, store: Store) -> None:
        super().__init__(bundle, store)
        self._names = [feature.name for feature in bundle.features]
        wanted, cap = bundle.policy.loan_offers.grid, bundle.policy.lending.rate_cap_pct
        self._grid = Grid.from_thresholds(bundle.thresholds).choose_grid(wanted, cap)

    def warm_up(self) -> None:
        super().warm_up()
        row = np.ones(len(self._names), np.float32)
        self.bundle.probability(build_rows(self._names, row, 1.0, self._grid)[0])

    def prepare(self, request: OfferRequest) -> ScoringInput:
        """Return the best offer, and the row that the model explains: the best offer's, or the cheapest where there is no offer."""
        grid = self._restrict(request)
        return self._price(request, grid, self._load_customer(request, grid))

    def restore(self, request: OfferRequest, row: Rows, snapshot: FeatureSnapshot | None, context: Mapping[str, Any]) -> ScoringInput:
        """Return the scoring input of a stored decision: the row that was explained holds the customer's features."""
        return self._price(request, self._restrict(request), _Customer(row, snapshot=snapshot, **context))

    def _restrict(self, request: OfferRequest) -> Grid:
        return self._grid.restrict(loan_amount=request.loan_amount, term_months=request.term_months)

    def _price(self, request: OfferRequest, grid: Grid, customer: _Customer) -> ScoringInput:
        offered = self._rows(customer, grid)
        try:
            acceptance = self.bundle.probability(offered)
        except ValueError as error:  # a missing value that the model cannot score; the message names the feature
            raise invalid_field("features", str(error)) from None
        # An offer whose acceptance would be a guess is not made, as if the PD at its terms were not known.
        pds = np.where(self.bundle.is_doubtful(offered), np.nan, np.array([_number(pd) for pd in customer.pds]))
        decision = choose_offer(
            acceptance,
            pds,
            customer.monthly_income,
            grid,
            self.bundle.policy,
            usual_income=_number(customer.usual_income),
            spending_probability=customer.spending_probability,
        )
        cheapest = find_cheapest(grid)
        row = offered[cheapest] if decision.best is None else self._rows(customer, _grid_of(decision.best))[0]
        pd = _plain(pds[cheapest]) if decision.best is None else decision.best.pd
        context = {name: getattr(customer, name) for name in _CONTEXT}
        return ScoringInput(request, row, customer.snapshot, context, (decision, pd))

    def build_answer(self, scoring_input: ScoringInput, scores: Scores) -> OfferAnswer:
        """Return the best offer with its alternatives, or the reason why there is no offer."""
        request, row, snapshot = scoring_input.request, scoring_input.row, scoring_input.snapshot
        (decision, pd), context = scoring_input.pricing, scoring_input.decision_context
        best = decision.best
        return OfferAnswer(
            customer_id=request.customer_id,
            as_of=snapshot and snapshot.as_of,
            decision=decision.decision,
            reason=None if best is not None else f"There is no offer: {decision.reason}.",
            offer=None if best is None else _offer(best),
            alternatives=[_offer(priced) for priced in decision.alternatives],
            curve=[
                CurvePoint(annual_rate_pct=priced.annual_rate_pct, acceptance=priced.acceptance, expected_profit=priced.expected_profit)
                for priced in decision.curve
            ],
            acceptance=float(scores.probability[0]),
            pd=pd,
            pd_model=context["pd_model"],
            **self.explainer.fields(row, scores, high=bool(scores.margin[0] >= scores.base)),
        )

    def _rows(self, customer: _Customer, grid: Grid) -> Rows:
        """Return the model's rows of one customer at every point of a grid, float32 of shape (g, d)."""
        income = np.nan if customer.monthly_income is None else customer.monthly_income
        return build_rows(self._names, customer.state, income, grid)[0]

    def _load_customer(self, request: OfferRequest, grid: Grid) -> _Customer:
        if exactly_one_of(request, "customer_id", "features") == "features":
            if request.monthly_income_amount is None:
                raise invalid_field("monthly_income_amount", "This field is required with features.")
            if request.pd is None:
                raise invalid_field("pd", "This field is required with features.")
            terms: dict[str, float | None] = {name: None for name in TERMS if name in self._names}
            state = row_from_request(self.bundle, terms | (request.features or {}), computed=TERMS)
            return _Customer(state, request.monthly_income_amount, [request.pd], request.monthly_income_amount)
        reject_fields(request, ["monthly_income_amount"], "customer_id")
        snapshot = load_snapshot(self._store, "loan_offers", customer_id=request.customer_id)
        state, income = row_from_snapshot(self.bundle, snapshot.features), snapshot.features.get("monthly_income_amount")
        customer = _Customer(state, income, [], income, self._spending_probability(snapshot), snapshot)
        return self._with_pds(customer, snapshot, grid, request.pd)

    def _with_pds(self, customer: _Customer, snapshot: FeatureSnapshot, grid: Grid, sent_pd: float | None) -> _Customer:
        """Return the customer with the PD of each point of the grid, and the income that an application would be decided by.

        The PD is that of the loan-default model at the offered terms; where the service has no such model, it is the stored one. A PD that
        was sent holds at all terms.
        """
        stored = find_snapshots(self._store, domain="loan_default", customer_id=snapshot.customer_id)
        loans = self.bundle.companions.get("loan_default")
        usual = customer.monthly_income
        pds: list[float | None] | None = None if sent_pd is None else [sent_pd]
        model = None
        if loans is not None and stored:
            row_from_snapshot(loans, stored[0].features)  # refuses a store older than the model
            applicant = LoanApplicants(loans, {name: np.array([_number(value)]) for name, value in stored[0].features.items()})
            usual = _plain(applicant.find_usual_incomes(_number(customer.monthly_income))[0])
            if pds is None and customer.monthly_income is not None and applicant.is_known[0]:
                try:
                    pds, model = [_plain(pd) for pd in applicant.find_pds(grid.points(customer.monthly_income))[0]], loans.version
                except ValueError as error:  # a missing value that the model cannot score; the message names the feature
                    raise invalid_field("customer_id", str(error)) from None
        if pds is None:
            newest = stored[0].score if stored else {}
            # Without loan features the loan model could not decide on an application at the offered terms, whatever the PD was once.
            pd = snapshot.features.get("pd") if loans is None or stored else None
            pd = newest.get("probability") if pd is None else pd
            if pd is None:
                raise invalid_field("pd", "No probability of default is stored of this customer; send one.")
            pds, model = [float(pd)], newest.get("model_version")
        return replace(customer, pds=pds, usual_income=usual, pd_model=model)

    def _spending_probability(self, snapshot: FeatureSnapshot) -> float | None:
        """Return the customer's newest probability of trouble by their spending, as batch scoring stored it."""
        stored = find_snapshots(self._store, domain="spending_risk", customer_id=snapshot.customer_id)
        newest = stored[0].score.get("probability") if stored else None
        return snapshot.features.get("spending_probability") if newest is None else newest


_CONTEXT = ("monthly_income", "pds", "usual_income", "spending_probability", "pd_model")
"""Fields of a customer that are recorded with a decision, so that replay decides on the same numbers."""


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _grid_of(priced: PricedOffer) -> Grid:
    """Return the grid of one offer alone."""
    return Grid((priced.annual_rate_pct,), (), (priced.term_months,), (priced.loan_amount,))


def _offer(priced: PricedOffer) -> Offer:
    return Offer(
        annual_rate_pct=priced.annual_rate_pct,
        loan_amount=priced.loan_amount,
        term_months=priced.term_months,
        instalment_amount=priced.instalment_amount,
        acceptance=priced.acceptance,
        pd=priced.pd,
        expected_profit=priced.expected_profit,
        parts=ProfitParts(interest=priced.interest, expected_loss=priced.expected_loss, funding=priced.funding, cost=priced.cost),
    )
