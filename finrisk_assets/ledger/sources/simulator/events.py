"""Movements of money while they are being made: equal-length columns of codes, not yet in order."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

NOBODY = -1
GENUINE, CARD_TESTING, ACCOUNT_TAKEOVER, COMPROMISED_MERCHANT = range(4)
SCENARIOS: tuple[str, ...] = ("genuine", "card_testing", "account_takeover", "compromised_merchant")


@dataclass
class Events:
    """Movements, one element each; every array has the same length.

    Attributes
    ----------
    customer, category, merchant, country
        Codes; `merchant` is ``NOBODY`` where there is none.
    second
        Seconds since the economy's start.
    cents
        Size in cents, 0 or more.
    sign
        1 for a credit, -1 for a debit.
    elastic
        Whether the person would spend less here when money is short.
    scenario
        Which fraud, or ``GENUINE``.
    reported
        Second at which the fraud is reported; 0 for a genuine movement.
    refunds
        For a refund, the index of the movement that it pays back; otherwise -1.
    """

    customer: np.ndarray
    second: np.ndarray
    cents: np.ndarray
    sign: np.ndarray
    category: np.ndarray
    merchant: np.ndarray
    country: np.ndarray
    elastic: np.ndarray
    scenario: np.ndarray
    reported: np.ndarray
    refunds: np.ndarray

    def __len__(self) -> int:
        return len(self.customer)

    def take(self, index: np.ndarray) -> "Events":
        """Return the movements at `index`, or where a mask is true. Refunds must not have been added yet."""
        return Events(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


_TYPES = {"customer": np.int32, "second": np.int64, "cents": np.int64, "refunds": np.int64, "reported": np.int64}


def events(
    customer: ArrayLike,
    second: ArrayLike,
    amount: ArrayLike,
    category: ArrayLike,
    merchant: ArrayLike,
    country: ArrayLike,
    *,
    sign: int = -1,
    elastic: bool = False,
    scenario: int = GENUINE,
    reported: ArrayLike = 0,
    refunds: ArrayLike = -1,
) -> Events:
    """Make movements; single values are repeated to the length of `customer`. `amount` is in currency, at least a cent."""
    columns = {
        "customer": customer, "second": second, "cents": np.maximum(np.rint(np.asarray(amount) * 100), 1), "sign": sign,
        "category": category, "merchant": merchant, "country": country, "elastic": elastic, "scenario": scenario,
        "reported": reported, "refunds": refunds,
    }  # fmt: skip
    size = np.shape(customer)
    small = {
        "sign": np.int8,
        "category": np.int8,
        "country": np.int8,
        "elastic": np.bool_,
        "scenario": np.int8,
        "merchant": np.int32,
    }
    return Events(**{name: np.broadcast_to(value, size).astype((_TYPES | small)[name]) for name, value in columns.items()})


def concatenate(*parts: Events) -> Events:
    """Put movements one behind the other."""
    return Events(**{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Events)})
