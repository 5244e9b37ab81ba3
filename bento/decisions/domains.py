"""The table of the service's domains: the scorer, route, request type and outcome fields of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bento.decisions.scorers.base import Scorer
from bento.decisions.scorers.cashflow import CashflowScorer
from bento.decisions.scorers.loan import LoanScorer
from bento.decisions.scorers.offer import OfferScorer
from bento.decisions.scorers.spending import SpendingScorer
from bento.decisions.scorers.transaction import TransactionScorer
from schemas.api import CashflowRequest, LoanRequest, OfferRequest, Request, SpendingRequest, TransactionRequest


@dataclass(frozen=True)
class ServedDomain:
    """A domain that the service has a route for.

    Attributes
    ----------
    scorer
        The class that answers for a bundle of the domain.
    route
        The path of the route; its batches are at ``<route>/batch``.
    request
        The request's type.
    probability, decision
        The fields of the answer that hold the probability and the decision.
    companions
        Domains whose models a decision asks too.
    alerts
        The decisions that open an alert.
    """

    scorer: type[Scorer]
    route: str
    request: type[Request]
    probability: str
    decision: str
    companions: tuple[str, ...] = ()
    alerts: frozenset[str] = frozenset()


DOMAINS: Mapping[str, ServedDomain] = {
    "transaction_anomaly": ServedDomain(
        TransactionScorer, "/v1/transactions", TransactionRequest, "risk_score", "decision", alerts=frozenset({"review", "block"})
    ),
    "loan_default": ServedDomain(LoanScorer, "/v1/loan-default", LoanRequest, "pd", "decision"),
    "spending_risk": ServedDomain(SpendingScorer, "/v1/spending-risk", SpendingRequest, "risk_probability", "risk_level"),
    # The model of eight behaviour fields answers requests that name no customer.
    "spending_risk_eight": ServedDomain(SpendingScorer, "/v1/spending-risk", SpendingRequest, "risk_probability", "risk_level"),
    "cashflow": ServedDomain(CashflowScorer, "/v1/cashflow", CashflowRequest, "surplus_probability", "direction"),
    "loan_offers": ServedDomain(OfferScorer, "/v1/loan-offers", OfferRequest, "acceptance", "decision", ("loan_default",)),
}
OUTCOME_FIELDS: Mapping[str, tuple[str, str]] = {name: (domain.probability, domain.decision) for name, domain in DOMAINS.items()}
"""Domain -> the fields of its answer that hold the probability and the decision."""
_DOMAIN_OF_TYPE: Mapping[type[Request], str] = {domain.request: name for name, domain in reversed(list(DOMAINS.items()))}


def domain_of(request: Request) -> str:
    """Return the domain that answers a request."""
    if isinstance(request, SpendingRequest):
        return "spending_risk_eight" if request.customer_id is None else "spending_risk"
    return _DOMAIN_OF_TYPE[type(request)]


def domain_of_type(request_type: type[Request]) -> str:
    """Return the first domain in the table that answers requests of a type."""
    return _DOMAIN_OF_TYPE[request_type]


def outcome_of(domain: str, answer: Any) -> tuple[float, str]:
    """Return the probability and the decision of an answer, whatever its domain calls them."""
    probability, decision = OUTCOME_FIELDS[domain]
    return float(getattr(answer, probability)), str(getattr(answer, decision))
