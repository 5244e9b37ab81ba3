"""The records that the store takes and returns: plain tuples, without a row's tokens or sealed bytes."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from json.encoder import c_make_encoder, encode_basestring_ascii  # type: ignore[attr-defined]
from typing import Any, NamedTuple

from bento.context import current_caller
from bento.context import request_id as current_request
from finrisk_assets.scoring.spec import Rows


def make_json_encoder(*, allow_nan: bool) -> Callable[[Any], str]:
    """Return a function that encodes a value as compact JSON, byte for byte as `json.JSONEncoder` does.

    `JSONEncoder.encode` prepares its C function at each call, which takes three times as long as a short row. Here it is prepared once.
    """
    encode = c_make_encoder(None, json.JSONEncoder().default, encode_basestring_ascii, None, ":", ",", False, False, allow_nan)
    return lambda value: "".join(encode(value, 0))


encode_json = make_json_encoder(allow_nan=False)
"""Encode a value as compact JSON; raises ValueError for NaN and infinity."""


class Transaction(NamedTuple):
    """A movement of money, with the columns of the ledger's table `transactions`."""

    transaction_id: str
    customer_id: str
    occurred_at: datetime
    amount: float
    direction: str
    merchant: str | None = None
    country: str | None = None
    is_fraud: bool | None = None
    label_known_at: datetime | None = None


class Person(NamedTuple):
    """A person's pseudonymous id and data key."""

    person: str
    key: bytes


class RequestOrigin(NamedTuple):
    """The caller's name and the id of a request: its decision and its audit record carry both."""

    caller: str
    request_id: str

    @classmethod
    def current(cls) -> "RequestOrigin":
        """Return the origin of the current request."""
        return cls(current_caller.get().name, current_request.get())


class AbridgedAnswer(NamedTuple):
    """The part of an abridged record from which its answer is rebuilt: see `bento.decisions.record_tiers`.

    Attributes
    ----------
    margin, probability
        The scores of the row.
    customer_id, account_id, as_of
        Identifiers and time of the feature snapshot that the row was made from, the time in microseconds since 1970, UTC; None where the
        request named no customer.
    digest
        The first 16 bytes of SHA-256 over the answer's bytes, which prove a rebuilt answer.
    """

    margin: float
    probability: float
    customer_id: str | None
    account_id: str | None
    as_of: int | None
    digest: bytes


UNKNOWN_LOSS = -1.0
"""Expected loss of an alert whose score is no probability of fraud: behind all others in the order of losses."""


class NewAlert(NamedTuple):
    """The alert that a decision opens; its expected loss in currency, None where the score is no probability of fraud."""

    expected_loss_amount: float | None


class NewDecision(NamedTuple):
    """A decision that is about to be stored.

    Attributes
    ----------
    id
        The decision's identifier, see `Store.new_id`.
    request, answer
        JSON.
    row
        The model's row, float32 of shape (d,).
    policy_version
        The version of the policy that decided.
    decision_context
        Inputs of the decision beside the row and the request, as JSON values: replay needs them.
    person
        The person concerned; None where the request named no person.
    transaction_id, key
        The identifiers under which the same request gets the same answer; the idempotency key belongs to the caller.
    digest
        Digest of the request as it was sent, where that differs from `request`.
    abridged
        What is stored in place of `answer`; None where the answer is stored.
    origin
        Who sent the request; None: the current caller.
    alert
        The alert that is opened with the decision; None where nobody has to look at it.
    """

    id: str
    domain: str
    route: str
    model_version: str
    request: bytes
    answer: bytes
    row: Rows
    probability: float
    decision: str
    policy_version: str | None = None
    decision_context: Any = None
    person: Person | None = None
    transaction_id: str | None = None
    key: str | None = None
    digest: str | None = None
    abridged: AbridgedAnswer | None = None
    origin: RequestOrigin | None = None
    alert: NewAlert | None = None


class DecisionPayload(NamedTuple):
    """The unsealed content of a stored decision.

    Attributes
    ----------
    request
        Decoded JSON.
    answer
        Decoded JSON; None in an abridged record.
    decision_context
        Inputs of the decision beside the row and the request, decoded JSON.
    row
        The model's row, float32 of shape (d,).
    abridged
        What an abridged record holds in place of the answer; None in a full record.
    """

    request: dict[str, Any]
    answer: dict[str, Any] | None
    decision_context: Any
    row: Rows
    abridged: AbridgedAnswer | None = None


class PriorDecision(NamedTuple):
    """A decision that was made before under an identifier that a request names again.

    Attributes
    ----------
    digest
        Digest of the request that the decision answered.
    body
        The answer; None where the person was erased since, or the record is abridged.
    domain, model_version, policy_version
        The domain, and the versions of the model and the policy that decided.
    payload
        The content of an abridged record; None where the person was erased since, or the record is full.
    """

    id: str
    digest: str
    body: bytes | None
    domain: str = ""
    model_version: str = ""
    policy_version: str | None = None
    payload: DecisionPayload | None = None


class StoredDecision(NamedTuple):
    """A decision as the store holds it.

    Attributes
    ----------
    position
        The order in which decisions were written; independent of the clock.
    decided_at
        Microseconds since 1970, UTC.
    sealed
        The sealed bytes. The output of the decision's audit record is `decisions.bind_row`, its inputs are `digest`.
    transaction_token, idempotency
        The tokens under which the same request gets the same answer.
    content
        The unsealed payload; None where the person was erased or the bytes were changed.
    erased
        Whether the person was erased.
    """

    position: int
    id: str
    person: str | None
    domain: str
    route: str
    model_version: str
    policy_version: str | None
    caller: str
    request_id: str
    transaction_token: str | None
    idempotency: str | None
    digest: str
    decided_at: int
    probability: float | None
    decision: str | None
    sealed: bytes
    content: DecisionPayload | None
    erased: bool


class FeatureSnapshot(NamedTuple):
    """The newest features and batch score of a customer, or of one account of a customer, in one domain.

    Attributes
    ----------
    domain, subject
        The domain, and the key of the row in its tables: ``5@2024-06``.
    account_id
        None where the domain decides on the customer as a whole.
    as_of
        The decision's moment; None where the source knows no time.
    features
        Values known at that moment, by name: the features, and the numbers beside them (a PD, an income).
    score
        The columns of the batch score by name: ``score``, ``probability``, ``decision``, ``model_version`` and the domain's own.
    """

    domain: str
    subject: str
    customer_id: str
    account_id: str | None
    as_of: datetime | None
    features: Mapping[str, float | None]
    score: Mapping[str, Any]


class ShadowScore(NamedTuple):
    """The champion's answer to one request, and the challenger's answer to the same request.

    Attributes
    ----------
    domain, subject
        The domain, and the key of the row in its tables; None where the request named no person.
    scored_at
        The moment of the answer.
    challenger_probability, challenger_decision
        None where the challenger failed.
    failure
        The type of the challenger's failure.
    customer_id
        The customer concerned; not read back.
    """

    domain: str
    subject: str | None
    scored_at: datetime
    champion_version: str
    champion_probability: float
    champion_decision: str
    challenger_version: str
    challenger_probability: float | None
    challenger_decision: str | None
    failure: str | None
    customer_id: str | None = None
