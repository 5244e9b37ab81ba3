"""The answer of `POST /v1/loan-offers`: the loan that is worth offering, or the reason why there is none.

Every offer on the bundle's grid is priced: the probability that the customer accepts the offer, and its profit at the customer's PD.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
from finrisk_assets.domains.loan_offers.decide import TERMS, Grid, OfferLimits, PricedOffer, build_rows, choose_offer, find_cheapest
from finrisk_assets.scoring.bundle import Bundle, Scores
from finrisk_assets.scoring.spec import Rows
from schemas.api import CurvePoint, Offer, OfferAnswer, OfferRequest, ProfitParts


@dataclass(frozen=True)
class _Customer:
    """A customer as the pricing needs them: the model's row, income and PD, and their sources."""

    state: Rows
    monthly_income: float | None
    pd: float
    snapshot: FeatureSnapshot | None = None
    pd_model: str | None = None


class OfferScorer(Scorer):
    """The scorer of one bundle of the domain `loan_offers`, from the feature snapshots of customers and their PDs."""

    def __init__(self, bundle: Bundle, store: Store) -> None:
        super().__init__(bundle, store)
        self._names = [feature.name for feature in bundle.features]
        self._grid, self._limits = Grid.from_thresholds(bundle.thresholds), OfferLimits.from_thresholds(bundle.thresholds)

    def warm_up(self) -> None:
        super().warm_up()
        row = np.ones(len(self._names), np.float32)
        self.bundle.probability(build_rows(self._names, row, 1.0, self._grid)[0])

    def prepare(self, request: OfferRequest) -> ScoringInput:
        """Return the best offer, and the row that the model explains: the best offer's, or the cheapest where there is no offer."""
        return self._price(request, self._load_customer(request))

    def restore(self, request: OfferRequest, row: Rows, snapshot: FeatureSnapshot | None, context: Mapping[str, Any]) -> ScoringInput:
        """Return the scoring input of a stored decision: the row that was explained holds the customer's features."""
        return self._price(request, _Customer(row, snapshot=snapshot, **context))

    def _price(self, request: OfferRequest, customer: _Customer) -> ScoringInput:
        grid = self._grid.restrict(loan_amount=request.loan_amount, term_months=request.term_months)
        offered = self._rows(customer, grid)
        try:
            acceptance = self.bundle.probability(offered)
        except ValueError as error:  # a missing value that the model cannot score; the message names the feature
            raise invalid_field("features", str(error)) from None
        decision = choose_offer(acceptance, customer.pd, customer.monthly_income, grid, self._limits)
        row = offered[find_cheapest(grid)] if decision.best is None else self._rows(customer, _grid_of(decision.best))[0]
        context = {"monthly_income": customer.monthly_income, "pd": customer.pd, "pd_model": customer.pd_model}
        return ScoringInput(request, row, customer.snapshot, context, decision)

    def build_answer(self, scoring_input: ScoringInput, scores: Scores) -> OfferAnswer:
        """Return the best offer with its alternatives, or the reason why there is no offer."""
        request, row, snapshot = scoring_input.request, scoring_input.row, scoring_input.snapshot
        decision, context = scoring_input.pricing, scoring_input.decision_context
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
            pd=context["pd"],
            pd_model=context["pd_model"],
            **self.explainer.fields(row, scores, high=bool(scores.margin[0] >= scores.base)),
        )

    def _rows(self, customer: _Customer, grid: Grid) -> Rows:
        """Return the model's rows of one customer at every point of a grid, float32 of shape (g, d)."""
        income = np.nan if customer.monthly_income is None else customer.monthly_income
        return build_rows(self._names, customer.state, income, grid)[0]

    def _load_customer(self, request: OfferRequest) -> _Customer:
        if exactly_one_of(request, "customer_id", "features") == "features":
            if request.monthly_income_amount is None:
                raise invalid_field("monthly_income_amount", "This field is required with features.")
            if request.pd is None:
                raise invalid_field("pd", "This field is required with features.")
            terms: dict[str, float | None] = {name: None for name in TERMS if name in self._names}
            return _Customer(row_from_request(self.bundle, terms | (request.features or {})), request.monthly_income_amount, request.pd)
        reject_fields(request, ["monthly_income_amount"], "customer_id")
        snapshot = load_snapshot(self._store, "loan_offers", customer_id=request.customer_id)
        state, income = row_from_snapshot(self.bundle, snapshot.features), snapshot.features.get("monthly_income_amount")
        if request.pd is not None:
            return _Customer(state, income, request.pd, snapshot)
        pd, model = self._stored_pd(snapshot)
        return _Customer(state, income, pd, snapshot, model)

    def _stored_pd(self, snapshot: FeatureSnapshot) -> tuple[float, str | None]:
        """Return the PD that the batch decided with, else the customer's newest PD, and the version of its model."""
        loans = find_snapshots(self._store, domain="loan_default", customer_id=snapshot.customer_id)
        newest = loans[0].score if loans else {}
        pd = snapshot.features.get("pd")
        pd = newest.get("probability") if pd is None else pd
        if pd is None:
            raise invalid_field("pd", "No probability of default is stored of this customer; send one.")
        return pd, newest.get("model_version")


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
