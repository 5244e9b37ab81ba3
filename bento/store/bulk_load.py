"""The ledger's transactions as the store takes them, so that the first request already has a history: `finrisk load-history`.

A Parquet file has the columns of the ledger's table `transactions`; those it lacks are not known. It is read where models are
made: that takes pyarrow, which the container does not carry.
"""

from collections.abc import Iterator
from pathlib import Path

from bento.store.session import Transaction

_REQUIRED = ("transaction_id", "customer_id", "occurred_at", "amount", "direction")


def read(parquet: Path) -> Iterator[Transaction]:
    """The transactions of a Parquet file, a batch of rows at a time.

    Raises
    ------
    ValueError
        If a column that every transaction needs is missing.
    """
    from pyarrow.parquet import ParquetFile

    with ParquetFile(parquet) as file:
        missing = [name for name in _REQUIRED if name not in file.schema_arrow.names]
        if missing:
            raise ValueError(f"{parquet}: a transaction needs the columns {', '.join(_REQUIRED)}; missing: {', '.join(missing)}")
        columns = [name for name in Transaction._fields if name in file.schema_arrow.names]
        for batch in file.iter_batches(columns=columns):
            for values in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
                yield Transaction(**dict(zip(columns, values, strict=True)))
