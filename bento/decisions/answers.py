"""The common steps of every domain: from a request or the store to the model's row, and from the row to its scores."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from bento.context import span
from bento.decisions import units
from bento.problems import LOAD_HINT, Problem, invalid_field, unknown_subject
from bento.store.records import FeatureSnapshot, Transaction
from bento.store.session import Store, map_store_faults
from finrisk_assets.scoring.bundle import Bundle, Scores
from finrisk_assets.scoring.spec import Rows
from schemas.api import FieldError, Request

_MAX_FEATURE_ERRORS = 50
_UNKNOWN_FEATURE = "The model has no such feature; GET /v1/models lists them."
_NEVER_MISSING = "The model never learned without this value: send a {}."
_NO_NUMBER = "Must be a number."
_MISSING_FEATURE = "This feature is required; null says that it is not known."


class ScoringInput(NamedTuple):
    """A request with everything that is looked up or checked before the model scores it.

    Attributes
    ----------
    request
        The request.
    row
        The model's row, float32 of shape (d,).
    snapshot
        The feature snapshot of the customer, or account, that the request names; None where it names no customer.
    decision_context
        Inputs of the decision beside the row and the request, as JSON values: recorded with the decision for replay.
    pricing
        The domain's decision, where it precedes the scoring of the row: the priced offers of `loan_offers`.
    transaction
        The transaction that is added to the history with the decision; None in the other domains.
    """

    request: Any
    row: Rows
    snapshot: FeatureSnapshot | None = None
    decision_context: Any = None
    pricing: Any = None
    transaction: Transaction | None = None


def exactly_one_of(request: Request, *names: str) -> str:
    """Return the name of the one field of these that a request has.

    Raises
    ------
    bento.problems.Problem
        Where the request has none of them, or several.
    """
    present = [name for name in names if getattr(request, name) is not None]
    if len(present) == 1:
        return present[0]
    choice = " or ".join(names)
    if not present:
        raise Problem.from_status(422, [FieldError(field=name, reason=f"Send {choice}.") for name in names])
    raise Problem.from_status(422, [FieldError(field=name, reason=f"Send only one of {choice}.") for name in present[1:]])


def reject_fields(request: Request, names: Collection[str], present: str) -> None:
    """Refuse a request that has one of these fields, which have no meaning beside the field `present`.

    Raises
    ------
    bento.problems.Problem
        422 with each such field.
    """
    extra = [name for name in names if getattr(request, name) is not None]
    if extra:
        raise Problem.from_status(
            422, [FieldError(field=name, reason=f"It says nothing beside {present}; leave it out.") for name in extra]
        )


def load_snapshot(store: Store, domain: str, *, customer_id: str | None = None, account_id: str | None = None) -> FeatureSnapshot:
    """Return the feature snapshot of a customer or an account in a domain.

    Raises
    ------
    bento.problems.Problem
        Where the store does not know the identifier, the customer has several accounts, or the store cannot be read.
    """
    field = "account_id" if customer_id is None else "customer_id"
    snapshots = find_snapshots(store, domain=domain, customer_id=customer_id, account_id=account_id)
    if not snapshots:
        raise unknown_subject(field)
    if len(snapshots) > 1:
        raise invalid_field(field, "This customer has several accounts; send account_id to name one.")
    return snapshots[0]


def find_snapshots(store: Store, **identifiers: str | None) -> list[FeatureSnapshot]:
    """Return the feature snapshots of a customer or an account.

    Raises
    ------
    bento.problems.Problem
        503 where the store cannot be read.
    """
    with map_store_faults():
        return store.find_snapshots(**identifiers)


def row_from_snapshot(bundle: Bundle, features: Mapping[str, float | str | None]) -> Rows:
    """Return the model's row of stored features, float32 of shape (d,).

    Raises
    ------
    bento.problems.Problem
        503 where a feature of the model is not among them: the store was filled before the model was trained.
    """
    try:
        return bundle.row({feature.name: features[feature.name] for feature in bundle.features})
    except KeyError:
        message = f"The stored customer features are older than the model. {LOAD_HINT}"
        raise Problem(503, "not_ready", message) from None


def row_from_request(bundle: Bundle, features: Mapping[str, float | str | None], computed: Collection[str] = ()) -> Rows:
    """Return the model's row of the features that a client sent, float32 of shape (d,).

    Parameters
    ----------
    computed
        Features that the service computes later, so that they may be null here.

    Raises
    ------
    bento.problems.Problem
        For a feature that the model lacks, one that is missing, null where training always saw a value, or a value that its unit does
        not allow or the model cannot use.
    """
    names = bundle.columns.keys()
    if names != features.keys():
        wrong = [FieldError(field=f"features.{name[:64]}", reason=_UNKNOWN_FEATURE) for name in features if name not in names]
        wrong += [FieldError(field=f"features.{name}", reason=_MISSING_FEATURE) for name in names if name not in features]
        raise Problem.from_status(422, wrong[:_MAX_FEATURE_ERRORS])
    row = row_of(bundle, with_missing_codes(bundle, _read_levels(bundle, features)))
    unknown = bundle.training_range.find_unknown(row[None, :])[0]
    wrong = [
        FieldError(field=f"features.{feature.name}", reason=_NEVER_MISSING.format("text" if feature.is_category else "number"))
        for feature, is_unknown in zip(bundle.features, unknown.tolist(), strict=True)
        if is_unknown and feature.name not in computed
    ]
    if wrong:
        raise Problem.from_status(422, wrong[:_MAX_FEATURE_ERRORS])
    out_of_bounds = units.find_out_of_bounds(bundle, row)
    if out_of_bounds:
        raise Problem.from_status(422, out_of_bounds[:_MAX_FEATURE_ERRORS])
    return row


def _read_levels(bundle: Bundle, features: Mapping[str, float | str | None]) -> Mapping[str, float | str | None]:
    """Return the features with each number of a category as text, and a blank text as null: the level 31 may be sent as a number.

    Raises
    ------
    bento.problems.Problem
        For a text where the model reads a number.
    """
    categories = {feature.name for feature in bundle.features if feature.is_category}
    texts = {name for name, value in features.items() if isinstance(value, str)}
    if texts - categories:
        wrong = [FieldError(field=f"features.{name}", reason=_NO_NUMBER) for name in features if name in texts - categories]
        raise Problem.from_status(422, wrong[:_MAX_FEATURE_ERRORS])
    sent = {name: features[name] for name in categories}
    read = {name: f"{value:.15g}" if isinstance(value, float) else value or None for name, value in sent.items()}
    return {**features, **read} if read else features


def with_missing_codes(bundle: Bundle, features: Mapping[str, float | str | None]) -> Mapping[str, float | str | None]:
    """Return the features with null in place of the codes that mean that there is no value."""
    codes = {feature.name: feature.missing_codes for feature in bundle.features if feature.missing_codes}
    return dict(features) | {name: None for name, of_feature in codes.items() if features.get(name) in of_feature} if codes else features


def row_of(bundle: Bundle, values: Mapping[str, float | str | None], field: str = "features") -> Rows:
    """Return the model's row of values by name.

    Raises
    ------
    bento.problems.Problem
        422 for a value too large for the model's 32 bits.
    """
    try:
        return bundle.row(values)
    except ValueError as error:  # the message names the feature, not the value
        raise invalid_field(field, str(error)) from None


def score(bundle: Bundle, row: Rows) -> Scores:
    """Score one row, float32 of shape (d,).

    Raises
    ------
    bento.problems.Problem
        422 for a missing value that the model cannot score. The message names the feature, not a value.
    """
    try:
        with span("score"):
            return bundle.score(row[None, :])
    except ValueError as error:
        raise invalid_field("", str(error)) from None


def split_scores(scores: Scores) -> list[Scores]:
    """Return the scores of each row of many."""
    margin, probability, base, contributions, doubts = scores
    each_row = (slice(at, at + 1) for at in range(len(margin)))
    return [Scores(margin[row], probability[row], base, contributions[row], doubts[row]) for row in each_row]
