"""What `POST /v1/loan-offers` answers: the loan that is worth offering, and why there is none.

Every offer on the grid that the bundle carries is priced: how likely it is accepted, and what it earns if it is, given the PD.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bento.decisions.answers import Asked, explained, one_of, read, score, sent_row, stored, stored_row, without
from bento.problems import invalid
from bento.store.session import FeatureSnapshot, Store
from finrisk_assets.domains.loan_offers.decide import TERMS, Grid, Limits, Priced, cheapest, choose, rows
from finrisk_assets.scoring.bundle import Bundle, Scores
from finrisk_assets.scoring.spec import Rows
from schemas.api import CurvePoint, Offer, OfferAnswer, OfferRequest, ProfitParts


@dataclass(frozen=True)
class _Customer:
    """What a decision needs to know of somebody: the model's row, income and PD, and where they come from."""

    state: Rows
    monthly_income: float | None
    pd: float
    standing: FeatureSnapshot | None = None
    pd_model: str | None = None


class OfferScorer:
    """Answers for one bundle of the domain `loan_offers`, with a store that knows the ledger's customers and their PDs."""

    def __init__(self, bundle: Bundle, store: Store) -> None:
        self._bundle = bundle
        self._store = store
        self._names = [feature.name for feature in bundle.features]
        self._grid, self._limits = Grid.of(bundle.thresholds), Limits.of(bundle.thresholds)

    def warm_up(self) -> None:
        """Score once, so that the first client does not wait for what is only done once."""
        row = np.ones(len(self._names), np.float32)
        self._bundle.score(row[None, :])
        self._bundle.probability(rows(self._names, row, 1.0, self._grid)[0])

    def answer(self, request: OfferRequest) -> OfferAnswer:
        """Choose what to offer.

        Raises
        ------
        bento.problems.Problem
            For features or a PD that are missing or cannot be used, or a customer of whom nothing is stored.
        """
        asked = self.asked(request)
        return self.answered(asked, score(self._bundle, asked.row))

    def asked(self, request: OfferRequest) -> Asked:
        """What is worth offering, and what the model is to explain of it; the refusals of `answer` are made here."""
        return self._considered(request, self._customer(request))

    def again(self, request: OfferRequest, row: Rows, standing: FeatureSnapshot | None, known: Mapping[str, Any]) -> Asked:
        """As `asked`, of a customer who was looked up before: any row that was explained has the customer's state."""
        return self._considered(request, _Customer(row, standing=standing, **known))

    def _considered(self, request: OfferRequest, customer: _Customer) -> Asked:
        grid = self._grid.only(loan_amount=request.loan_amount, term_months=request.term_months)
        offered = self._rows(customer, grid)
        try:
            acceptance = self._bundle.probability(offered)
        except ValueError as error:  # a missing value that the model has no answer to; the message names the feature
            raise invalid("features", str(error)) from None
        decision = choose(acceptance, customer.pd, customer.monthly_income, grid, self._limits)
        row = offered[cheapest(grid)] if decision.best is None else self._rows(customer, _grid_of(decision.best))[0]
        known = {"monthly_income": customer.monthly_income, "pd": customer.pd, "pd_model": customer.pd_model}
        return Asked(request, row, customer.standing, known, decision)

    def answered(self, asked: Asked, scores: Scores) -> OfferAnswer:
        """The answer to a customer, given the scores of the row to explain."""
        request, row, standing, decision = asked.request, asked.row, asked.standing, asked.decided
        best = decision.best
        return OfferAnswer(
            customer_id=request.customer_id,
            as_of=standing and standing.as_of,
            decision=decision.decision,
            reason=None if best is not None else f"There is no offer: {decision.reason}.",
            offer=None if best is None else _offer(best),
            alternatives=[_offer(priced) for priced in decision.alternatives],
            curve=[
                CurvePoint(annual_rate_pct=one.annual_rate_pct, acceptance=one.acceptance, expected_profit=one.expected_profit)
                for one in decision.curve
            ],
            acceptance=float(scores.probability[0]),
            pd=asked.known["pd"],
            pd_model=asked.known["pd_model"],
            **explained(self._bundle, row, scores, high=bool(scores.margin[0] >= scores.base)),
        )

    def _rows(self, customer: _Customer, grid: Grid) -> Rows:
        """The model's rows of one customer at every point of a grid, float32 of shape (g, d)."""
        income = np.nan if customer.monthly_income is None else customer.monthly_income
        return rows(self._names, customer.state, income, grid)[0]

    def _customer(self, request: OfferRequest) -> _Customer:
        if one_of(request, "customer_id", "features") == "features":
            if request.monthly_income_amount is None:
                raise invalid("monthly_income_amount", "This field is required with features.")
            if request.pd is None:
                raise invalid("pd", "This field is required with features.")
            terms: dict[str, float | None] = {name: None for name in TERMS if name in self._names}
            return _Customer(sent_row(self._bundle, terms | (request.features or {})), request.monthly_income_amount, request.pd)
        without(request, ["monthly_income_amount"], "customer_id")
        standing = stored(self._store, "loan_offers", customer_id=request.customer_id)
        state, income = stored_row(self._bundle, standing.features), standing.features.get("monthly_income_amount")
        if request.pd is not None:
            return _Customer(state, income, request.pd, standing)
        pd, model = self._stored_pd(standing)
        return _Customer(state, income, pd, standing, model)

    def _stored_pd(self, standing: FeatureSnapshot) -> tuple[float, str | None]:
        """The PD that the batch decided with, else the customer's newest, and the version of the model that said so."""
        loans = read(self._store, domain="loan_default", customer_id=standing.customer_id)
        newest = loans[0].score if loans else {}
        pd = standing.features.get("pd")
        pd = newest.get("probability") if pd is None else pd
        if pd is None:
            raise invalid("pd", "No probability of default is stored of this customer; send one.")
        return pd, newest.get("model_version")


def _grid_of(priced: Priced) -> Grid:
    """The grid of one offer alone."""
    return Grid((priced.annual_rate_pct,), (), (priced.term_months,), (priced.loan_amount,))


def _offer(priced: Priced) -> Offer:
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
