"""What a client sends to the service and what it gets back. Every request refuses unknown keys, texts for numbers and NaN.

An identifier may be sent as text or as a whole number; it is text everywhere behind this module. A time without an
offset is UTC. No error about these models repeats what was sent. Whether fields can be true together is the handlers' matter.

Each request has examples. Where one says `features`, the document fills in those of the model that answers.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SkipValidation,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12


def _text(value: Any) -> Any:
    """An identifier as text; a boolean is a whole number to Python but not to anyone else."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _number(value: Any) -> Any:
    """A yes or no as the 1 or 0 that a model sees."""
    return float(value) if isinstance(value, bool) else value


FIRST_MOMENT, LAST_MOMENT = datetime(1970, 1, 1), datetime(2100, 1, 1)
"""A time outside of these is a mistake: a date in another calendar, a number of milliseconds read as one of seconds."""


def _written_out(value: Any) -> Any:
    """A time that is written out; Pydantic would take digits alone for seconds or milliseconds, by their number."""
    if not isinstance(value, str):
        return value
    try:
        if len(value) <= len("2024-05-06"):
            raise ValueError("a date alone")
        return datetime.fromisoformat(value)
    except ValueError:
        raise PydanticCustomError("not_written_out", "Must be a time as ISO 8601 writes it, such as 2024-05-06T12:00:00.") from None


def _naive_utc(moment: datetime) -> datetime:
    """The moment as the ledger keeps it: UTC without saying so."""
    near = FIRST_MOMENT <= moment.replace(tzinfo=None) < LAST_MOMENT
    if not near:  # before the offset is taken off, which fails at the ends of the calendar
        raise PydanticCustomError("far_away", "Must be a time from 1970 to 2099.")
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


LONGEST_IDENTIFIER = 128
Identifier = Annotated[
    str,
    BeforeValidator(_text),
    Field(min_length=1, max_length=LONGEST_IDENTIFIER),
    WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1, "maxLength": LONGEST_IDENTIFIER}, {"type": "integer"}]}),
]
Moment = Annotated[datetime, BeforeValidator(_written_out), AfterValidator(_naive_utc)]

Utc = Annotated[datetime, AfterValidator(lambda moment: moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment)]
"""A moment of an answer, which says its offset: as RFC 3339 wants it, and the document promises."""
FeatureValue = Annotated[float, BeforeValidator(_number)] | None
LARGEST_AMOUNT = 1e12
Amount = Annotated[float, Field(gt=0, le=LARGEST_AMOUNT)]
Months = Annotated[int, Field(ge=1, le=600)]
Probability = Annotated[float, Field(ge=0, le=1)]
Features = Annotated[dict[str, FeatureValue], Field(max_length=1000)]


class Request(BaseModel):
    """A request: what is not declared is refused."""

    examples: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Bodies that are answered, by what they show."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True, frozen=True)


class Answer(BaseModel):
    """A part of an answer: it never carries NaN, which JSON would turn into null."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True, frozen=True)


class TransactionRequest(Request):
    """One movement of money, to be scored as of its own time."""

    user_id: Identifier = Field(description="Whose money moves.", examples=[5])
    amount: float = Field(ge=0, le=1e12, description="Size of the movement, in the ledger's currency.", examples=[412.5])
    timestamp: Moment = Field(description="When it happens: ISO 8601, UTC unless an offset is given.", examples=["2018-08-09T14:05:00"])
    merchant: Identifier | None = Field(None, description="The other side: a merchant, terminal or payee.", examples=["3156"])
    country: Identifier | None = Field(None, description="Where it happens, ISO 3166 alpha-2.", examples=["DE"])
    direction: Literal["credit", "debit"] = Field("debit", description="Money in or money out.")
    transaction_id: Identifier | None = Field(
        None, description="Your own identifier. Sent again, it gets the same answer and counts once. Default: a new one."
    )

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "A large payment abroad": {
            "user_id": 101,
            "amount": 98000,
            "merchant": "CryptoX",
            "country": "SG",
            "timestamp": "2024-11-21T10:16:30",
        },
        "Money comes in": {"user_id": "5", "amount": 2400.5, "direction": "credit", "timestamp": "2024-11-21T08:00:00+01:00"},
    }


class LoanRequest(Request):
    """One loan application: the features of the loan-default model, or a customer the ledger knows and the loan asked for."""

    features: Features | None = Field(
        None, description="A value for every feature that `GET /v1/models` lists for `loan_default`; null says that it is not known."
    )
    loan_id: Identifier | None = Field(None, description="Your own identifier, returned with the answer.", examples=["4959"])
    customer_id: Identifier | None = Field(None, description="Who asks; instead of `features`.", examples=[123])
    loan_amount: Amount | None = Field(None, description="Asked for, with `customer_id`, in the ledger's currency.", examples=[50000])
    term_months: Months | None = Field(None, description="Months to repay, with `customer_id`. Default: the source's typical term.")
    annual_rate_pct: Annotated[float, Field(ge=0, le=100)] | None = Field(
        None, description="Nominal yearly rate, with `customer_id`. Default: the source's typical rate."
    )

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "A customer of the ledger asks for a loan": {"customer_id": 123, "loan_amount": 50000},
        "The same customer, smaller and longer": {"customer_id": "123", "loan_amount": 8000, "term_months": 60, "annual_rate_pct": 9.5},
        "An application by its features": {"loan_id": "4959", "features": {}},
    }


class NearestChangeRequest(LoanRequest):
    """One loan application, as for `POST /v1/loan-default`, and what is to be reached."""

    goal: Literal["approve", "refer"] = Field("approve", description="`refer`: that a person looks at it, where it would be refused.")

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "What would get this loan approved": {"customer_id": 123, "loan_amount": 50000},
        "What would get it looked at": {"customer_id": 123, "loan_amount": 50000, "goal": "refer"},
        "An application by its features": {"loan_id": "4959", "features": {}},
    }


def _behaviour(name: str, description: str) -> Any:
    """One of the eight behaviour fields, under its name or the same in small letters."""
    return Field(None, validation_alias=AliasChoices(name, name.lower()), description=description)


Behaviour = Annotated[float, Field(ge=0, le=LARGEST_AMOUNT)] | None


class SpendingRequest(Request):
    """The eight behaviour fields of the last 90 days, all of them, in this spelling or in small letters; or a customer of the ledger."""

    customer_id: Identifier | None = Field(None, description="A customer the ledger knows; instead of the eight fields.", examples=[123])
    total_income: Behaviour = _behaviour("Total_Income", "All credits but opening balances, in currency.")
    total_expense: Behaviour = _behaviour("Total_Expense", "All debits, in currency.")
    num_transactions: Behaviour = _behaviour("Num_Transactions", "Number of all movements, credits and debits.")
    avg_expense: Behaviour = _behaviour("Avg_Expense", "Mean of the debits, in currency.")
    max_expense: Behaviour = _behaviour("Max_Expense", "Largest debit, in currency.")
    low_balance_freq: Behaviour = _behaviour(
        "Low_Balance_Freq", "Number of movements that left less than a tenth of a mean month's income."
    )
    expense_income_ratio: Behaviour = _behaviour(
        "Expense_Income_Ratio", "Total_Expense / Total_Income, to within 2 percent; without income 10 where anything was spent, else 0."
    )
    top_category_spend: Behaviour = _behaviour("Top_Category_Spend", "Largest sum of debits in one category, in currency.")
    _spelling: dict[str, str] = PrivateAttr(default_factory=dict)

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "Eight fields": {
            "Total_Income": 60000,
            "Total_Expense": 42000,
            "Num_Transactions": 120,
            "Avg_Expense": 350,
            "Max_Expense": 2500,
            "Low_Balance_Freq": 3,
            "Expense_Income_Ratio": 0.7,
            "Top_Category_Spend": 15000,
        },
        "Eight fields in small letters, spending above income": {
            "total_income": 6200.5,
            "total_expense": 7440.6,
            "num_transactions": 96,
            "avg_expense": 82.67,
            "max_expense": 1250,
            "low_balance_freq": 31,
            "expense_income_ratio": 1.2,
            "top_category_spend": 3750,
        },
        "A customer of the ledger": {"customer_id": 123},
    }

    @classmethod
    def behaviour_fields(cls) -> dict[str, str]:
        """The eight fields: attribute -> the model's name."""
        aliased = {name: field.validation_alias for name, field in cls.model_fields.items()}
        return {name: str(alias.choices[0]) for name, alias in aliased.items() if isinstance(alias, AliasChoices)}

    def behaviour(self) -> dict[str, float | None]:
        """The eight fields by the model's names; None where one was not sent."""
        return {name: getattr(self, attribute) for attribute, name in self.behaviour_fields().items()}

    def as_sent(self, name: str) -> str:
        """How the client spelt one of the eight fields; the model's name where it was not sent."""
        return self._spelling.get(name, name)

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_spelling(cls, body: Any, handler: ModelWrapValidatorHandler["SpendingRequest"]) -> "SpendingRequest":
        sent = body if isinstance(body, dict) else {}
        twice = [name for name, other in cls.behaviour_fields().items() if name in sent and other in sent]
        if twice:
            error = PydanticCustomError("sent_twice", "The same field was sent in another spelling too.")
            # A line of an error carries its input, which nobody is to see again: None stands for it.
            raise ValidationError.from_exception_data(
                cls.__name__, [InitErrorDetails(type=error, loc=(name,), input=None) for name in twice], hide_input=True
            )
        request = handler(body)
        request._spelling = {name: key for key, name in cls.behaviour_fields().items() if key in sent}
        return request


class CashflowRequest(Request):
    """Whose next month is asked about: a customer or an account that the ledger knows, or the features of the cashflow model."""

    customer_id: Identifier | None = Field(None, description="A customer with one account.", examples=[123])
    account_id: Identifier | None = Field(None, description="An account.", examples=["A123"])
    features: Features | None = Field(
        None, description="A value for every feature that `GET /v1/models` lists for `cashflow`; null says that it is not known."
    )

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "A customer of the ledger": {"customer_id": 123},
        "An account of the ledger": {"account_id": "A123"},
        "An account by its features": {"features": {}},
    }


class OfferRequest(Request):
    """Who is to be offered a loan: a customer that the ledger knows, or the features of the loan-offers model, PD and income."""

    customer_id: Identifier | None = Field(None, description="A customer the ledger knows.", examples=[123])
    features: Features | None = Field(
        None,
        description="Instead of `customer_id`: a value for every feature that `GET /v1/models` lists for `loan_offers`; null says that it "
        "is not known. Those that follow from the terms are computed anew for every offer considered.",
    )
    pd: Probability | None = Field(
        None, description="Probability of default. Default: the customer's own, where one is stored.", examples=[0.04]
    )
    monthly_income_amount: Amount | None = Field(None, description="Monthly income in currency, with `features`.", examples=[2800])
    loan_amount: Amount | None = Field(None, description="Consider this amount only.", examples=[5000])
    term_months: Months | None = Field(None, description="Consider this term only.", examples=[24])

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "A customer of the ledger": {"customer_id": 123},
        "A customer, one amount and term, another PD": {"customer_id": 123, "loan_amount": 5000, "term_months": 24, "pd": 0.04},
        "Somebody by features, PD and income": {"features": {}, "pd": 0.03, "monthly_income_amount": 2800},
        "Nobody is offered a loan at this PD": {"customer_id": 123, "pd": 0.9},
    }


MOST_ITEMS, MOST_TRANSACTIONS = 1_000, 250
"""Requests in one batch, at most. Transactions take longer: each reads the history that the one before it has become part of."""
Item = TypeVar("Item")
# Each item is checked by itself, so that one that is wrong does not refuse the others.
_BY_ITSELF = "Each is answered, or refused, by itself."
Items = Annotated[list[SkipValidation[Item]], Field(min_length=1, max_length=MOST_ITEMS, description=_BY_ITSELF)]


class Batch(Request):
    """Many requests of one domain at once; each has its own result, in the same order."""

    kind: ClassVar[type[Request]]
    """What each item is to be."""
    items: list[Any]


def _batch_of(request: type[Request]) -> dict[str, Any]:
    return {"Two at once": {"items": list(request.examples.values())[:2]}}


class TransactionBatch(Batch):
    """Movements of money, scored one after the other: each is part of the history of those behind it."""

    kind: ClassVar[type[Request]] = TransactionRequest
    items: list[SkipValidation[TransactionRequest]] = Field(min_length=1, max_length=MOST_TRANSACTIONS, description=_BY_ITSELF)
    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = _batch_of(TransactionRequest)


class LoanBatch(Batch):
    """Loan applications."""

    kind: ClassVar[type[Request]] = LoanRequest
    items: Items[LoanRequest]
    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = _batch_of(LoanRequest)


class SpendingBatch(Batch):
    """Spending, by eight fields or by customer."""

    kind: ClassVar[type[Request]] = SpendingRequest
    items: Items[SpendingRequest]
    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = _batch_of(SpendingRequest)


class CashflowBatch(Batch):
    """Accounts whose next month is asked about."""

    kind: ClassVar[type[Request]] = CashflowRequest
    items: Items[CashflowRequest]
    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = _batch_of(CashflowRequest)


class OfferBatch(Batch):
    """Customers who are to be offered a loan."""

    kind: ClassVar[type[Request]] = OfferRequest
    items: Items[OfferRequest]
    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = _batch_of(OfferRequest)


class FeedbackRequest(Request):
    """What became known of a decision: by its `decision_id`, or of a transaction by the identifier that it was scored under."""

    decision_id: Identifier | None = Field(None, description="The decision, as its answer named it.")
    transaction_id: Identifier | None = Field(None, description="The transaction; instead of `decision_id`.", examples=["t-1"])
    label: bool = Field(description="What happened: fraud, a default, trouble, a surplus, acceptance. False: that it did not.")
    known_at: Moment | None = Field(
        None, description="When it became known: not before the decision was made, nor in the future. Default: now."
    )
    note: str | None = Field(None, max_length=2_000, description="Why, in words. Kept encrypted; no model reads it.")

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "A transaction was fraud": {"transaction_id": "t-1", "label": True, "note": "The customer did not make it."},
    }


class ModelVersion(Answer):
    """Which model answered."""

    name: str = Field(description="Registered name of the model.", examples=["finrisk-loan-default"])
    version: str = Field(description="Content hash of its scoring bundle.")


class Contribution(TypedDict):
    """What one feature added to the score."""

    # Not a model: one answer has fifty of them.
    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[misc]

    feature: str
    unit: Annotated[str, Field(description="Unit of the value.")]
    value: Annotated[float | None, Field(description="The value that the model saw; null where it was not known.")]
    contribution: Annotated[float, Field(description="Added to the score, in its own unit; above zero it raised the risk.")]


class Explanation(Answer):
    """SHAP values of one score: `base` plus all contributions is the score."""

    base: float = Field(description="The score of nobody in particular.")
    contributions: list[Contribution] = Field(description="Every feature of the model, in the model's order.")


class Reason(Answer):
    """One factor that moved this decision, in words: a feature, or several that tell nearly the same."""

    code: str = Field(description="Stable name of the factor.", examples=["PAYMENT_RECORD"])
    feature: str = Field(description="Of the factor's features the one that moved the score most; the text is about it.")
    features: list[str] = Field([], description="All features of the factor; empty in an answer that was stored before they were told.")
    text: str


class DecisionAnswer(Answer):
    """What every decision's answer has."""

    decision_id: str | None = Field(default=None, description="Names the decision from now on, as in feedback.")


class TransactionAnswer(DecisionAnswer):
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


class LoanAnswer(DecisionAnswer):
    """How likely a loan is to default, and what follows."""

    loan_id: str | None
    customer_id: str | None = Field(description="Who asks, where a customer was named.")
    as_of: Utc | None = Field(description="As of when the ledger's features of the customer are.")
    pd: float = Field(ge=0, le=1, description="Calibrated probability of default.")
    decision: str
    grade: str | None = Field(description="Grade of the probability, where the model has grades.")
    score: float = Field(description="The model's margin: what the contributions sum to.")
    explanation: Explanation
    reasons: list[Reason] = Field(max_length=4)
    model: ModelVersion


class ChangedValue(Answer):
    """One value that would have to differ, or that follows from one that does."""

    feature: str
    unit: str
    description: str = Field(description="What the value is.")
    before: float | None
    after: float | None


class NeededChange(ChangedValue):
    """One value that would have to differ."""

    action: str = Field(description="What the person would do.", examples=["Ask for less."])


class NearestChangeAnswer(Answer):
    """What would have to differ for another decision: what the model would have said, not what will happen to somebody who acts."""

    loan_id: str | None
    customer_id: str | None = Field(description="Who asks, where a customer was named.")
    as_of: Utc | None = Field(description="As of when the ledger's features of the customer are.")
    goal: str
    pd: float = Field(ge=0, le=1, description="Probability of default as it stands.")
    decision: str
    changes: list[NeededChange] | None = Field(description="The fewest and nearest that are enough; null where there are none.")
    follows: list[ChangedValue] = Field(description="What else differs with them: the instalment, and what is measured by it.")
    pd_after: float | None = Field(ge=0, le=1, description="Probability of default with the changes, scored again; null without.")
    decision_after: str | None
    reason: str | None = Field(description="Why there is no change; null where there is one.")
    model: ModelVersion


class SpendingAnswer(DecisionAnswer):
    """How likely spending leads into trouble within the next 90 days."""

    customer_id: str | None
    as_of: Utc | None = Field(description="As of when the ledger's features of the customer are.")
    risk_probability: float = Field(ge=0, le=1, description="Calibrated probability of trouble.")
    risk_level: str = Field(examples=["LOW", "MEDIUM", "HIGH"])
    score: float = Field(description="The model's margin: what the contributions sum to.")
    explanation: Explanation
    reasons: list[Reason] = Field(max_length=4)
    model: ModelVersion


class AmountInterval(Answer):
    """Between which amounts the change will lie, and how often such an interval holds."""

    low: float
    high: float
    coverage: float = Field(description="Share of the intervals that are to hold.", examples=[0.8])


class CashflowAnswer(DecisionAnswer):
    """Whether an account will hold more at the end of the next month than at the end of this one, and by how much."""

    customer_id: str | None
    account_id: str | None
    as_of: Utc | None = Field(description="As of when the ledger's features of the account are.")
    direction: str = Field(examples=["surplus", "deficit"])
    surplus_probability: float = Field(ge=0, le=1, description="Calibrated probability of a surplus.")
    expected_change_amount: float | None = Field(description="In the ledger's currency; null where the model knows the direction only.")
    interval: AmountInterval | None
    score: float = Field(description="The model's margin: what the contributions sum to.")
    explanation: Explanation
    reasons: list[Reason] = Field(max_length=4, description="What speaks for the direction that was answered.")
    model: ModelVersion


class ProfitParts(Answer):
    """What a loan that is taken up is expected to earn and cost, in the ledger's currency."""

    interest: float
    expected_loss: float
    funding: float
    cost: float


class Offer(Answer):
    """One loan that could be offered."""

    annual_rate_pct: float
    loan_amount: float
    term_months: int
    instalment_amount: float
    acceptance: float = Field(ge=0, le=1, description="Probability that it is accepted.")
    pd: float = Field(ge=0, le=1, description="Probability of default.")
    expected_profit: float = Field(description="Acceptance times what the loan is expected to earn, less the cost of offering it.")
    parts: ProfitParts


class CurvePoint(Answer):
    """The best that can be done at one rate."""

    annual_rate_pct: float
    acceptance: float
    expected_profit: float


class OfferAnswer(DecisionAnswer):
    """The loan to offer, or why there is none."""

    customer_id: str | None
    as_of: Utc | None = Field(description="As of when the ledger's features of the customer are.")
    decision: str = Field(examples=["offer", "no_offer"])
    reason: str | None = Field(description="Why there is no offer; null where there is one.")
    offer: Offer | None
    alternatives: list[Offer] = Field(max_length=3, description="The next best.")
    curve: list[CurvePoint] = Field(description="Acceptance and expected profit of the best offer at each rate.")
    acceptance: float | None = Field(description="Probability that the offer is accepted; without one, at the cheapest terms.")
    pd: float
    score: float = Field(description="The acceptance model's margin at these terms: what the contributions sum to.")
    explanation: Explanation
    reasons: list[Reason] = Field(max_length=4, description="What moved the acceptance.")
    model: ModelVersion
    pd_model: str | None = Field(description="Version of the model that the stored PD comes from; null where the PD was sent.")


class StoredScore(Answer):
    """The newest score that the batch gave to a customer, or to one account, in one domain."""

    domain: str
    subject: str = Field(description="The row of the domain's tables.", examples=["123@2024-06"])
    account_id: str | None
    as_of: Utc | None
    score: float
    probability: float
    decision: str
    details: dict[str, float | str | None] = Field(
        description="What else the domain decides: the terms of an offer, the bounds of an amount."
    )
    model_version: str


class RiskScores(Answer):
    """Everything that is stored of a customer's risk."""

    customer_id: str
    scores: list[StoredScore]


class ModelFigure(Answer):
    """One measured figure, with its 95 % interval where there is one."""

    name: str = Field(examples=["auc"])
    value: float
    low: float | None
    high: float | None
    meaning: str


class ModelFigures(Answer):
    """What one champion showed."""

    domain: str
    name: str
    version: str
    source: str
    test: list[ModelFigure] = Field(description="On its frozen test window.")
    oracle: list[ModelFigure] = Field(description="There beside the true probabilities; only a simulator knows them.")


class ModelMetrics(Answer):
    """The measured figures of every champion that answers here."""

    models: list[ModelFigures]


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


Answered = TypeVar("Answered", bound=Answer)


class BatchResult(Answer, Generic[Answered]):
    """What came of one item of a batch: the answer, or the error."""

    status: int = Field(description="The HTTP status that the item would have got alone.", examples=[200])
    answer: Answered | None = Field(description="Null where there is an error.")
    error: Error | None = Field(description="Null where there is an answer.")


class BatchAnswer(Answer, Generic[Answered]):
    """The results of a batch, one for each item, in the same order."""

    results: list[BatchResult[Answered]]


class FeedbackAnswer(Answer):
    """What was recorded of a decision's outcome."""

    feedback_id: str
    decision_id: str
    domain: str = Field(examples=["transaction_anomaly"])
    label: bool
    known_at: Utc
    recorded_at: Utc


class PersonExport(Answer):
    """Everything that is held of a person. Nothing else about this person stands in the store that could be read by anybody."""

    customer_id: str = Field(examples=["123"])
    known_since: Utc
    exported_at: Utc
    transactions: list[dict[str, Any]] = Field(description="Of those that came from the ledger, it has the identifiers.")
    decisions: list[dict[str, Any]] = Field(description="Each with the request, what the model was given, and the answer.")
    standings: list[dict[str, Any]] = Field(description="The newest features and score in each domain.")
    shadows: list[dict[str, Any]] = Field(description="What a challenger would have answered beside the model that decides.")
    feedback: list[dict[str, Any]] = Field(description="What an analyst recorded of a decision.")
    audit: list[dict[str, Any]] = Field(description="Who did what with this person's data, and when.")


class AuditQuery(BaseModel):
    """Which records of the audit are asked for; all of them where nothing is said."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)

    person: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = Field(None, description="The surrogate that stands in a record.")
    caller: Annotated[str, Field(max_length=LONGEST_IDENTIFIER)] | None = Field(None, examples=["key:4f2a"])
    action: Annotated[str, Field(max_length=64)] | None = Field(None, examples=["export"])
    since: Moment | None = Field(None, description="None before that moment; UTC unless an offset is given.")
    before: Annotated[str, Field(pattern=r"^[0-9]{1,18}\.[A-Za-z0-9_-]{1,64}\.[0-9]{1,18}$")] | None = Field(
        None, description="`next` of the page before."
    )
    limit: Annotated[int, Field(ge=1, le=500)] = Field(100, description="Most records of a page.")


class AuditRecord(Answer):
    """One thing that was done. `docs/audit.md` says how records are chained, and how that is verified."""

    writer: str = Field(description="The process that did it.")
    number: int = Field(description="Its place in the chain of that process.")
    at: Utc
    caller: str
    action: str = Field(examples=["decide", "read", "export", "erase"])
    person: str | None = Field(description="Whom it concerns: a surrogate.")
    domain: str | None
    model_version: str | None
    inputs: str | None = Field(description="Digest of what went in.")
    output: str | None = Field(description="Digest of what came out.")
    request_id: str
    hash: str


class AuditPage(Answer):
    """Records of the audit, the newest first."""

    records: list[AuditRecord] = Field(description="It may hold fewer than asked for, or none, though there is a next page.")
    next: str | None = Field(description="The `before` of the next page; null where this is the last.")


class Erasure(Answer):
    """That a person was erased: what was sealed opens no more, what was readable is deleted."""

    erased_at: Utc
    file_wiped: bool = Field(
        description="Whether the store's file was written anew besides; if not, `finrisk store wipe` does it, and backups need none."
    )
