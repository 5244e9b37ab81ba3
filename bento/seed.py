"""Fills the service's store with the ledger's recent transactions, so that the first request already has a history.

    python -m bento.seed transactions.parquet

The Parquet file has the columns of the ledger's table `transactions`; those it lacks are not known. It runs where models are
made (reading Parquet takes pyarrow, which the container does not carry), as often as one likes: a transaction is stored once.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from bento.store import Store, Transaction, location
from finrisk_assets.settings import Settings

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


def main() -> None:
    """Read the arguments and fill the store of FINRISK_SOURCE."""
    parser = argparse.ArgumentParser(prog="python -m bento.seed", description=__doc__)
    parser.add_argument("parquet", type=Path, help="transactions, with the columns of the ledger's table")
    store = Store(location(Settings.from_environment()))
    store.load(read(parser.parse_args().parquet))
    store.close()


if __name__ == "__main__":
    main()
