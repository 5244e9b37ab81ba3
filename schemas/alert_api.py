"""The requests and answers of the routes on alerts; the rules of `schemas.api` hold here too."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.api import LONGEST_IDENTIFIER, Answer, Error, Request, Utc

AlertId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="The alert, named as its decision.")]
AlertVersion = Annotated[int, Field(ge=1, lt=2**53, description="The version of the alert that the caller has seen.")]
AlertState = Literal["open", "claimed", "closed"]
Disposition = Literal["fraud", "genuine", "undetermined"]
Why = Annotated[
    str, Field(min_length=3, max_length=2_000, pattern=r"\S", description="The reason, in words. Stored encrypted; no model reads it.")
]

MOST_ALERTS = 100
"""Alerts in one page, or closed by one request, at most."""
_EXAMPLE_ID = "0005fe6c2a1b3c9f00112233445566aa"


class AlertQuery(BaseModel):
    """The filters and the order of a page of alerts."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)

    state: AlertState = Field("open", description="`open` where nobody has claimed it, `claimed`, or `closed`.")
    assignee: Annotated[str, Field(max_length=LONGEST_IDENTIFIER)] | None = Field(
        None, description="Caller who has claimed or closed it; `me` is the caller of this request.", examples=["me"]
    )
    decision: Literal["review", "block"] | None = Field(None, description="The decision that opened it.")
    min_expected_loss_amount: Annotated[float, Field(ge=0, le=1e15)] | None = Field(
        None, description="Smallest expected loss, in currency."
    )
    order: Literal["expected_loss", "newest"] = Field("expected_loss", description="The largest expected loss first, or the newest.")
    cursor: Annotated[str, Field(pattern=r"^-?[0-9]{1,18}(\.[0-9]{1,20})?(e[+-][0-9]{1,3})?_[0-9]{1,18}$")] | None = Field(
        None, description="`next` of the page before, with the same filters and order."
    )
    limit: Annotated[int, Field(ge=1, le=MOST_ALERTS)] = Field(50, description="Largest number of alerts of a page.")


class Alert(Answer):
    """A reviewed or blocked transaction that waits for a person, or was closed by one. It names nobody."""

    alert_id: str = Field(description="Identifier of the alert and of its decision.")
    decision: str = Field(examples=["review", "block"])
    expected_loss_amount: float | None = Field(description="As the decision's answer has it; null where the score is no probability.")
    opened_at: Utc
    state: AlertState
    version: int = Field(description="Grows with each change; a claim, a release and a disposition name it.")
    assignee: str | None = Field(description="The caller who claimed or closed it.", examples=["key:4f2a"])
    claimed_at: Utc | None
    disposition: Disposition | None
    closed_at: Utc | None


class AlertPage(Answer):
    """A page of alerts."""

    alerts: list[Alert]
    next: str | None = Field(description="The `cursor` of the next page; null on the last page.")


class ClaimRequest(Request):
    """The claim of an alert."""

    alert_id: AlertId
    version: AlertVersion

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {"Claim an alert": {"alert_id": _EXAMPLE_ID, "version": 1}}


class ReleaseRequest(Request):
    """The end of a claim."""

    alert_id: AlertId
    version: AlertVersion

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {"Release an alert": {"alert_id": _EXAMPLE_ID, "version": 2}}


class DispositionRequest(Request):
    """The end of an alert."""

    alert_id: AlertId
    version: AlertVersion
    disposition: Disposition = Field(description="`fraud` and `genuine` label the decision, as feedback does; `undetermined` does not.")
    reason: Why

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "It was fraud": {"alert_id": _EXAMPLE_ID, "version": 2, "disposition": "fraud", "reason": "The customer did not make it."},
    }


class SeenAlert(Request):
    """An alert and the version of it that the caller has seen."""

    alert_id: AlertId
    version: AlertVersion


class BulkDispositionRequest(Request):
    """The end of many alerts, with one disposition and reason."""

    alerts: list[SeenAlert] = Field(min_length=1, max_length=MOST_ALERTS, description="Each is closed or refused on its own.")
    disposition: Disposition = Field(description="As of a single disposition.")
    reason: Why

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "A campaign of a known merchant": {
            "alerts": [{"alert_id": _EXAMPLE_ID, "version": 1}], "disposition": "genuine", "reason": "The merchant's sale, confirmed.",
        },
    }  # fmt: skip


class DispositionResult(Answer):
    """The result for one alert: the closed alert or the error."""

    status: int = Field(description="The HTTP status of the alert as a single request.", examples=[200])
    alert: Alert | None = Field(description="Null where there is an error.")
    error: Error | None = Field(description="Null where the alert is closed.")


class BulkDispositionAnswer(Answer):
    """The results, one for each alert, in the same order."""

    results: list[DispositionResult]


class RelatedDecision(Answer):
    """Another decision of the same person or at the same merchant. It names nobody."""

    decision_id: str
    domain: str
    decided_at: Utc
    probability: float | None
    decision: str | None
    occurred_at: Utc | None = Field(description="Time of the transaction; null for another domain.")
    amount: float | None
    is_fraud: bool | None = Field(description="The label, where one is known.")
    alert_state: AlertState | None = Field(description="State of its alert; null where it opened none.")
    disposition: Disposition | None


class AlertDetails(Answer):
    """An alert with its decision and related decisions."""

    alert: Alert
    reason: str | None = Field(description="The reason of the disposition.")
    request: dict[str, Any] = Field(description="The transaction as it was sent.")
    answer: dict[str, Any] = Field(description="The answer as it was sent, with reasons and rules.")
    same_person: list[RelatedDecision] = Field(description="The newest of the person, of all domains; at most 20.")
    same_merchant: list[RelatedDecision] = Field(description="The newest at the merchant within the 90 days before and later; at most 20.")
