"""The rules on transactions that a policy declares beside its models: six kinds, each a condition with an action.

The declarations only; `finrisk_assets.domains.transaction_anomaly.rules` evaluates them.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from schemas.normal_form import COUNTRY_CODES, normalise_country, normalise_text

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]

LONGEST_WINDOW_H = 2160
"""Hours, 90 days: the history that the service keeps at hand. A longer window would count fewer transactions online than in batch."""


class PolicySection(BaseModel):
    """A part of the policy: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _country(value: Any) -> Any:
    if value is False:  # YAML's reading of an unquoted NO
        raise ValueError("YAML reads NO as a no: write the country Norway as 'NO', in quotes")
    code = normalise_country(value) if isinstance(value, str) else value
    if code not in COUNTRY_CODES:
        raise ValueError("must be a country as ISO 3166-1 alpha-2 writes it, such as AT")
    return code


def _merchant(value: Any) -> Any:
    return normalise_text(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else value


Country = Annotated[str, BeforeValidator(_country)]
Merchant = Annotated[str, BeforeValidator(_merchant), Field(min_length=1, max_length=128)]
Hours = Annotated[float, Field(gt=0, le=LONGEST_WINDOW_H)]


class _NamedRule(PolicySection):
    """The keys of every rule.

    Attributes
    ----------
    name
        Stands in answers and figures.
    enabled
        Whether the rule decides. A rule that does not can still be tested over history.
    action
        The decision where the rule fires; the stricter of all rules and the model counts.
    direction
        The transactions that the rule is about: money out, money in, or both.
    from_amount
        Smallest amount that the rule is about, in the ledger's currency.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    enabled: bool
    action: Literal["review", "block"]
    direction: Literal["debit", "credit", "any"] = "debit"
    from_amount: Amount = 0.0


class AmountLimit(_NamedRule):
    """A limit of the amount, `from_amount`, from which on the rule fires."""

    kind: Literal["amount_limit"]
    from_amount: Amount


class Velocity(_NamedRule):
    """A limit of a customer's transactions within some hours, this one included: of their number, of their sum, or of both."""

    kind: Literal["velocity"]
    within_hours: Hours
    max_transactions: int | None = Field(None, ge=1)
    max_amount: Amount | None = None

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.max_transactions is None and self.max_amount is None:
            raise ValueError("has no limit: add max_transactions, max_amount or both")
        return self


class CountryList(_NamedRule):
    """Countries in which the rule fires: blocked ones, or risky ones."""

    kind: Literal["country"]
    countries: tuple[Country, ...] = Field(min_length=1)


class MerchantList(_NamedRule):
    """Merchants at which the rule fires: blocked ones, or risky ones."""

    kind: Literal["merchant"]
    merchants: tuple[Merchant, ...] = Field(min_length=1)


class NewCountry(_NamedRule):
    """A customer's first transaction in a country, where at least `min_transactions` others are known of the last days."""

    kind: Literal["new_country"]
    within_days: int = Field(ge=1, le=LONGEST_WINDOW_H // 24)
    min_transactions: int = Field(ge=1)


class ImpossibleTravel(_NamedRule):
    """A transaction so soon after one in a distant country that nobody travels so fast."""

    kind: Literal["impossible_travel"]
    within_hours: Hours
    max_kmh: float = Field(gt=0, allow_inf_nan=False)
    min_km: Amount


PaymentRule: TypeAlias = AmountLimit | Velocity | CountryList | MerchantList | NewCountry | ImpossibleTravel
_KINDS: tuple[Any, ...] = (AmountLimit, Velocity, CountryList, MerchantList, NewCountry, ImpossibleTravel)
RULE_KINDS: Mapping[str, Any] = {kind.model_fields["kind"].annotation.__args__[0]: kind for kind in _KINDS}
"""Kind, as a policy writes it -> its class."""


def _check_names(rules: tuple[PaymentRule, ...]) -> tuple[PaymentRule, ...]:
    twice = [name for name, number in Counter(rule.name for rule in rules).items() if number > 1]
    if twice:
        raise ValueError(f"there are two rules of the name {twice[0]!r}: name each rule once")
    return rules


PaymentRules = Annotated[tuple[Annotated[PaymentRule, Field(discriminator="kind")], ...], AfterValidator(_check_names)]
