"""The answers of the routes that explain what the service does: its caller, its policy, its models, its activity, and what is usual.

The rules of `schemas.api` hold here too. No answer but `UsualBehaviour` is about a person, and that one names nobody.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from schemas.api import Answer, Features, LoanRequest, Request, SpendingRequest, Utc
from schemas.evidence_api import DriftVerdict, ScoreShare

DomainName = Annotated[str, Field(pattern="^[a-z_]{1,40}$", description="A model's domain, as `GET /v1/models` names it.")]
DecisionId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="The `decision_id` of an answer.")]


class CallerAnswer(Answer):
    """The caller of this request, as the audit names it."""

    name: str = Field(description="`key:<id>`, `jwt:<pseudonym>`, or `local` for a service that is open to its own machine.")
    roles: list[str] = Field(description="Roles of the caller, which say what it may call.", examples=[["analyst"]])


class PolicyAnswer(Answer):
    """The decision policy in effect."""

    name: str = Field(examples=["default"])
    version: str = Field(description="First digits of the hash of its content, which stand in every decision.")
    sha256: str
    document: dict[str, Any] = Field(description="The content, section by section, as the policy's file has it.")


class PolicyPreviewRequest(Request):
    """Another decision policy, of which nothing takes effect."""

    policy: str = Field(min_length=1, max_length=100_000, description="The policy's file: YAML, with every key of the shipped policy.")

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {"Another policy": {"policy": "what `finrisk policy show` prints, changed"}}


class PreviewGroup(Answer):
    """The decisions of one group, and those of them that change."""

    column: str = Field(description="`decision`: the change, such as `refer → approve`; `grade`: the grade under the policy in effect.")
    group: str
    decisions: int
    changed: int
    worth_amount: float | None = Field(description="By how much they are worth more, in currency; null where money does not measure them.")


class DomainPreview(Answer):
    """The decisions of one domain under both policies."""

    domain: str
    decisions: int = Field(description="Decisions that were decided again.")
    changed: int
    left_out: int = Field(description="Decisions that cannot be decided again from what was recorded.")
    worth_before_amount: float | None = Field(description="Their expected worth under the policy in effect, in currency.")
    worth_after_amount: float | None
    groups: list[PreviewGroup] = Field(description="Only those with a change.")
    examples: list[str] = Field(max_length=10, description="`decision_id` of the newest decisions that change.")


class PolicyPreview(Answer):
    """The newest decisions of the last 30 days, decided again under another policy and under the one in effect."""

    name: str
    version: str
    since: Utc
    decisions: int
    is_complete: bool = Field(description="Whether these are all decisions since then; else they are the newest.")
    domains: list[DomainPreview]


class LendingWorth(Answer):
    """The expected worth of what lending decided in the last days, under the policy in effect."""

    since: Utc
    applications: int = Field(description="Loan applications that were decided.")
    loans_amount: float | None = Field(description="Expected value of the approved and referred ones, in currency; null without any.")
    offers: int = Field(description="Requests for an offer.")
    offers_amount: float | None = Field(description="Expected profit of the offers that were made, in currency; null without any.")
    is_complete: bool = Field(description="Whether these are all of these days; else they are the newest.")


class CapacityPoint(Answer):
    """The alerts from an expected loss on, and what they catch, on the window that the thresholds are drawn from."""

    alerts_per_day: float
    expected_loss_from_amount: float = Field(description="Smallest expected loss of an alert, in currency.")
    precision: float | None = Field(description="Share of frauds among the alerts; null where the source has no fraud labels.")
    frauds_per_day: float | None
    expected_loss_per_day_amount: float = Field(description="Sum of the alerts' expected losses, in currency a day.")
    worth_per_day_amount: float = Field(
        description="Expected losses that reviews prevent, less what the reviews cost, in currency a day, by the policy."
    )


class AlertCapacity(Answer):
    """The trade-off between analysts' time and losses: falling expected losses, rising numbers of alerts."""

    points: list[CapacityPoint] = Field(description="Empty where the model has no curve of expected losses; `reason` says why.")
    reason: str | None
    reviews_per_day: int = Field(description="The policy's capacity.")
    review_cost_amount: float
    days: int = Field(description="Days of the window.")
    transactions_per_day: float


class PastTransaction(Answer):
    """An earlier transaction of an alert's customer. It names neither merchant nor country."""

    occurred_at: Utc
    amount: float
    direction: str
    is_same_merchant: bool = Field(description="Whether it was at the merchant of the alert.")
    is_same_country: bool | None = Field(description="Whether it was in the country of the alert; null where one is not known.")
    is_fraud: bool | None


class UsualBehaviour(Answer):
    """The customer's transactions within the days before an alert's transaction, the newest first."""

    days: int
    total: int = Field(description="Number of all transactions within these days; the list has the newest.")
    merchants: int = Field(description="Number of different merchants among those listed.")
    countries: int = Field(description="Number of different countries among those listed.")
    transactions: list[PastTransaction]


class SpendingWhatIfRequest(SpendingRequest):
    """Eight behaviour fields, or a customer of the ledger with some features changed: scored, and not recorded as a decision."""

    changes: Features | None = Field(
        None, description="With `customer_id`: features of the model that get another value; null means not known."
    )

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "Eight fields": SpendingRequest.examples["Eight fields"],
        "A customer as the ledger knows them": {"customer_id": 123},
    }


class LoanWhatIfRequest(LoanRequest):
    """A loan application, as for `POST /v1/loan-default`: scored, and not recorded as a decision."""

    examples: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "A customer of the ledger, smaller and longer": {
            "customer_id": 123,
            "loan_amount": 8000,
            "term_months": 60,
            "annual_rate_pct": 9.5,
        },
        "An application by its features": {"loan_id": "4959", "features": {}},
    }


class DayCount(Answer):
    """The decisions of one outcome on one day."""

    day: str = Field(examples=["2024-05-06"])
    domain: str
    decision: str | None
    count: int


class ScoreBin(Answer):
    """The decisions whose probability lies in one twentieth of the range."""

    domain: str
    low: float
    high: float
    count: int


class AlertDay(Answer):
    """The alerts opened on one day."""

    day: str
    opened: int
    expected_loss_amount: float


class AlertMoney(Answer):
    """The alerts in one state, or with one disposition, and their money."""

    state: str
    disposition: str | None
    count: int
    expected_loss_amount: float


class Activity(Answer):
    """The decisions and alerts of the last days, counted; of very many the newest."""

    since: Utc
    decisions: list[DayCount]
    scores: list[ScoreBin]
    alerts: list[AlertDay]
    money: list[AlertMoney]
    labelled_frauds: int = Field(description="Transactions of these days that were labelled fraud.")
    labelled_fraud_amount: float = Field(description="Their sum, in currency: lost unless a review or a block stopped them.")
    labelled: int = Field(description="Transactions of these days whose outcome is known, fraud or not.")
    lost_amount: float = Field(description="The sum of those frauds that were allowed, in currency.")
    counted: int = Field(description="Decisions that were counted.")
    is_complete: bool = Field(description="Whether these are all decisions of these days.")
    features_as_of: dict[str, Utc | None] = Field(description="Domain to the time of the newest feature snapshot.")


class ActivityQuery(BaseModel):
    """The days to count."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)

    days: Annotated[int, Field(ge=1, le=366)] = Field(30, description="Days up to now.")


class FeatureImportance(Answer):
    """A feature and how much it moves the model's score."""

    feature: str
    unit: str
    description: str
    mean_contribution: float = Field(description="Mean size of its contribution over the model's golden rows, in units of the score.")
    coefficient: float | None = Field(description="Of a linear model: change of the score for one standard deviation; else null.")


class CurvePair(Answer):
    """A threshold and what lies at or above it on the validation window."""

    threshold: float
    share: float = Field(description="Share of the rows at or above it.")
    recall: float | None = Field(description="Share of the events at or above it; null without labels.")
    precision: float | None = Field(description="Share of events among them; null without labels.")


class ShadowAgreement(Answer):
    """The challenger beside the champion, on the same requests."""

    champion_version: str
    challenger_version: str
    requests: int
    failures: int = Field(description="Requests that the challenger failed on.")
    agreement: float | None = Field(description="Share of equal decisions.")
    mean_difference: float | None = Field(description="Mean of the challenger's probability less the champion's.")


class ModelCard(Answer):
    """A champion: where it comes from, what moves it, and its challenger."""

    domain: str
    name: str
    version: str
    source: str
    kind: str = Field(description="`linear`, `trees` or both.", examples=["linear"])
    calibration: str
    training_from: str | None
    training_to: str | None
    data_sha256: str
    code_sha256: str
    libraries: dict[str, str]
    thresholds: dict[str, float] = Field(description="Probabilities, or amounts, from which decisions change under the policy.")
    importance: list[FeatureImportance] = Field(description="The features by falling importance.")
    curve: list[CurvePair] = Field(description="Empty where the bundle has no curve of scores.")
    shadow: list[ShadowAgreement]
    rows: int | None = Field(description="Rows of the frozen test window; null where the model was packed without evidence.")
    scores: list[ScoreShare] = Field(description="The distribution of the test window's probabilities; empty where it is not known.")
    drift: DriftVerdict | None = Field(description="The newest monitoring; null where none is known.")


class ModelCards(Answer):
    """The cards of all champions."""

    cards: list[ModelCard]


class AuditVerification(Answer):
    """The verification of the audit's chains."""

    is_whole: bool
    writers: int
    records: int
    checkpoints: int
    broken: str | None = Field(description="The first record that was changed, lost or moved; null where there is none.")
    replacements: list[str] = Field(description="Replacements of the whole store that were recorded.")


class ReplayAnswer(Answer):
    """One decision, scored again."""

    decision_id: str
    domain: str
    decided_at: Utc
    model_version: str
    policy_version: str | None
    probability: float | None
    decision: str | None
    outcome: str = Field(
        description="`equal`, `different`, `damaged`, `unrecorded`, `erased`, or `unknown` where its model is no longer there.",
        examples=["equal"],
    )
    difference: str | None = Field(description="What differs, as a path into the answer: never a value.")
