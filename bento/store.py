"""What the service remembers: recent transactions, which history features are computed from, the answers it gave to them, how each
customer stood in each domain when the ledger was last read, and what a challenger would have answered beside the champion.

One SQLite file per source, shared by all workers. An answer is committed to disk before it is sent, so a client that saw
it will get the same one again. SQL stands nowhere else.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from finrisk_assets.features.online import micros
from finrisk_assets.settings import Settings

_SCHEMA = """
create table if not exists transactions (
    transaction_id text primary key,
    customer_id text not null,
    occurred_at integer not null,  -- microseconds since 1970, UTC
    amount real not null,
    direction text not null,
    merchant text,
    country text,
    is_fraud integer,
    label_known_at integer
);
create index if not exists transactions_by_customer on transactions (customer_id, occurred_at);
create index if not exists transactions_by_merchant on transactions (merchant, occurred_at);
create index if not exists transactions_by_customer_merchant on transactions (customer_id, merchant, occurred_at);
create index if not exists transactions_by_customer_country on transactions (customer_id, country, occurred_at);
create table if not exists answers (
    transaction_id text primary key references transactions,
    answer text not null
) without rowid;
create table if not exists standings (
    domain text not null,
    subject text not null,
    customer_id text not null,
    account_id text,
    as_of integer,  -- microseconds since 1970, UTC; null where the source knows no time
    features text not null,  -- JSON
    score text not null,  -- JSON
    primary key (subject, domain)  -- in this order, or the planner takes it for half an index by domain
) without rowid;
create table if not exists shadows (
    id integer primary key,
    domain text not null,
    subject text,  -- the key of the row in the domain's tables; null where the request named nobody
    scored_at integer not null,  -- microseconds since 1970, UTC
    champion_version text not null,
    champion_probability real not null,
    champion_decision text not null,
    challenger_version text not null,
    challenger_probability real,
    challenger_decision text,
    failure text  -- the type of the challenger's failure
);
create index if not exists shadows_by_domain on shadows (domain, id);
create unique index if not exists shadows_of_transactions on shadows (subject) where domain = 'transaction_anomaly';
create index if not exists standings_by_customer on standings (customer_id, domain);
create index if not exists standings_by_account on standings (account_id, domain);
"""
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_BUSY_SECONDS = 2.0
_OPENING_SECONDS = 30.0
MOST_SHADOWS = 100_000
"""Records of shadow scoring that are kept of each domain, the newest."""
_ENTITY_COLUMNS = frozenset({"customer_id", "merchant", "country"})
_INSERT = "insert into transactions values (?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict (transaction_id) do "


Event: TypeAlias = tuple[int, float, bool | None, int | None]
"""occurred_at_us, amount, is_fraud, label_known_at_us: what history features read. Microseconds since 1970, UTC."""


def location(settings: Settings) -> Path:
    """Where the store of a source is."""
    return settings.root / "service" / "store.sqlite"


class Transaction(NamedTuple):
    """One movement of money, as the ledger's table `transactions` has it."""

    transaction_id: str
    customer_id: str
    occurred_at: datetime
    amount: float
    direction: str
    merchant: str | None = None
    country: str | None = None
    is_fraud: bool | None = None
    label_known_at: datetime | None = None


@dataclass(frozen=True)
class Known:
    """A transaction that the store already holds, and the answer that was given to it, if one was."""

    transaction: Transaction
    answer: str | None


class Standing(NamedTuple):
    """How a customer, or one account of a customer, stood in one domain: the newest features and the score that the batch gave them.

    Attributes
    ----------
    domain, subject
        The domain, and the key of the row in its tables: ``5@2024-06``.
    account_id
        None where the domain decides on the customer as a whole.
    as_of
        When the decision fell; None where the source knows no time.
    features
        What was known then, by name: the features, and the numbers that stand beside them (a PD, an income).
    score
        The columns of the batch score by name: ``score``, ``probability``, ``decision``, ``model_version`` and the domain's own.
    """

    domain: str
    subject: str
    customer_id: str
    account_id: str | None
    as_of: datetime | None
    features: Mapping[str, float | None]
    score: Mapping[str, Any]


class Shadowed(NamedTuple):
    """What the champion answered to one request, and what the challenger would have.

    Attributes
    ----------
    domain, subject
        The domain, and the key of the row in its tables; None where the request named nobody.
    scored_at
        When it was answered.
    challenger_probability, challenger_decision
        None where the challenger failed.
    failure
        The type of its failure.
    """

    domain: str
    subject: str | None
    scored_at: datetime
    champion_version: str
    champion_probability: float
    champion_decision: str
    challenger_version: str
    challenger_probability: float | None
    challenger_decision: str | None
    failure: str | None


class Store:
    """An open store. One per worker; the connection is used by one thread at a time.

    Parameters
    ----------
    path
        The SQLite file; it and its folder are made where they are missing.
    durable
        Whether what is written is on disk before it is done. Where not, it is not lost unless the machine fails.

    Raises
    ------
    sqlite3.Error
        If the file cannot be opened, or is not a database.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute(f"pragma synchronous = {'full' if durable else 'normal'}")
        # Nobody waits for an answer yet, and `finrisk load-history` may be at work.
        self._connection.execute(f"pragma busy_timeout = {_OPENING_SECONDS * 1000:.0f}")
        with self.writing():
            for statement in _SCHEMA.split(";\n"):
                self._connection.execute(statement)
        self._connection.execute(f"pragma busy_timeout = {_BUSY_SECONDS * 1000:.0f}")

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Everything inside is committed to disk at the end, or nothing is. No other worker writes meanwhile."""
        self._connection.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._connection.execute("rollback")
            raise
        self._connection.execute("commit")

    def is_writable(self) -> bool:
        """Whether a write would succeed now."""
        try:
            self._connection.execute("begin immediate")
            self._connection.execute("rollback")
        except sqlite3.Error:
            return False
        return self.path.exists()

    def history(self, entity: Mapping[str, str], after: datetime, before: datetime) -> list[Event]:
        """The events of an entity between two moments, neither included.

        Parameters
        ----------
        entity
            Columns and values that name it: ``{"customer_id": "5", "merchant": "12"}``.

        Returns
        -------
        list of Event
            In no particular order.

        Raises
        ------
        ValueError
            For a column that no index helps with.
        """
        if not entity.keys() <= _ENTITY_COLUMNS:
            raise ValueError(f"the store keeps history by {', '.join(sorted(_ENTITY_COLUMNS))}, not by {', '.join(entity)}")
        where = " and ".join(f"{column} = ?" for column in entity)
        return self._connection.execute(
            f"select occurred_at, amount, is_fraud, label_known_at from transactions where {where} and occurred_at > ? and occurred_at < ?",
            (*entity.values(), micros(after), micros(before)),
        ).fetchall()

    def find(self, transaction_id: str) -> Known | None:
        """The transaction with that identifier, or None."""
        row = self._connection.execute(
            "select t.*, a.answer from transactions t left join answers a using (transaction_id) where transaction_id = ?",
            (transaction_id,),
        ).fetchone()
        return None if row is None else Known(_transaction(row[:-1]), row[-1])

    def keep(self, transaction: Transaction, answer: str) -> None:
        """Store a transaction, unless it is there already, and the answer to it. Call it inside `writing`."""
        self._connection.execute(_INSERT + "nothing", _row(transaction))
        self._connection.execute("insert into answers values (?, ?)", (transaction.transaction_id, answer))

    def load(self, transactions: Iterable[Transaction]) -> int:
        """Store the ledger's transactions, all or none; one that is there already only learns its label.

        Returns
        -------
        int
            How many were read.
        """
        with self.writing():
            before = self._connection.total_changes
            self._connection.executemany(
                _INSERT + "update set is_fraud = excluded.is_fraud, label_known_at = excluded.label_known_at "
                "where excluded.is_fraud is not null",
                map(_row, transactions),
            )
            return self._connection.total_changes - before

    def replace_standings(self, standings: Iterable[Standing]) -> int:
        """Put these in the place of all standings that are there, all or none; return how many they are."""
        with self.writing():
            self._connection.execute("delete from standings")
            rows = self._connection.executemany("insert into standings values (?, ?, ?, ?, ?, ?, ?)", map(_standing_row, standings))
            return max(rows.rowcount, 0)

    def standings(self, *, customer_id: str | None = None, account_id: str | None = None, domain: str | None = None) -> list[Standing]:
        """The standings of a customer or of an account, in all domains or in one, in the order of domain and subject.

        Raises
        ------
        ValueError
            Where neither customer nor account is named.
        """
        named = {"customer_id": customer_id, "account_id": account_id, "domain": domain}
        where = {column: value for column, value in named.items() if value is not None}
        if not where.keys() - {"domain"}:
            raise ValueError("standings are of a customer or of an account: name one")
        rows = self._connection.execute(
            f"select * from standings where {' and '.join(f'{column} = ?' for column in where)} order by domain, subject",
            tuple(where.values()),
        ).fetchall()
        return [_standing(row) for row in rows]

    def keep_shadows(self, shadows: Sequence[Shadowed], most: int = MOST_SHADOWS) -> None:
        """Store what champion and challenger said, and let go of the oldest beyond `most` of a domain; a transaction is there once."""
        with self.writing():
            rows = [(*one[:2], micros(one.scored_at), *one[3:]) for one in shadows]
            self._connection.executemany("insert or ignore into shadows values (null, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            for domain in {one.domain for one in shadows}:
                self._connection.execute(
                    "delete from shadows where domain = ? and id <= "
                    "(select id from shadows where domain = ? order by id desc limit 1 offset ?)",
                    (domain, domain, most),
                )

    def shadows(self, domain: str) -> list[Shadowed]:
        """What is kept of a domain, the oldest first."""
        rows = self._connection.execute("select * from shadows where domain = ? order by id", (domain,)).fetchall()
        return [Shadowed(*row[1:])._replace(scored_at=_moment(row[3])) for row in rows]


def _standing_row(standing: Standing) -> tuple[Any, ...]:
    as_of = None if standing.as_of is None else micros(standing.as_of)
    plain = (json.dumps(values, allow_nan=False, separators=(",", ":")) for values in (standing.features, standing.score))
    return (standing.domain, standing.subject, standing.customer_id, standing.account_id, as_of, *plain)


def _standing(row: tuple[Any, ...]) -> Standing:
    stored = Standing(*row)
    return stored._replace(
        as_of=None if row[4] is None else _moment(row[4]),
        features=json.loads(row[5]),
        score=json.loads(row[6]),
    )


def _row(transaction: Transaction) -> tuple[Any, ...]:
    known_at = transaction.label_known_at
    return transaction._replace(
        occurred_at=micros(transaction.occurred_at),  # type: ignore[arg-type]
        label_known_at=None if known_at is None else micros(known_at),  # type: ignore[arg-type]
    )


def _transaction(row: tuple[Any, ...]) -> Transaction:
    stored = Transaction(*row)
    return stored._replace(
        occurred_at=_moment(row[2]),
        is_fraud=None if stored.is_fraud is None else bool(stored.is_fraud),
        label_known_at=None if row[8] is None else _moment(row[8]),
    )


def _moment(microseconds: int) -> datetime:
    return _EPOCH + microseconds * _MICROSECOND
