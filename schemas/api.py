"""The requests and answers of the service's API. Every request refuses unknown keys, texts for numbers and NaN.

A level of a category is a text. An identifier may be sent as text or as a whole number; all other code sees text in normal form
(`schemas.normal_form`). A time without an offset is UTC. No error about these models repeats a value of the request. The scorers check
whether fields contradict each other.

Each request has examples. The OpenAPI document fills in `features` of the examples with features of the present model.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar, overload

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PrivateAttr,
    SkipValidation,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, from_json
from typing_extensions import TypedDict  # pydantic needs this class before Python 3.12

from schemas.normal_form import COUNTRY_CODES, normalise_country, normalise_text
from schemas.text_values import is_in_range, read_time


def _identifier(value: Any) -> Any:
    """Return an identifier as text in normal form; a boolean is refused, although Python counts it as a whole number."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    # A longer text is refused for its length; bringing it into normal form could take quadratic time.
    return normalise_text(text) if isinstance(text, str) and len(text) <= 4 * LONGEST_IDENTIFIER else text


def _country(value: Any) -> Any:
    """Return a country in normal form."""
    code = normalise_country(value) if isinstance(value, str) and len(value) <= LONGEST_IDENTIFIER else None
    if code not in COUNTRY_CODES:
        raise PydanticCustomError("country", "Must be a country as ISO 3166-1 alpha-2 writes it, such as AT; leave out what is not known.")
    return code


def _read_features(values: Any, read_numbers: ValidatorFunctionWrapHandler) -> Any:
    """Return features with each yes or no as the 1 or 0 of the model's row, and each level of a category in normal form."""
    # One look at all types: a validator of every value would take as long as everything else about a request.
    kinds = {*map(type, values.values())} if isinstance(values, dict) else set()
    if bool in kinds:
        values = {name: float(value) if isinstance(value, bool) else value for name, value in values.items()}
    if str not in kinds:
        return read_numbers(values)
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    if max(map(len, texts.values())) > LONGEST_IDENTIFIER:
        raise PydanticCustomError("long_text", f"A level of a category has at most {LONGEST_IDENTIFIER} characters.")
    levels = {name: normalise_text(text) for name, text in texts.items()}
    return {**read_numbers({**values, **dict.fromkeys(texts)}), **levels}


def _written_out(value: Any) -> Any:
    """Read a time by the grammar that the ledger has too; Pydantic alone would read digits as seconds or milliseconds."""
    if not isinstance(value, str):
        return value
    # A date alone is a day to the ledger, but no time of an event.
    text = normalise_text(value) if len(value) <= LONGEST_IDENTIFIER else ""
    time = read_time(text) if len(text) > len("2024-05-06") else None
    if time is None:
        raise PydanticCustomError("not_written_out", "Must be a time as ISO 8601 writes it, such as 2024-05-06T12:00:00.")
    return time


def _naive_utc(time: datetime) -> datetime:
    """Return a time as the ledger stores it: naive UTC."""
    try:
        utc = time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    except OverflowError:  # at the ends of the calendar
        utc = datetime.max
    if not is_in_range(utc):
        raise PydanticCustomError("far_away", "Must be a time from 1970 to 2099.")
    return utc


LONGEST_IDENTIFIER = 128
"""Characters of an identifier in normal form at most."""
_IDENTIFIER_TEXT = {"type": "string", "minLength": 1, "maxLength": LONGEST_IDENTIFIER, "pattern": r"\S"}
Identifier = Annotated[
    str,
    BeforeValidator(_identifier),
    Field(min_length=1, max_length=LONGEST_IDENTIFIER),
    WithJsonSchema({"anyOf": [_IDENTIFIER_TEXT, {"type": "integer"}]}),
]
Country = Annotated[str, BeforeValidator(_country), WithJsonSchema({"type": "string", "enum": sorted(COUNTRY_CODES)})]
Moment = Annotated[datetime, BeforeValidator(_written_out), AfterValidator(_naive_utc)]

Utc = Annotated[datetime, AfterValidator(lambda time: time.replace(tzinfo=UTC) if time.tzinfo is None else time)]
"""A time of an answer, with its offset, as RFC 3339 and the OpenAPI document require."""
LARGEST_AMOUNT = 1e12
Amount = Annotated[float, Field(gt=0, le=LARGEST_AMOUNT)]
Months = Annotated[int, Field(ge=1, le=600)]
Probability = Annotated[float, Field(ge=0, le=1)]
Features = Annotated[
    dict[str, float | None],
    Field(max_length=1000),
    WrapValidator(_read_features),
    PlainSerializer(lambda features: features, return_type=dict[str, Any]),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": ["number", "string", "null"]}, "maxProperties": 1000}),
]
"""Features by name. Levels of categories are texts, which pydantic's own validator of numbers does not see."""


class Request(BaseModel):
    """A request; unknown fields are refused."""

    examples: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Title -> a valid body."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True, frozen=True)


class Answer(BaseModel):
    """A part of an answer; NaN is an error, because JSON would turn it into null."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True, frozen=True)


class TransactionRequest(Request):
    """A movement of money, scored as of its own time."""

    user_id: Identifier = Field(description="The customer whose money moves.", examples=[5])
    amount: float = Field(ge=0, le=1e12, description="Size of the movement, in the ledger's currency.", examples=[412.5])
    timestamp: Moment = Field(
        description="Time of the movement: ISO 8601, UTC unless an offset is given.", examples=["2018-08-09T14:05:00"]
    )
    merchant: Identifier | None = Field(None, description="The other side: a merchant, terminal or payee.", examples=["3156"])
    country: Country | None = Field(
        None, description="Country of the movement, ISO 3166-1 alpha-2; lower case is taken too.", examples=["DE"]
    )
    direction: Literal["credit", "debit"] = Field("debit", description="Money in or money out.")
    transaction_id: Identifier | None = Field(
        None, description="Your own identifier. A repeated request gets the same answer and counts once. Default: a new identifier."
    )

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "A large payment abroad": {
            "user_id": 104,
            "amount": 98000,
            "merchant": "CryptoX",
            "country": "SG",
            "timestamp": "2024-06-30T18:16:30",
        },
        "A small payment at home": {
            "user_id": 104,
            "amount": 12,
            "merchant": "M00052",
            "country": "DE",
            "timestamp": "2024-06-30T18:20:00",
        },
        "Money comes in": {"user_id": "5", "amount": 2400.5, "direction": "credit", "timestamp": "2024-06-30T08:00:00+01:00"},
    }


class LoanRequest(Request):
    """A loan application: the features of the loan-default model, or a customer of the ledger and the requested loan."""

    features: Features | None = Field(
        None, description="A value for every feature that `GET /v1/models` lists for `loan_default`; null means not known."
    )
    loan_id: Identifier | None = Field(None, description="Your own identifier, returned with the answer.", examples=["4959"])
    customer_id: Identifier | None = Field(None, description="The applicant; instead of `features`.", examples=[123])
    loan_amount: Amount | None = Field(None, description="Requested amount in the ledger's currency, with `customer_id`.", examples=[50000])
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
    """A loan application, as for `POST /v1/loan-default`, and the decision to reach."""

    goal: Literal["approve", "refer"] = Field("approve", description="`refer`: a review by a person instead of a refusal.")

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "The change for an approval": {"customer_id": 123, "loan_amount": 50000},
        "The change for a review": {"customer_id": 123, "loan_amount": 50000, "goal": "refer"},
        "An application by its features": {"loan_id": "4959", "features": {}},
    }


def _behaviour(name: str, description: str) -> Any:
    """Declare one of the eight behaviour fields, under its name or the name in small letters."""
    return Field(None, validation_alias=AliasChoices(name, name.lower()), description=description)


Behaviour = Annotated[float, Field(ge=0, le=LARGEST_AMOUNT)] | None


class SpendingRequest(Request):
    """All eight behaviour fields of the last 90 days, in this spelling or in small letters; or a customer of the ledger."""

    customer_id: Identifier | None = Field(None, description="A customer of the ledger; instead of the eight fields.", examples=[123])
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
        """Return the eight fields: attribute -> the model's name."""
        aliased = {name: field.validation_alias for name, field in cls.model_fields.items()}
        return {name: str(alias.choices[0]) for name, alias in aliased.items() if isinstance(alias, AliasChoices)}

    def behaviour(self) -> dict[str, float | None]:
        """Return the eight fields by the model's names; None for a missing field."""
        return {name: getattr(self, attribute) for attribute, name in self.behaviour_fields().items()}

    def as_sent(self, name: str) -> str:
        """Return the client's spelling of one of the eight fields; the model's name for a missing field."""
        return self._spelling.get(name, name)

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_two_spellings(cls, body: Any, handler: ModelWrapValidatorHandler["SpendingRequest"]) -> "SpendingRequest":
        fields = body if isinstance(body, dict) else {}
        twice = [name for name, spelling in cls.behaviour_fields().items() if name in fields and spelling in fields]
        if twice:
            error = PydanticCustomError("sent_twice", "The same field was sent in another spelling too.")
            # An error contains its input, which must not be repeated: None replaces it.
            raise ValidationError.from_exception_data(
                cls.__name__, [InitErrorDetails(type=error, loc=(name,), input=None) for name in twice], hide_input=True
            )
        request = handler(body)
        request._spelling = {name: key for key, name in cls.behaviour_fields().items() if key in fields}
        return request


class CashflowRequest(Request):
    """A forecast of the next month for a customer or an account of the ledger, or for the features of the cashflow model."""

    customer_id: Identifier | None = Field(None, description="A customer with one account.", examples=[123])
    account_id: Identifier | None = Field(None, description="An account.", examples=["A123"])
    features: Features | None = Field(
        None, description="A value for every feature that `GET /v1/models` lists for `cashflow`; null means not known."
    )

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "A customer of the ledger": {"customer_id": 123},
        "An account of the ledger": {"account_id": "A123"},
        "An account by its features": {"features": {}},
    }


class OfferRequest(Request):
    """A request for a loan offer: for a customer of the ledger, or for the features of the loan-offers model, PD and income."""

    customer_id: Identifier | None = Field(None, description="A customer of the ledger.", examples=[123])
    features: Features | None = Field(
        None,
        description="Instead of `customer_id`: a value for every feature that `GET /v1/models` lists for `loan_offers`; null means not "
        "known. Features that follow from the terms are computed for each considered offer.",
    )
    pd: Probability | None = Field(None, description="Probability of default. Default: the customer's stored PD.", examples=[0.04])
    monthly_income_amount: Amount | None = Field(None, description="Monthly income in currency, with `features`.", examples=[2800])
    loan_amount: Amount | None = Field(None, description="Consider this amount only.", examples=[5000])
    term_months: Months | None = Field(None, description="Consider this term only.", examples=[24])

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "A customer of the ledger": {"customer_id": 123},
        "A customer, one amount and term, another PD": {"customer_id": 123, "loan_amount": 5000, "term_months": 24, "pd": 0.04},
        "An applicant by features, PD and income": {"features": {}, "pd": 0.03, "monthly_income_amount": 2800},
        "No offer at this PD": {"customer_id": 123, "pd": 0.9},
    }


MOST_ITEMS, MOST_TRANSACTIONS = 1_000, 250
"""Requests in one batch at most. More of them hold up other requests; transactions take longer, because each reads the history again."""
Item = TypeVar("Item")
# Items are checked one by one, so that an invalid item does not refuse the others.
_BY_ITSELF = "Each item is answered or refused on its own."
Items = Annotated[list[SkipValidation[Item]], Field(min_length=1, max_length=MOST_ITEMS, description=_BY_ITSELF)]


class Batch(Request):
    """Many requests of one domain; each has its own result, in the same order."""

    kind: ClassVar[type[Request]]
    """The type of each item."""
    items: list[Any]


def _batch_of(request: type[Request]) -> dict[str, Any]:
    return {"Two at once": {"items": list(request.examples.values())[:2]}}


class TransactionBatch(Batch):
    """Movements of money, scored one after the other: each becomes part of the history of the next."""

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
    """Accounts whose next month is forecast."""

    kind: ClassVar[type[Request]] = CashflowRequest
    items: Items[CashflowRequest]
    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = _batch_of(CashflowRequest)


class OfferBatch(Batch):
    """Customers for a loan offer."""

    kind: ClassVar[type[Request]] = OfferRequest
    items: Items[OfferRequest]
    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = _batch_of(OfferRequest)


class FeedbackRequest(Request):
    """The outcome of a decision, named by its `decision_id`, or of a transaction, named by its identifier."""

    decision_id: Identifier | None = Field(None, description="The decision, by the `decision_id` of its answer.")
    transaction_id: Identifier | None = Field(None, description="The transaction; instead of `decision_id`.", examples=["t-1"])
    label: bool = Field(description="Whether the predicted event happened: fraud, a default, trouble, a surplus, acceptance.")
    known_at: Moment | None = Field(
        None, description="Time at which the outcome became known: not before the transaction, nor in the future. Default: now."
    )
    note: str | None = Field(None, max_length=2_000, description="The reason, in words. Stored encrypted; no model reads it.")

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "A transaction was fraud": {"transaction_id": "t-1", "label": True, "note": "The customer did not make it."},
    }


class ModelVersion(Answer):
    """The model that answered."""

    name: str = Field(description="Registered name of the model.", examples=["finrisk-loan-default"])
    version: str = Field(description="Content hash of its scoring bundle.")


class Contribution(TypedDict):
    """The contribution of one feature to the score."""

    # Not a model: one answer has fifty of them.
    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[misc]

    feature: str
    unit: Annotated[str, Field(description="Unit of the value.")]
    value: Annotated[
        float | str | None,
        Field(description="The value in the model's row, of a category its level; null where not known or, a level, not seen in training."),
    ]
    contribution: Annotated[float, Field(description="Added to the score, in its own unit; above zero it raised the risk.")]


class EncodedContributions(Sequence[Contribution]):
    """Contributions as JSON, decoded where an element is read: most answers are only sent and stored.

    Parameters
    ----------
    encoded
        The list of contributions as compact JSON.
    """

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded

    @cached_property
    def _decoded(self) -> list[Contribution]:
        decoded: list[Contribution] = from_json(self.encoded)
        return decoded

    @overload
    def __getitem__(self, place: int) -> Contribution: ...

    @overload
    def __getitem__(self, place: slice) -> list[Contribution]: ...

    def __getitem__(self, place: int | slice) -> Contribution | list[Contribution]:
        return self._decoded[place]

    def __len__(self) -> int:
        return len(self._decoded)

    def __eq__(self, other: object) -> bool:
        return self.encoded == other.encoded if isinstance(other, EncodedContributions) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


class Explanation(Answer):
    """SHAP values of one score: `base` plus all contributions is the score."""

    base: float = Field(description="The mean score, before any contribution.")
    # `model_construct` accepts `EncodedContributions` too, of which pydantic needs a list.
    contributions: Annotated[list[Contribution], PlainSerializer(list, return_type=list[Contribution])] = Field(
        description="Every feature of the model, in the model's order."
    )


class Reason(Answer):
    """One factor that moved this decision, in words: a feature, or several features with nearly the same meaning."""

    code: str = Field(description="Stable name of the factor.", examples=["PAYMENT_RECORD"])
    feature: str = Field(description="The factor's feature that moved the score most; the text describes this feature.")
    features: list[str] = Field([], description="All features of the factor; empty in answers that were stored before this field existed.")
    text: str


class DecisionAnswer(Answer):
    """The fields of every decision's answer."""

    decision_id: str | None = Field(default=None, description="The decision's identifier, for feedback.")

    def model_dump_json(self, **options: Any) -> str:
        """Return the answer as JSON. Encoded contributions are inserted as they are, which takes a tenth of the time of encoding them."""
        explanation = getattr(self, "explanation", None)
        contributions = explanation and explanation.contributions
        if options or not isinstance(contributions, EncodedContributions):
            return super().model_dump_json(**options)
        # `base` is a number, so its object ends at the next brace. No text of an answer contains the key: JSON escapes its quotes.
        before, key, after = super().model_dump_json(exclude=_CONTRIBUTIONS).partition(_EXPLANATION_KEY)
        base, _, after = after.partition("}")
        return f'{before}{key}{base},"contributions":{contributions.encoded.decode()}}}{after}'


_CONTRIBUTIONS: dict[str, Any] = {"explanation": {"contributions"}}
_EXPLANATION_KEY = '"explanation":{'


class FiredRule(Answer):
    """A rule of the policy that fired on a transaction."""

    name: str = Field(description="Name of the rule in the policy.", examples=["large_amount"])
    action: Literal["review", "block"] = Field(description="The decision that the rule asks for.")
    text: str = Field(description="Why it fired, with the figures that it compared.")


class TransactionAnswer(DecisionAnswer):
    """The risk of a transaction, and the decision."""

    transaction_id: str
    score: float = Field(description="The model's margin: the sum of base and contributions.")
    risk_score: float = Field(ge=0, le=1, description="Calibrated probability of fraud; without labels the isolation forest's score.")
    anomaly: bool = Field(description="Whether the risk score reaches the threshold.")
    expected_loss_amount: float | None = Field(
        description="Expected loss in currency, the risk score times the amount; null where the score is no probability of fraud."
    )
    review_from_amount: float | None = Field(description="Expected loss from which a transaction is reviewed; null as above.")
    decision: str = Field(description="`allow`, `review` or `block`: the strictest of the model's decision and the rules' actions.")
    rules: list[FiredRule] | None = Field(
        None,
        description="The rules of the policy that fired, in the policy's order; absent where the policy has no enabled rule.",
        exclude_if=lambda rules: rules is None,
    )
    explanation: Explanation
    reasons: list[Reason] = Field(max_length=4, description="The factors that moved the model's score; `rules` has the rules' reasons.")
    model: ModelVersion
    policy_version: str = Field(description="Version of the decision policy: the beginning of its hash.")


class LoanAnswer(DecisionAnswer):
    """The probability of default of a loan, and the decision."""

    loan_id: str | None
    customer_id: str | None = Field(description="The applicant, where the request named a customer.")
    as_of: Utc | None = Field(description="Time of the customer's features.")
    pd: float = Field(ge=0, le=1, description="Calibrated probability of default.")
    decision: str
    decision_reason: str | None = Field(description="The rule of the policy that the loan fails; null where it is approved.")
    value_amount: float = Field(description="The loan's expected value at its terms, in currency: interest less losses, funding and costs.")
    grade: str | None = Field(description="Grade of the probability, where the model has grades.")
    score: float = Field(description="The model's margin: the sum of base and contributions.")
    explanation: Explanation
    reasons: list[Reason] = Field(max_length=4)
    model: ModelVersion
    policy_version: str = Field(description="Version of the decision policy: the beginning of its hash.")


class ChangedValue(Answer):
    """A value that changes, directly or as a consequence."""

    feature: str
    unit: str
    description: str = Field(description="Description of the value.")
    before: float | None
    after: float | None


class NeededChange(ChangedValue):
    """A value that a person would have to change."""

    action: str = Field(description="The person's action.", examples=["Ask for less."])


class NearestChangeAnswer(Answer):
    """The nearest change for another decision: the model's decision after the change, not a prediction of what happens to the person."""

    loan_id: str | None
    customer_id: str | None = Field(description="The applicant, where the request named a customer.")
    as_of: Utc | None = Field(description="Time of the customer's features.")
    goal: str
    pd: float = Field(ge=0, le=1, description="Probability of default without a change.")
    decision: str
    changes: list[NeededChange] | None = Field(
        description="The fewest and smallest changes that are enough; null where no change is enough."
    )
    follows: list[ChangedValue] = Field(
        description="Values that change as a consequence, such as the instalment and features measured by it."
    )
    pd_after: float | None = Field(ge=0, le=1, description="Probability of default after the changes, scored again; null without changes.")
    decision_after: str | None
    reason: str | None = Field(description="The reason why there is no change; null where there is a change.")
    model: ModelVersion
    policy_version: str = Field(description="Version of the decision policy: the beginning of its hash.")


class SpendingAnswer(DecisionAnswer):
    """The risk that spending leads to trouble within the next 90 days."""

    customer_id: str | None
    as_of: Utc | None = Field(description="Time of the customer's features.")
    risk_probability: float = Field(ge=0, le=1, description="Calibrated probability of trouble.")
    risk_level: str = Field(examples=["LOW", "MEDIUM", "HIGH"])
    score: float = Field(description="The model's margin: the sum of base and contributions.")
    explanation: Explanation
    reasons: list[Reason] = Field(max_length=4)
    model: ModelVersion
    policy_version: str = Field(description="Version of the decision policy: the beginning of its hash.")


class AmountInterval(Answer):
    """An interval of the expected change, and its coverage."""

    low: float
    high: float
    coverage: float = Field(description="Share of the intervals that contain the change.", examples=[0.8])


class CashflowAnswer(DecisionAnswer):
    """The change of an account's balance from the end of this month to the end of the next month."""

    customer_id: str | None
    account_id: str | None
    as_of: Utc | None = Field(description="Time of the account's features.")
    direction: str = Field(examples=["surplus", "deficit"])
    surplus_probability: float = Field(ge=0, le=1, description="Calibrated probability of a surplus.")
    expected_change_amount: float | None = Field(description="In the ledger's currency; null where the model predicts the direction only.")
    interval: AmountInterval | None
    score: float = Field(description="The model's margin: the sum of base and contributions.")
    explanation: Explanation
    reasons: list[Reason] = Field(max_length=4, description="Reasons for the answered direction.")
    model: ModelVersion
    policy_version: str = Field(description="Version of the decision policy: the beginning of its hash.")


class ProfitParts(Answer):
    """Expected earnings and costs of an accepted loan, in the ledger's currency."""

    interest: float = Field(description="Interest that is expected to be paid, discounted.")
    expected_loss: float
    funding: float
    cost: float = Field(description="Cost of granting and servicing the loan.")


class Offer(Answer):
    """A loan that could be offered."""

    annual_rate_pct: float
    loan_amount: float
    term_months: int
    instalment_amount: float
    acceptance: float = Field(ge=0, le=1, description="Probability that the offer is accepted.")
    pd: float = Field(ge=0, le=1, description="Probability of default.")
    expected_profit: float = Field(description="Acceptance times the expected profit of the loan, less the cost of the offer.")
    parts: ProfitParts


class CurvePoint(Answer):
    """The best offer at one rate."""

    annual_rate_pct: float
    acceptance: float
    expected_profit: float


class OfferAnswer(DecisionAnswer):
    """The loan to offer, or the reason why there is no offer."""

    customer_id: str | None
    as_of: Utc | None = Field(description="Time of the customer's features.")
    decision: str = Field(examples=["offer", "no_offer"])
    reason: str | None = Field(description="The reason why there is no offer; null where there is an offer.")
    offer: Offer | None
    alternatives: list[Offer] = Field(max_length=3, description="The next best offers.")
    curve: list[CurvePoint] = Field(description="Acceptance and expected profit of the best offer at each rate.")
    acceptance: float | None = Field(description="Probability that the offer is accepted; without an offer, at the cheapest terms.")
    pd: float | None = Field(
        description="Probability of default at the offered terms; without an offer, at the cheapest terms. Null where too little is known."
    )
    score: float = Field(description="The acceptance model's margin at these terms: the sum of base and contributions.")
    explanation: Explanation
    reasons: list[Reason] = Field(max_length=4, description="The factors that moved the acceptance.")
    model: ModelVersion
    policy_version: str = Field(description="Version of the decision policy: the beginning of its hash.")
    pd_model: str | None = Field(description="Version of the model of the PD; null where the request had a PD.")


class StoredScore(Answer):
    """The newest batch score of a customer, or of one account, in one domain."""

    domain: str
    subject: str = Field(description="The row of the domain's tables.", examples=["123@2024-06"])
    account_id: str | None
    as_of: Utc | None
    score: float
    probability: float
    decision: str
    details: dict[str, float | str | None] = Field(
        description="Other results of the domain: the terms of an offer, the bounds of an amount."
    )
    model_version: str


class RiskScores(Answer):
    """The stored scores of a customer in all domains."""

    customer_id: str
    scores: list[StoredScore]


class ModelFigure(Answer):
    """A measured figure, with its 95 % interval where there is one."""

    name: str = Field(examples=["auc"])
    value: float
    low: float | None
    high: float | None
    meaning: str


class ModelFigures(Answer):
    """The figures of one champion."""

    domain: str
    name: str
    version: str
    source: str
    test: list[ModelFigure] = Field(description="On its frozen test window.")
    oracle: list[ModelFigure] = Field(description="Compared with the true probabilities, which only a simulator knows.")


class ModelMetrics(Answer):
    """The measured figures of every champion of the service."""

    models: list[ModelFigures]


class FeatureDescription(Answer):
    """A feature of a model."""

    name: str
    unit: str
    description: str


class CategoryDescription(FeatureDescription):
    """A feature of a model whose values are texts."""

    levels: list[str] = Field(description="The levels that training saw; another text counts as a rare level.")


class ModelDescription(Answer):
    """A model of the service."""

    domain: str
    name: str
    version: str
    source: str = Field(description="The source of the training data.")
    features: list[CategoryDescription | FeatureDescription]


class ModelList(Answer):
    """The models of the service, and the reasons why domains have no model."""

    models: list[ModelDescription]
    absent: dict[str, str] = Field(description="Domain to the reason why the service has no model for it.")


class FieldError(Answer):
    """The fault of one field of a request."""

    field: str = Field(description="Path of the field; empty for the body as a whole.", examples=["features.age"])
    reason: str


class Error(Answer):
    """An error, for programs (`code`) and for people (`message`)."""

    code: str = Field(examples=["invalid_request"])
    message: str
    fields: list[FieldError]
    request_id: str = Field(description="Also in the header `X-Request-ID`; quote it in questions about an answer.")


class ErrorEnvelope(Answer):
    """The shape of every error."""

    error: Error


Answered = TypeVar("Answered", bound=Answer)


class BatchResult(Answer, Generic[Answered]):
    """The result of one item of a batch: the answer or the error."""

    status: int = Field(description="The HTTP status of the item as a single request.", examples=[200])
    answer: Answered | None = Field(description="Null where there is an error.")
    error: Error | None = Field(description="Null where there is an answer.")


class BatchAnswer(Answer, Generic[Answered]):
    """The results of a batch, one for each item, in the same order."""

    results: list[BatchResult[Answered]]


class FeedbackAnswer(Answer):
    """The recorded outcome of a decision."""

    feedback_id: str
    decision_id: str
    domain: str = Field(examples=["transaction_anomaly"])
    label: bool
    known_at: Utc
    recorded_at: Utc


class PersonExport(Answer):
    """All readable data of a person in the store."""

    customer_id: str = Field(examples=["123"])
    known_since: Utc
    exported_at: Utc
    transactions: list[dict[str, Any]] = Field(description="Identifiers of transactions from the ledger are in the ledger only.")
    decisions: list[dict[str, Any]] = Field(description="Each with the request, the model's row and the answer.")
    standings: list[dict[str, Any]] = Field(description="The newest features and score in each domain.")
    shadows: list[dict[str, Any]] = Field(description="Outcomes of challengers, compared with the champions.")
    feedback: list[dict[str, Any]] = Field(description="Outcomes of decisions, as analysts recorded them.")
    alerts: list[dict[str, Any]] = Field(description="Alerts about the person's transactions, and how analysts closed them.")
    audit: list[dict[str, Any]] = Field(description="Every action on this person's data: caller, action, time.")


class AuditQuery(BaseModel):
    """The filters of audit records; without filters all records."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)

    person: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = Field(None, description="The pseudonymous id of a record.")
    caller: Annotated[str, Field(max_length=LONGEST_IDENTIFIER)] | None = Field(None, examples=["key:4f2a"])
    action: Annotated[str, Field(max_length=64)] | None = Field(None, examples=["export"])
    since: Moment | None = Field(None, description="The earliest time of a record; UTC unless an offset is given.")
    before: Annotated[str, Field(pattern=r"^[0-9]{1,18}\.[A-Za-z0-9_-]{1,64}\.[0-9]{1,18}$")] | None = Field(
        None, description="`next` of the previous page."
    )
    limit: Annotated[int, Field(ge=1, le=500)] = Field(100, description="Largest number of records of a page.")


class AuditRecord(Answer):
    """A record of the audit. `docs/audit.md` describes the chain of records and its verification."""

    writer: str = Field(description="The process that wrote the record.")
    number: int = Field(description="The record's place in the chain of that process.")
    at: Utc
    caller: str
    action: str = Field(examples=["decide", "read", "export", "erase"])
    person: str | None = Field(description="Pseudonymous id of the person concerned.")
    domain: str | None
    model_version: str | None
    inputs: str | None = Field(description="Digest of the inputs.")
    output: str | None = Field(description="Digest of the output.")
    request_id: str
    hash: str


class AuditPage(Answer):
    """Records of the audit, the newest first."""

    records: list[AuditRecord] = Field(description="May hold fewer records than `limit`, or none, although there is a next page.")
    next: str | None = Field(description="The `before` of the next page; null on the last page.")


class Erasure(Answer):
    """The erasure of a person: sealed data can no longer be opened, readable data were deleted."""

    erased_at: Utc
    file_wiped: bool = Field(
        description="Whether the store's file was rewritten too; if not, run `finrisk store wipe`. Backups need no wipe."
    )
