"""What a client sends to the service and what it gets back. Every request refuses unknown keys, texts for numbers and NaN.

An identifier may be sent as text or as a whole number; it is text everywhere behind this module. A time without an
offset is UTC. No error about these models repeats what was sent.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema


def _text(value: Any) -> Any:
    """An identifier as text; a boolean is a whole number to Python but not to anyone else."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _number(value: Any) -> Any:
    """A yes or no as the 1 or 0 that a model sees."""
    return float(value) if isinstance(value, bool) else value


def _naive_utc(moment: datetime) -> datetime:
    """The moment as the ledger keeps it: UTC without saying so."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


Identifier = Annotated[
    str,
    BeforeValidator(_text),
    Field(min_length=1, max_length=128),
    WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1, "maxLength": 128}, {"type": "integer"}]}),
]
Moment = Annotated[datetime, AfterValidator(_naive_utc)]
FeatureValue = Annotated[float, BeforeValidator(_number)] | None


class Request(BaseModel):
    """A request: what is not declared is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True, frozen=True)


class Answer(BaseModel):
    """A part of an answer: it never carries NaN, which JSON would turn into null."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True, frozen=True)


class TransactionRequest(Request):
    """One movement of money, to be scored as of its own time."""

    user_id: Identifier = Field(description="Whose money moves.", examples=[5])
    amount: float = Field(ge=0, le=1e12, description="Size of the movement, in the ledger's currency.", examples=[412.5])
    timestamp: Moment = Field(
        description="When it happens: ISO 8601, UTC unless an offset is given.", examples=["2018-08-09T14:05:00"]
    )
    merchant: Identifier | None = Field(None, description="The other side: a merchant, terminal or payee.", examples=["3156"])
    country: Identifier | None = Field(None, description="Where it happens, ISO 3166 alpha-2.", examples=["DE"])
    direction: Literal["credit", "debit"] = Field("debit", description="Money in or money out.")
    transaction_id: Identifier | None = Field(
        None, description="Your own identifier. Sent again, it gets the same answer and counts once. Default: a new one."
    )


class LoanRequest(Request):
    """One loan application, described by the features of the loan-default model."""

    features: dict[str, FeatureValue] = Field(
        max_length=1000,
        description="A value for every feature that `GET /v1/models` lists for `loan_default`; null says that it is not known.",
    )
    loan_id: Identifier | None = Field(None, description="Your own identifier, returned with the answer.", examples=["4959"])


class ModelVersion(Answer):
    """Which model answered."""

    name: str = Field(description="Registered name of the model.", examples=["finrisk-loan-default"])
    version: str = Field(description="Content hash of its scoring bundle.")


class Contribution(Answer):
    """What one feature added to the score."""

    feature: str
    unit: str = Field(description="Unit of the value.")
    value: float | None = Field(description="The value that the model saw; null where it was not known.")
    contribution: float = Field(description="Added to the score, in its own unit; above zero it raised the risk.")


class Explanation(Answer):
    """SHAP values of one score: `base` plus all contributions is the score."""

    base: float = Field(description="The score of nobody in particular.")
    contributions: list[Contribution] = Field(description="Every feature of the model, in the model's order.")


class Reason(Answer):
    """One factor that moved this decision, in words."""

    code: str = Field(description="Stable name of the factor.", examples=["AMOUNT_TO_MEAN_30D"])
    feature: str
    text: str


class TransactionAnswer(Answer):
    """How unusual, or how risky, a transaction is."""

    transaction_id: str
    score: float = Field(description="The model's margin: what the contributions sum to.")
    risk_score: float = Field(
        ge=0, le=1, description="Calibrated probability of fraud; where there are no labels, how easily it is isolated."
    )
    anomaly: bool = Field(description="Whether the risk score reaches the threshold.")
    decision: str
    explanation: Explanation
    reasons: list[Reason] = Field(max_length=4)
    model: ModelVersion


class LoanAnswer(Answer):
    """How likely a loan is to default, and what follows."""

    loan_id: str | None
    pd: float = Field(ge=0, le=1, description="Calibrated probability of default.")
    decision: str
    grade: str | None = Field(description="Grade of the probability, where the model has grades.")
    score: float = Field(description="The model's margin: what the contributions sum to.")
    explanation: Explanation
    reasons: list[Reason] = Field(max_length=4)
    model: ModelVersion


class FeatureDescription(Answer):
    """One input of a model."""

    name: str
    unit: str
    description: str


class ModelDescription(Answer):
    """One model that the service carries."""

    domain: str
    name: str
    version: str
    source: str = Field(description="The source of the ledger that it was trained on.")
    features: list[FeatureDescription]


class ModelList(Answer):
    """The models that the service carries, and why others are missing."""

    models: list[ModelDescription]
    absent: dict[str, str] = Field(description="Domain to the reason why the service has no model for it.")


class FieldError(Answer):
    """What is wrong with one field of a request."""

    field: str = Field(description="Path of the field; empty for the body as a whole.", examples=["features.age"])
    reason: str


class Error(Answer):
    """What went wrong, for a program (`code`) and for a person (`message`)."""

    code: str = Field(examples=["invalid_request"])
    message: str
    fields: list[FieldError]
    request_id: str = Field(description="Also in the header `X-Request-ID`; quote it when you ask about an answer.")


class ErrorEnvelope(Answer):
    """The one shape of every failure."""

    error: Error
