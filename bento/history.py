"""One transaction's features: its own reading and what the store knows of its customer and merchant before it.

The declarations are the ones that the model was trained with; what computes them is `finrisk_assets.features.online`.
"""

from datetime import timedelta

import numpy as np

from bento.store import Store, Transaction
from finrisk_assets.features.online import History, OnlineFeatures, micros
from finrisk_assets.modelling.bundle import Bundle, BundleError, Rows
from finrisk_assets.transaction_anomaly.features import FEATURES, HANDBOOK

_DECLARED = {declared.feature.name: declared for declared in (*HANDBOOK, *FEATURES)}


class TransactionFeatures:
    """The features of one bundle, ready to be computed for a transaction at a time.

    Raises
    ------
    finrisk_assets.modelling.bundle.BundleError
        If the bundle has a feature that is not declared here, or is declared with another meaning.
    """

    def __init__(self, bundle: Bundle) -> None:
        strange = [feature.name for feature in bundle.features if _feature(feature.name) != feature]
        if strange:
            raise BundleError(
                f"{bundle.name} {bundle.version}: its features {', '.join(strange)} are not those of "
                "finrisk_assets.transaction_anomaly.features; train the model again with this code"
            )
        self._online = OnlineFeatures([_DECLARED[feature.name] for feature in bundle.features])

    def row(self, transaction: Transaction, store: Store) -> Rows:
        """The model's row, float32 of shape (d,), as of the transaction's own time; NaN where a value is missing."""
        event = transaction._asdict() | {"occurred_at_us": micros(transaction.occurred_at)}
        history = {}
        for entity, seconds in self._online.history_s.items():
            named = {column: event[column] for column in entity}
            if None not in named.values():
                after = transaction.occurred_at - timedelta(seconds=seconds)
                history[entity] = History.of(store.history(named, after, transaction.occurred_at))
        return self._online.compute(event, history).astype(np.float32)


def _feature(name: str) -> object:
    return _DECLARED[name].feature if name in _DECLARED else None
