"""Every feature of a transaction: `FEATURES`, the project's own, and `HANDBOOK`, the fifteen of a published book.

A feature is declared here and computed in `finrisk_assets.features`, over a table and for one event. Every feature is known at the moment
of the transaction: history ends strictly before it, and fraud labels enter seven days late, when they are known.
"""

from collections.abc import Mapping
from typing import Any

from finrisk_assets.features import windows
from finrisk_assets.features.windows import DAY, HOUR, Declaration, Derived, Point, Window
from schemas.features import Feature, themes

CUSTOMER = ("customer_id",)
MERCHANT = ("merchant",)
AT_MERCHANT = ("customer_id", "merchant")
IN_COUNTRY = ("customer_id", "country")

LABEL_DELAY_S = 7 * DAY
"""Seconds until a fraud is known. Less uses labels before their time; more hides recent fraud."""

NOVELTY_S = 90 * DAY
"""Seconds after which a merchant or a country counts as new for a customer."""

SPANS = {"1h": HOUR, "1d": DAY, "7d": 7 * DAY, "30d": 30 * DAY}
_RISK_SPANS = ("1d", "3d", "7d", "14d", "21d", "30d")
"""Windows of fraud at a merchant: how far back it began and whether it has ended shows in their differences."""
_LENGTHS = {**SPANS, "3d": 3 * DAY, "9d": 9 * DAY, "14d": 14 * DAY, "21d": 21 * DAY, "90d": 90 * DAY}
_IN_WORDS = {"1h": "hour", "1d": "day", **{f"{days}d": f"{days} days" for days in (3, 7, 9, 14, 21, 30, 90)}}

EARLIER_S = 28 * DAY
"""Seconds from the window of earlier fraud at the merchant to the transaction. Fraud there is trouble that lasts long or has ended."""

THEMES: Mapping[str, str] = themes(
    {
        "amount": ("amount", "log_amount"),
        "amount beside the usual": (
            *(f"amount_to_mean_{span}" for span in ("1d", "7d", "30d", "90d")),
            *("amount_zscore_7d", "amount_zscore_30d", "amount_to_max_30d"),
        ),
        "direction": ("is_credit",),
        "time of day": ("hour", "hour_sin", "hour_cos", "is_night"),
        "day of the week": ("is_weekend",),
        "pace": ("customer_idle_hours", *(f"customer_n_{span}" for span in SPANS), "customer_n_1d_to_30d"),
        "money moved lately": (
            *(f"customer_amount_{what}_{span}" for what in ("sum", "mean") for span in SPANS),
            *(f"customer_amount_std_{span}" for span in ("1d", "7d", "30d")),
            "customer_amount_max_30d",
            *(f"customer_max_{span}_to_mean_90d" for span in ("3d", "7d", "14d")),
        ),
        "traffic at the merchant": tuple(f"merchant_n_{span}" for span in SPANS),
        "fraud at the merchant": (
            *(f"merchant_risk_{span}" for span in _RISK_SPANS),
            "merchant_earlier_risk_3d",
            "merchant_earlier_risk_9d",
        ),
        "merchant": ("customer_merchant_n_90d", "is_new_merchant"),
        "country": ("customer_country_n_90d", "is_new_country"),
    }
)
"""Feature of `FEATURES` -> its subject. Features of one subject count as one reason together. `HANDBOOK` has no subjects."""

OF_ALL_CUSTOMERS = tuple(name for name, theme in THEMES.items() if theme.endswith(" at the merchant"))
"""Features that count what all customers did at one merchant."""


def _feature(name: str, unit: str, description: str, low: str = "", high: str = "", **words: Any) -> Feature:
    return Feature(name, unit, description, low, high, theme=THEMES.get(name, ""), **words)


def _amount_point() -> Point:
    return Point(_feature("amount", "currency", "Size of the transaction.", "the amount is small", "the amount is large"), "amount")


def _count(span: str) -> Window:
    return Window(
        _feature(
            f"customer_n_{span}",
            "transactions",
            f"Transactions of the customer in the {_IN_WORDS[span]} before.",
            f"few transactions by this customer in the last {_IN_WORDS[span]}",
            f"many transactions by this customer in the last {_IN_WORDS[span]}",
            high_above=2.0,
            zero=f"no other transaction by this customer in the last {_IN_WORDS[span]}",
        ),
        CUSTOMER,
        "count",
        SPANS[span],
    )


def _of_amounts(name: str, aggregate: windows.Aggregate, span: str, text: str, low: str, high: str) -> Window:
    words = _IN_WORDS[span]
    return Window(
        _feature(f"customer_amount_{name}_{span}", "currency", f"{text} of the customer's {words} before.", low, high),
        CUSTOMER,
        aggregate,
        _LENGTHS[span],
        "amount",
    )


def _sum(span: str) -> Window:
    words = _IN_WORDS[span]
    return _of_amounts(
        "sum",
        "sum",
        span,
        "Sum of the amounts",
        f"little money moved in the last {words}",
        f"much money moved in the last {words}",
    )


def _mean(span: str) -> Window:
    words = _IN_WORDS[span]
    return _of_amounts("mean", "mean", span, "Mean amount", f"small amounts in the last {words}", f"large amounts in the last {words}")


def _std(span: str) -> Window:
    words = _IN_WORDS[span]
    return _of_amounts(
        "std",
        "std",
        span,
        "Sample deviation of the amounts",
        f"steady amounts in the last {words}",
        f"erratic amounts in the last {words}",
    )


def _merchant_count(span: str) -> Window:
    words = _IN_WORDS[span]
    return Window(
        _feature(
            f"merchant_n_{span}",
            "transactions",
            f"Transactions at the merchant in the {words} before.",
            f"little traffic at the merchant in the last {words}",
            f"much traffic at the merchant in the last {words}",
        ),
        MERCHANT,
        "count",
        SPANS[span],
    )


def _merchant_risk(span: str) -> Window:
    words = _IN_WORDS[span]
    return Window(
        _feature(
            f"merchant_risk_{span}",
            "share",
            f"Share of fraud at the merchant over {words}, up to seven days before; 0 where there was no transaction.",
            # No direction: old frauds with no recent ones mean that the trouble is over. A forced direction cost .06 of average precision.
            high=f"fraud at this merchant within {words}, up to a week ago",
            zero=f"no fraud at this merchant is known within {words}, up to a week ago",
        ),
        MERCHANT,
        "mean",
        _LENGTHS[span],
        "is_fraud",
        LABEL_DELAY_S,
        empty=0.0,
    )


def _merchant_earlier_risk(span: str) -> Window:
    words = _IN_WORDS[span]
    return Window(
        _feature(
            f"merchant_earlier_risk_{span}",
            "share",
            f"Share of fraud at the merchant over {words}, up to four weeks before; 0 where there was no transaction.",
            high=f"fraud at this merchant within {words}, up to four weeks ago",
            zero=f"no fraud at this merchant is known within {words}, up to four weeks ago",
        ),
        MERCHANT,
        "mean",
        _LENGTHS[span],
        "is_fraud",
        EARLIER_S,
        empty=0.0,
    )


def _largest_amount(span: str = "30d") -> Window:
    words = _IN_WORDS[span]
    return _of_amounts(
        "max",
        "max",
        span,
        "Largest amount",
        f"no large amount in the last {words}",
        f"a large amount in the last {words}",
    )


def _largest_to_mean(span: str) -> Derived:
    words = _IN_WORDS[span]
    return Derived(
        _feature(
            f"customer_max_{span}_to_mean_90d",
            "ratio",
            f"The customer's largest amount of the {words} before against the mean of the 90 days before.",
            f"no amount of this customer's last {words} was far above the mean of 90 days",
            f"an amount of this customer's last {words} was far above the mean of 90 days",
            low_below=2.0,
            high_above=3.0,
        ),
        "ratio",
        (_largest_amount(span), _mean("90d")),
    )


def _to_mean(amount: Point, span: str) -> Derived:
    words = _IN_WORDS[span]
    return Derived(
        _feature(
            f"amount_to_mean_{span}",
            "ratio",
            f"Amount against the customer's own mean of the {words} before.",
            f"the amount is below this customer's mean of the {words} before",
            f"the amount is far above this customer's mean of the {words} before",
            low_below=1.0,
            high_above=2.0,
        ),
        "ratio",
        (amount, _mean(span)),
    )


def _zscore(amount: Point, span: str) -> Derived:
    words = _IN_WORDS[span]
    return Derived(
        _feature(
            f"amount_zscore_{span}",
            "deviations",
            f"Amount less the customer's own mean, in deviations of the {words} before.",
            f"the amount is below this customer's mean of the {words} before",
            f"the amount stands out from this customer's {words} before",
            low_below=0.0,
            high_above=2.0,
        ),
        "zscore",
        (amount, _mean(span), _std(span)),
    )


def _count_with(entity: tuple[str, ...], noun: str) -> Window:
    return Window(
        _feature(
            f"customer_{noun}_n_90d",
            "transactions",
            f"Transactions of the customer with this {noun} in the 90 days before.",
            f"the customer rarely deals with this {noun}",
            f"the customer often deals with this {noun}",
            high_above=2.0,
            zero=f"the customer has not dealt with this {noun} in 90 days",
            tells_missing=False,
        ),
        entity,
        "count",
        NOVELTY_S,
    )


def _is_new(entity: tuple[str, ...], noun: str) -> Derived:
    return Derived(
        _feature(
            f"is_new_{noun}",
            "0 or 1",
            f"Whether the customer had no transaction with this {noun} in the 90 days before.",
            one=f"the {noun} is new for this customer",
            zero=f"the customer has dealt with this {noun} before",
            tells_missing=False,
        ),
        "is_zero",
        (_count_with(entity, noun),),
    )


def _features() -> tuple[Declaration, ...]:
    amount = _amount_point()
    return (
        Point(
            _feature(
                "log_amount",
                "log currency",
                "Natural logarithm of 1 + amount.",
                "the amount is small",
                "the amount is large",
                scale="log1p",
            ),
            "log_amount",
        ),
        Point(_feature("hour", "hours", "Hour of the day, 0 to 23.", fact="it happened in the hour from {number}:00"), "hour"),
        Point(_feature("hour_sin", "", "Time of day as a circle: sine.", spoken_by="hour"), "hour_sin"),
        Point(_feature("hour_cos", "", "Time of day as a circle: cosine.", spoken_by="hour"), "hour_cos"),
        Point(
            _feature(
                "is_weekend",
                "0 or 1",
                "Whether it is Saturday or Sunday.",
                one="it happened at a weekend",
                zero="it happened on a weekday",
            ),
            "is_weekend",
        ),
        Point(
            _feature("is_night", "0 or 1", "Whether it is before 07:00.", one="it happened at night", zero="it did not happen at night"),
            "is_night",
        ),
        Point(_feature("is_credit", "0 or 1", "Whether money came in.", one="money came in", zero="money went out"), "is_credit"),
        Window(
            _feature(
                "customer_idle_hours",
                "hours",
                "Hours since the customer's latest transaction before, at most 30 days.",
                "the customer's previous transaction was shortly before",
                "the customer's previous transaction was long before",
                missing="the customer had no transaction in the 30 days before",
            ),
            CUSTOMER,
            "since",
            SPANS["30d"],
        ),
        *(_count(span) for span in SPANS),
        *(_sum(span) for span in SPANS),
        *(_mean(span) for span in SPANS),
        *(_std(span) for span in ("1d", "7d", "30d")),
        _largest_amount(),
        *(_to_mean(amount, span) for span in ("1d", "7d", "30d", "90d")),
        *(_zscore(amount, span) for span in ("7d", "30d")),
        Derived(
            _feature(
                "amount_to_max_30d",
                "ratio",
                "Amount against the customer's largest of the 30 days before.",
                "the amount is well below the largest of this customer's 30 days before",
                "the amount is close to or above the largest of this customer's 30 days before",
                low_below=0.5,
                high_above=0.8,
            ),
            "ratio",
            (amount, _largest_amount()),
        ),
        *(_largest_to_mean(span) for span in ("3d", "7d", "14d")),
        Derived(
            _feature(
                "customer_n_1d_to_30d",
                "ratio",
                "The customer's transactions of the day before as a share of those of the 30 days before.",
                "few of this customer's recent transactions fell within a day",
                "most of this customer's recent transactions fell within a day",
                low_below=0.5,
                high_above=0.5,
            ),
            "ratio",
            (_count("1d"), _count("30d")),
        ),
        *(_merchant_count(span) for span in SPANS),
        *(_merchant_risk(span) for span in _RISK_SPANS),
        *(_merchant_earlier_risk(span) for span in ("3d", "9d")),
        _count_with(AT_MERCHANT, "merchant"),
        _is_new(AT_MERCHANT, "merchant"),
        _count_with(IN_COUNTRY, "country"),
        _is_new(IN_COUNTRY, "country"),
    )


def _handbook() -> tuple[Declaration, ...]:
    spans = {"1d": DAY, "7d": 7 * DAY, "30d": 30 * DAY}
    customer = (
        (
            Window(
                _feature(
                    f"customer_nb_tx_{span}",
                    "transactions",
                    f"Transactions of the customer in {_IN_WORDS[span]}, this one included.",
                ),
                CUSTOMER,
                "count",
                length_s,
                current=True,
            ),
            Window(
                _feature(
                    f"customer_avg_amount_{span}",
                    "currency",
                    f"Mean amount of the customer in {_IN_WORDS[span]}, this one included.",
                ),
                CUSTOMER,
                "mean",
                length_s,
                "amount",
                current=True,
            ),
        )
        for span, length_s in spans.items()
    )
    terminal = (
        (
            Window(
                _feature(
                    f"terminal_nb_tx_{span}",
                    "transactions",
                    f"Transactions at the terminal in {_IN_WORDS[span]}, up to 7 days before.",
                ),
                MERCHANT,
                "count",
                length_s,
                delay_s=LABEL_DELAY_S,
            ),
            Window(
                _feature(f"terminal_risk_{span}", "share", f"Share of fraud at the terminal in {_IN_WORDS[span]}, up to 7 days before."),
                MERCHANT,
                "mean",
                length_s,
                "is_fraud",
                LABEL_DELAY_S,
                empty=0.0,
            ),
        )
        for span, length_s in spans.items()
    )
    return (
        _amount_point(),
        Point(_feature("during_weekend", "0 or 1", "Whether it is Saturday or Sunday."), "is_weekend"),
        Point(_feature("during_night", "0 or 1", "Whether its hour is 0 to 6."), "is_night"),
        *(window for pair in customer for window in pair),
        *(window for pair in terminal for window in pair),
    )


FEATURES: tuple[Declaration, ...] = _features()
"""Every feature of a transaction; `features.select_features` leaves out those that a source has no columns for."""

HANDBOOK: tuple[Declaration, ...] = _handbook()
"""The features of Le Borgne, Siblini, Lebichot, Bontempi: Reproducible Machine Learning for Credit Card Fraud Detection,
2022, chapter 3: the amount, two flags, and counts, means and risks over 1, 7 and 30 days, the terminal's delayed by 7. The book lets
transactions of one second see the rows above them in the file; here they do not see each other."""
