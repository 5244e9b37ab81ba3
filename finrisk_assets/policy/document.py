"""The content of a decision policy: costs, limits, thresholds and capacities that a bank sets, apart from every model.

Pydantic models, one per section of the file; `default_policy.yaml` explains each key. Reading a file belongs to `policy_file`, the rules on
transactions to `payment_rules`.
"""

import hashlib
import json
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from finrisk_assets.policy.payment_rules import Amount, PaymentRules, PolicySection

Share = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(ge=0, le=1000, description="per cent a year")]


class Terms(PolicySection):
    """The terms of a loan, for products whose loans state none."""

    loan_amount: float = Field(gt=0, allow_inf_nan=False)
    annual_rate_pct: Rate
    term_months: int = Field(ge=1, le=600)


class Lending(PolicySection):
    """The costs and limits of lending, which loan default and loan offers share.

    Rates are in per cent a year, amounts in the ledger's currency, everything else is a share.
    """

    lgd: Share
    funding_rate_pct: Rate
    discount_rate_pct: Rate
    loan_cost_amount: Amount
    monthly_cost_amount: Amount
    prepayment_pct: float = Field(ge=0, lt=100)
    hazard_weights: tuple[Annotated[float, Field(gt=0)], ...]
    min_margin_pct: float = Field(gt=-100, lt=100)
    max_pd: Share
    max_instalment_to_income: float = Field(gt=0, le=10)
    rate_cap_pct: Rate
    assumed_terms: Terms

    @model_validator(mode="after")
    def _first_year(self) -> Self:
        if self.hazard_weights and len(self.hazard_weights) < 12:
            raise ValueError("hazard_weights has fewer than 12 months: give one number for each of the first 12 months, or an empty list")
        return self


class LoanReview(PolicySection):
    """A person's review of an application: its cost, the share of the bad that it finds, of the good that it turns away."""

    cost_amount: Amount
    finds_share: Share
    errs_share: Share


class RatingGrade(PolicySection):
    """A rating grade, and the PD below which it lies."""

    name: str = Field(min_length=1, max_length=8)
    below: Share


class LoanDefaultPolicy(PolicySection):
    """The policy of applications for a loan."""

    review: LoanReview
    unaffordable: Literal["refer", "refuse"]
    income_unknown: Literal["refer", "refuse"]
    grades: tuple[RatingGrade, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if any(low.below >= high.below for low, high in pairwise(self.grades)) or self.grades[-1].below != 1:
            raise ValueError("grades must be in order of `below`, each above the one before, and the last at 1")
        if len({grade.name for grade in self.grades}) < len(self.grades):
            raise ValueError("grades has a name twice: name each grade once")
        return self


class OfferGrid(PolicySection):
    """The terms that offers are looked for among; an empty list takes the terms that the acceptance model learned from."""

    rates_pct: tuple[Rate, ...]
    amounts_in_incomes: tuple[Annotated[float, Field(gt=0, le=1000)], ...]
    terms_months: tuple[Annotated[int, Field(ge=1, le=600)], ...]

    @model_validator(mode="after")
    def _each_ascending(self) -> Self:
        for name, values in (
            ("rates_pct", self.rates_pct),
            ("amounts_in_incomes", self.amounts_in_incomes),
            ("terms_months", self.terms_months),
        ):
            if any(low >= high for low, high in pairwise(values)):
                raise ValueError(f"{name} must ascend: sort it, and name each value once")
        return self


class LoanOffersPolicy(PolicySection):
    """The policy of pre-approved offers."""

    offer_cost_amount: Amount
    grid: OfferGrid
    offers_to_high_spending_risk: bool


class SpendingRiskPolicy(PolicySection):
    """The levels of spending risk."""

    medium_from: Probability
    high_from: Probability

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.medium_from >= self.high_from:
            raise ValueError(f"medium_from {self.medium_from} is not below high_from {self.high_from}: set MEDIUM below HIGH")
        return self


class CashflowPolicy(PolicySection):
    """The direction of an account."""

    surplus_from: Probability


class TransactionAnomalyPolicy(PolicySection):
    """The review and blocking of transactions."""

    contamination: Probability
    reviews_per_day: int = Field(ge=1)
    review_cost_amount: Amount
    review_finds_share: float = Field(gt=0, le=1)
    block_cost_amount: Amount
    block_precision: Probability
    rules: PaymentRules = ()


class AcceptedFigure(PolicySection):
    """A fairness figure beyond its bound that a named person accepts, and why."""

    domain: str = Field(min_length=1)
    figure: str = Field(min_length=1)
    who: str = Field(min_length=1)
    why: str = Field(min_length=1)


class FairnessPolicy(PolicySection):
    """The bounds of the fairness figures, and the figures beyond them that are accepted."""

    impact_ratio: Share
    opportunity_gap: Share
    calibration_gap: Share
    accepted: tuple[AcceptedFigure, ...]


class TooLittleKnown(PolicySection):
    """The handling of a decision on too little information."""

    max_missing_share: Share
    outside_training: Literal["refer", "decide"]


class Policy(PolicySection):
    """A whole decision policy."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")
    lending: Lending
    loan_default: LoanDefaultPolicy
    loan_offers: LoanOffersPolicy
    spending_risk: SpendingRiskPolicy
    cashflow: CashflowPolicy
    transaction_anomaly: TransactionAnomalyPolicy
    fairness: FairnessPolicy
    too_little_known: TooLittleKnown

    @property
    def sha256(self) -> str:
        """The hash of the content, 64 hex digits: comments, spelling of numbers and order of keys do not change it."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    @property
    def version(self) -> str:
        """The first 12 hex digits of `sha256`, which stand in every decision."""
        return self.sha256[:12]

    def canonical_json(self) -> str:
        """Return the content as JSON whose bytes depend on the values alone; an empty list of rules is as none."""
        content = self.model_dump(mode="json")
        if not content["transaction_anomaly"]["rules"]:
            del content["transaction_anomaly"]["rules"]
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)

    def flatten(self) -> dict[str, Any]:
        """Return every value by its dotted key, in the order of the sections."""
        return dict(_flatten("", self.model_dump(mode="json")))


def _flatten(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _flatten(f"{prefix}.{key}" if prefix else key, inner)]
    return [(prefix, value)]
