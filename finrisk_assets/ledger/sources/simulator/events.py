"""Movements of money during the simulation: equal-length columns of codes, not yet in order."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

NO_MERCHANT = -1
NO_EPISODE = -1

_TYPES = {
    "customer": np.int32, "second": np.int64, "cents": np.int64, "sign": np.int8, "category": np.int8, "merchant": np.int32,
    "country": np.int8, "episode": np.int32,
}  # fmt: skip


@dataclass(frozen=True)
class Events:
    """Movements, one element each; every array has the same length.

    Attributes
    ----------
    customer, category, merchant, country
        Codes; `merchant` is ``NO_MERCHANT`` where there is none.
    second
        Seconds since the economy's start.
    cents
        Size in cents, 0 or more.
    sign
        1 for a credit, -1 for a debit.
    episode
        Number of the episode that a purchase belongs to (`episodes`), or ``NO_EPISODE``.
    """

    customer: np.ndarray
    second: np.ndarray
    cents: np.ndarray
    sign: np.ndarray
    category: np.ndarray
    merchant: np.ndarray
    country: np.ndarray
    episode: np.ndarray

    def __len__(self) -> int:
        return len(self.customer)

    def take(self, index: np.ndarray) -> "Events":
        """Return the movements at `index`, or where a mask is true."""
        return Events(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def in_order(self) -> "Events":
        """Return the movements in order of time (of customer at one instant)."""
        return self.take(np.lexsort((self.customer, self.second)))

    def balances(self) -> np.ndarray:
        """Return the balance after each movement, in cents; the movements are in order of time."""
        order = np.argsort(self.customer, kind="stable")
        customer, signed = self.customer[order], (self.sign * self.cents)[order]
        first = np.flatnonzero(np.diff(customer, prepend=-1))
        total = np.cumsum(signed)
        before = np.repeat(total[first] - signed[first], np.diff(np.append(first, len(customer))))
        balance = np.empty_like(total)
        balance[order] = total - before
        return balance


def make_events(
    customer: ArrayLike,
    second: ArrayLike,
    cents: ArrayLike,
    category: ArrayLike,
    merchant: ArrayLike,
    country: ArrayLike,
    *,
    sign: int = -1,
    episode: ArrayLike = NO_EPISODE,
) -> Events:
    """Build movements; single values are repeated to the length of `customer`."""
    columns = {
        "customer": customer, "second": second, "cents": np.rint(cents), "sign": sign, "category": category,
        "merchant": merchant, "country": country, "episode": episode,
    }  # fmt: skip
    size = np.shape(customer)
    return Events(**{name: np.broadcast_to(value, size).astype(_TYPES[name]) for name, value in columns.items()})


def concatenate(*parts: Events) -> Events:
    """Concatenate movements."""
    return Events(**{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Events)})
