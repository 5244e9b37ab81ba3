"""Bulk load of the ledger's transactions, so that the first request already has a history: `finrisk load-history`.

A Parquet file has the columns of the ledger's table `transactions`; missing columns are unknown values. Reading the file takes pyarrow,
which the container does not carry.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from bento.store.records import Transaction
from bento.store.tables import transactions
from bento.store.transactions import forget_histories
from bento.store.unit_of_work import UnitOfWork
from schemas.timestamps import to_micros

LOAD_CHUNK_SIZE = 4_000
"""Transactions that are loaded in one database transaction: others write between two chunks."""
_REQUIRED = ("transaction_id", "customer_id", "occurred_at", "amount", "direction")
_COLUMNS = ("transaction_token", "person", "occurred_at", "amount", "direction", "merchant", "country", "is_fraud", "label_known_at")
_UPDATE_LABEL = "on conflict (transaction_token) do update set is_fraud = excluded.is_fraud, label_known_at = excluded.label_known_at "
_UPDATE_LABEL += "where excluded.is_fraud is not null and "
_UPDATE_LABEL += "(transactions.is_fraud, transactions.label_known_at) is distinct from (excluded.is_fraud, excluded.label_known_at)"


def read_transactions(parquet: Path) -> Iterator[Transaction]:
    """Yield the transactions of a Parquet file, with one batch of rows in memory at a time.

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


def load_transactions(session: UnitOfWork, ledger: Iterable[Transaction]) -> int:
    """Store the ledger's transactions; a stored transaction only learns its label.

    Chunks are committed one by one, so the service writes between them. A load that was cut off may be repeated.

    Returns
    -------
    int
        The number of transactions read.
    """
    chunks = _pack_chunks(session, iter(ledger))
    if _is_empty_sqlite(session):
        return _load_empty_sqlite(session, chunks)
    total = 0
    for chunk in chunks:
        with session.writing() as connection:
            forget_histories(session)
            (_load_sqlite if session.database.dialect == "sqlite" else _load_postgresql)(connection, chunk)
        total += len(chunk)
    return total


def _is_empty_sqlite(session: UnitOfWork) -> bool:
    with session.reading() as connection:
        return session.database.dialect == "sqlite" and connection.execute(select(transactions.c.person).limit(1)).first() is None


def _load_empty_sqlite(session: UnitOfWork, chunks: Iterable[list[tuple[Any, ...]]]) -> int:
    # In the order of the key, with the indexes built afterwards, each page is written once.
    rows = sorted((row for chunk in chunks for row in chunk), key=itemgetter(0))
    with session.writing() as connection:
        forget_histories(session)
        connection.exec_driver_sql("pragma cache_size = -200000")  # kB
        for index in sorted(transactions.indexes, key=str):
            index.drop(connection)
        if rows:
            _load_sqlite(connection, rows)
        for index in sorted(transactions.indexes, key=str):
            index.create(connection)
    return len(rows)


def _load_sqlite(connection: Connection, rows: list[tuple[Any, ...]]) -> None:
    marks = ", ".join("?" * len(_COLUMNS))
    connection.exec_driver_sql(f"insert into transactions ({', '.join(_COLUMNS)}) values ({marks}) {_UPDATE_LABEL}", rows)


def _load_postgresql(connection: Connection, rows: list[tuple[Any, ...]]) -> None:
    """Load rows by COPY through a temporary table: one round trip for all rows."""
    lines = io.StringIO()
    csv.writer(lines).writerows(["" if value is None else value for value in row] for row in rows)
    lines.seek(0)
    columns = ", ".join(_COLUMNS)
    connection.exec_driver_sql("create temporary table loaded (like transactions) on commit drop")
    cursor: Any = connection.connection.cursor()
    cursor.execute(f"copy loaded ({columns}) from stdin with (format csv)", stream=lines)
    # Of two rows of one transaction the last counts, as it would if they were loaded one after the other.
    newest = f"select distinct on (transaction_token) {columns} from loaded order by transaction_token, ctid desc"
    connection.exec_driver_sql(f"insert into transactions ({columns}) {newest} {_UPDATE_LABEL}")


def _pack_chunks(session: UnitOfWork, ledger: Iterator[Transaction]) -> Iterator[list[tuple[Any, ...]]]:
    """Yield chunks of rows, after their customers were registered."""
    people: dict[str, str] = {}
    tokens: dict[tuple[str, str], str] = {}
    while chunk := list(islice(ledger, LOAD_CHUNK_SIZE)):
        people |= session.register_customers({transaction.customer_id for transaction in chunk} - people.keys())
        yield [_pack(session, transaction, people, tokens) for transaction in chunk]


def _pack(session: UnitOfWork, transaction: Transaction, people: dict[str, str], tokens: dict[tuple[str, str], str]) -> tuple[Any, ...]:
    """Return a row in the order of `_COLUMNS`; `tokens` remembers merchants and countries, of which many rows share a few."""

    def token(kind: str, value: str | None) -> str | None:
        if value is None:
            return None
        if (kind, value) not in tokens:
            tokens[kind, value] = session.keyring.token(kind, value)
        return tokens[kind, value]

    return (
        session.keyring.token("transaction", transaction.transaction_id),
        people[transaction.customer_id],
        to_micros(transaction.occurred_at),
        transaction.amount,
        transaction.direction,
        token("merchant", transaction.merchant),
        token("country", transaction.country),
        transaction.is_fraud,
        None if transaction.label_known_at is None else to_micros(transaction.label_known_at),
    )
