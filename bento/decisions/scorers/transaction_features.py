"""One transaction's features, from its own fields and from the stored history of its customer and merchant.

The bundle carries the definitions; `finrisk_assets.features.online` computes them.
"""

from collections.abc import Sequence

import numpy as np

from bento.context import span
from bento.store.records import Transaction
from bento.store.session import Store
from bento.store.transactions import HistoryQuery
from finrisk_assets.features.online import OnlineFeatures
from finrisk_assets.features.windows import Declaration, from_json
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.spec import BundleError, Rows
from schemas.timestamps import to_micros


class TransactionFeatures:
    """Declared features, computed for one transaction at a time.

    Parameters
    ----------
    definitions
        The declarations, in the order of the returned row.
    """

    def __init__(self, definitions: Sequence[Declaration]) -> None:
        self._online = OnlineFeatures(definitions)
        self._query = HistoryQuery.of(self._online.history_s, self._online.counts)

    def row(self, transaction: Transaction, store: Store) -> Rows:
        """Return the model's row, float32 of shape (d,), as of the transaction's own time; NaN where a value is missing."""
        event = transaction._asdict() | {"occurred_at_us": to_micros(transaction.occurred_at)}
        with span("history"):
            history, counts = store.read_history(event, self._query, transaction.occurred_at)
        return self._online.compute(event, history, counts).astype(np.float32)


def read_definitions(bundle: Bundle) -> tuple[Declaration, ...]:
    """Return the definitions of a bundle's features.

    Raises
    ------
    finrisk_assets.scoring.spec.BundleError
        If the bundle has no feature definitions, or definitions that this code does not know.
    """
    name = f"{bundle.name} {bundle.version}"
    if not bundle.windows:
        raise BundleError(f"{name}: it has no `windows`, the definitions of its features; train the model again")
    try:
        definitions = from_json(bundle.windows)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{name}: it has `windows` that this code does not know ({error}); train the model with this code") from error
    unknown = sorted(frozenset().union(*(feature.columns for feature in definitions)) - set(Transaction._fields))
    if unknown:
        raise BundleError(f"{name}: it reads {', '.join(unknown)}, which this code's transactions lack; train the model with this code")
    return definitions
