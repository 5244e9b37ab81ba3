"""What every domain's answer has in common: from a request or the store to the model's row, and from a score to the API's words."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from bento.context import span
from bento.decisions import units
from bento.problems import Problem, invalid, log_failure
from bento.store.session import FeatureSnapshot, Store, StoreUnavailable
from finrisk_assets.scoring.bundle import Bundle, Scores
from finrisk_assets.scoring.reasons import reasons
from finrisk_assets.scoring.spec import Rows
from schemas.api import Explanation, FieldError, ModelVersion, Reason, Request

_SAID: Mapping[str, tuple[str, str]] = {
    "transaction_anomaly": ("risk_score", "decision"),
    "loan_default": ("pd", "decision"),
    "spending_risk": ("risk_probability", "risk_level"),
    "spending_risk_eight": ("risk_probability", "risk_level"),
    "cashflow": ("surplus_probability", "direction"),
    "loan_offers": ("acceptance", "decision"),
}
"""Domain -> the fields of its answer that hold the probability and the decision."""

_MAX_FIELDS = 50
_UNKNOWN_FEATURE = "The model has no such feature; GET /v1/models lists them."
_MISSING_FEATURE = "This feature is required; null says that it is not known."
_LOAD = "`finrisk load-history` puts what the ledger knows of its customers into the service's store."


@dataclass(frozen=True)
class Asked:
    """A request on its way to a score: everything that is looked up or checked before the model is asked.

    Attributes
    ----------
    request
        The request.
    row
        The model's row, float32 of shape (d,).
    standing
        How the customer, or account, that the request names stands; None where it names nobody.
    known
        What else the domain decides with, as JSON can say it: it is kept with the decision.
    decided
        What follows from all of this before the model explains it, where anything does.
    """

    request: Any
    row: Rows
    standing: FeatureSnapshot | None = None
    known: Any = None
    decided: Any = None


def one_of(request: Request, *names: str) -> str:
    """The one of these fields that a request has.

    Raises
    ------
    bento.problems.Problem
        Where it has none of them, or several.
    """
    sent = [name for name in names if getattr(request, name) is not None]
    if len(sent) == 1:
        return sent[0]
    choice = " or ".join(names)
    if not sent:
        raise Problem.of(422, [FieldError(field=name, reason=f"Send {choice}.") for name in names])
    raise Problem.of(422, [FieldError(field=name, reason=f"Send only one of {choice}.") for name in sent[1:]])


def without(request: Request, names: Collection[str], beside: str) -> None:
    """Refuse a request that has one of these fields, which say nothing beside the one named."""
    extra = [name for name in names if getattr(request, name) is not None]
    if extra:
        raise Problem.of(422, [FieldError(field=name, reason=f"It says nothing beside {beside}; leave it out.") for name in extra])


def stored(store: Store, domain: str, *, customer_id: str | None = None, account_id: str | None = None) -> FeatureSnapshot:
    """How a customer or an account stands in a domain.

    Raises
    ------
    bento.problems.Problem
        Where the store does not know them, the customer has several accounts to choose from, or the store cannot be read.
    """
    field = "account_id" if customer_id is None else "customer_id"
    found = read(store, domain=domain, customer_id=customer_id, account_id=account_id)
    if not found:
        raise unknown(field)
    if len(found) > 1:
        raise invalid(field, "This customer has several accounts; send account_id to name one.")
    return found[0]


def read(store: Store, **who: str | None) -> list[FeatureSnapshot]:
    """The standings of a customer or an account; where the store cannot be read, the service is not ready."""
    try:
        return store.find_snapshots(**who)
    except StoreUnavailable as error:
        log_failure(error)
        raise Problem.of(503) from None


def unknown(field: str) -> Problem:
    """The problem of a customer, or an account, that nothing is known of."""
    message = f"The service knows nothing of this {field.removesuffix('_id')} here. {_LOAD}"
    return Problem(404, "unknown_customer", message, [FieldError(field=field, reason="Nothing is stored under this identifier.")])


def stored_row(bundle: Bundle, features: Mapping[str, float | None]) -> Rows:
    """The model's row of stored features, float32 of shape (d,).

    Raises
    ------
    bento.problems.Problem
        Where a feature of the model is not among them: the store was filled before the model was trained.
    """
    try:
        return bundle.row({feature.name: features[feature.name] for feature in bundle.features})
    except KeyError:
        message = f"What is stored of customers is older than the model. {_LOAD}"
        raise Problem(503, "not_ready", message) from None


def sent_row(bundle: Bundle, features: Mapping[str, float | None]) -> Rows:
    """The model's row of the features that a client sent, float32 of shape (d,).

    Raises
    ------
    bento.problems.Problem
        For a feature that the model lacks, one that is missing, or a value that its unit does not allow or the model cannot use.
    """
    names = bundle.columns.keys()
    if names != features.keys():
        wrong = [FieldError(field=f"features.{name[:64]}", reason=_UNKNOWN_FEATURE) for name in features if name not in names]
        wrong += [FieldError(field=f"features.{name}", reason=_MISSING_FEATURE) for name in names if name not in features]
        raise Problem.of(422, wrong[:_MAX_FIELDS])
    row = row_of(bundle, features)
    beyond = units.wrong(bundle, row)
    if beyond:
        raise Problem.of(422, beyond[:_MAX_FIELDS])
    return row


def row_of(bundle: Bundle, values: Mapping[str, float | None], field: str = "features") -> Rows:
    """The model's row of values by name; one that is too large for the model's 32 bits is the client's matter."""
    try:
        return bundle.row(values)
    except ValueError as error:  # the message names the feature, not the value
        raise invalid(field, str(error)) from None


def score(bundle: Bundle, row: Rows) -> Scores:
    """Score one row, float32 of shape (d,).

    Raises
    ------
    bento.problems.Problem
        For a missing value that the model has no answer to: the client's matter. The message names the feature, not a value.
    """
    try:
        with span("score"):
            return bundle.score(row[None, :])
    except ValueError as error:
        raise invalid("", str(error)) from None


def explained(bundle: Bundle, row: Rows, scores: Scores, *, high: bool, refused: bool = False) -> dict[str, Any]:
    """The fields of an answer that every domain has: the score of one row, its explanation, its reasons and the model."""
    return {
        "score": float(scores.margin[0]),
        "explanation": explanation(bundle, row, scores),
        "reasons": reasons_of(bundle, scores, high=high, refused=refused),
        "model": model_version(bundle),
    }


def explanation(bundle: Bundle, row: Rows, scores: Scores) -> Explanation:
    """Every feature's part in the score of one row."""
    contributed, values = scores.contributions[0], row.tolist()
    if not np.isfinite(contributed).all() or not math.isfinite(scores.base):
        raise ValueError(f"{bundle.name} {bundle.version}: a contribution is not a finite number")
    # Not validated by its model: it is made of what was checked, and there are fifty of them.
    contributions: list[Any] = [
        {"feature": feature.name, "unit": feature.unit, "value": None if math.isnan(value) else value, "contribution": contribution}
        for feature, value, contribution in zip(bundle.features, values, contributed.tolist(), strict=True)
    ]
    return Explanation.model_construct(base=scores.base, contributions=contributions)


def reasons_of(bundle: Bundle, scores: Scores, *, high: bool, refused: bool = False) -> list[Reason]:
    """What moved the score of one row most: up where the decision says that the score is high, else down.

    Who is not approved is compared with those just approved, where the bundle knows them, because many of them share what is merely
    usual.
    """
    found = reasons(
        scores.contributions[0],
        bundle.features,
        direction="raises" if high else "lowers",
        reference=bundle.reference if refused else None,
        groups=bundle.factors,
    )
    return [_reason(one.code, one.feature, one.features, one.sentence) for one in found]


@lru_cache(maxsize=1_000)
def _reason(code: str, feature: str, features: tuple[str, ...], text: str) -> Reason:
    """A bundle has few, which all its answers share."""
    return Reason(code=code, feature=feature, features=list(features), text=text)


def said(domain: str, answer: Any) -> tuple[float, str]:
    """The probability and the decision of an answer, whatever its domain calls them."""
    probability, decision = _SAID[domain]
    return float(getattr(answer, probability)), str(getattr(answer, decision))


@lru_cache(maxsize=32)
def model_version(bundle: Bundle) -> ModelVersion:
    return ModelVersion(name=bundle.name, version=bundle.version)
