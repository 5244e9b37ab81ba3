"""The fit of a boosted model on the rows of all customers, where the sample that trains on one node holds a part of them.

The sample decides what a row's numbers are, the settings of the model, its calibration and the choice among candidates; the other rows
teach the trees alone.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from schemas.features import Feature

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.scoring.feature_values import LevelWeights
    from finrisk_assets.scoring.spec import Rows

KEY, LABEL, FEATURES = "key", "label", "features"
"""Columns of the rows that teach: the identifier, the outcome as 0 or 1, and the numbers of the features, NaN where missing."""
SHARE_STEPS = 10_000
"""Steps in which a share of rows is drawn."""


@dataclass(frozen=True)
class RowEncoder:
    """The numbers of a batch of a feature table, as the trees read them; it runs wherever the rows are.

    Attributes
    ----------
    key, label
        Columns of the feature table.
    features
        In the order of the numbers, categories with their levels.
    weights
        Place of each category to the weights of its levels. They are learned from the sample, so no row is weighed by its own outcome.
    blank
        Places of features from which no model learns.
    quiet_share
        Share of the rows without the outcome that teach; drawn by the key.
    """

    key: str
    label: str
    features: Sequence[Feature]
    weights: "Mapping[int, LevelWeights]" = field(default_factory=dict)
    blank: tuple[int, ...] = ()
    quiet_share: float = 1.0

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the feature table that it reads."""
        return (self.key, self.label, *(feature.name for feature in self.features))

    def __call__(self, batch: "pa.RecordBatch") -> "pa.RecordBatch":
        """Return the rows of a batch that teach."""
        import numpy as np

        from finrisk_assets.modelling.training.candidates import to_matrix

        frame = batch.to_pandas()
        labels = frame[self.label].to_numpy(bool)
        if self.quiet_share < 1:
            steps = np.array([zlib.crc32(str(key).encode()) % SHARE_STEPS for key in frame[self.key]])
            is_drawn = labels | (steps < self.quiet_share * SHARE_STEPS)
            frame, labels = frame[is_drawn], labels[is_drawn]
        rows = np.array(to_matrix(frame, self.features))  # a copy: that of one column is a view of the batch
        for place, weights in self.weights.items():
            rows[:, place] = weights.encode(rows[:, place])
        rows[:, list(self.blank)] = 0.0
        return to_batch(frame[self.key], labels, rows)


def to_batch(keys: Any, labels: "np.ndarray", rows: "Rows") -> "pa.RecordBatch":
    """Return rows that teach as Arrow.

    Parameters
    ----------
    keys, labels : shape (n,)
    rows : ndarray of float32, shape (n, d)
    """
    import numpy as np
    import pyarrow as pa

    starts = pa.array(np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1])
    lists = pa.ListArray.from_arrays(starts, pa.array(rows.reshape(-1)))
    return pa.RecordBatch.from_arrays([pa.array(keys, pa.string()), pa.array(labels.astype(np.float32)), lists], [KEY, LABEL, FEATURES])


@dataclass(frozen=True)
class TeachingRows:
    """The rows from which the trees learn.

    Attributes
    ----------
    sample
        Those of the training window, encoded.
    select
        Returns those rows of other customers' feature table that may teach too.
    encoder
        Encodes these.
    """

    sample: "pa.RecordBatch"
    select: "Callable[[LazyTable], LazyTable]"
    encoder: RowEncoder


class LedgerFit(Protocol):
    """A fit on the rows of all customers."""

    def __call__(self, models: Mapping[str, Any], rows: TeachingRows) -> Mapping[str, Any]:
        """Return XGBClassifiers with the settings of `models`, by name; none where the fit did not end, and those of the sample stand."""


def select_known(table: "LazyTable", label: str, taught: "pd.DataFrame", times: Sequence[str]) -> "LazyTable":
    """Return the rows of the times of a training window whose outcome was known by then.

    Parameters
    ----------
    taught
        Rows of the training window.
    times
        Columns of both; one of which no row has a time bounds nothing.
    """
    import ibis

    rows = table.filter(table[label].notnull())
    for name in times:
        if name in rows.columns and taught[name].notna().any():
            rows = rows.filter(rows[name] <= ibis.literal(taught[name].max().to_pydatetime(), type="timestamp"))
    return rows
