"""The tables of the service's store: what is kept, in which form, and how it is found.

No identifier of a customer, an account, a transaction, a merchant or a country stands here in plain text. Where one is needed to find a
row, its place is taken by a token, `Keyring.token(kind, value)`; where it must be read again, it is sealed under the key of the person whom
it concerns. A person is a random surrogate that means nothing elsewhere. Every time is an integer: microseconds since 1970, UTC.

Statements stand in `store` and next to whom they belong; how a store of an older layout is brought here, in `migrations`.
"""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, LargeBinary, MetaData, Table, Text, text

REVISION = "0001"
"""The newest revision in `migrations`: the layout that this code reads and writes."""

metadata = MetaData()

_Counter = BigInteger().with_variant(Integer, "sqlite")  # only an `integer` counts by itself there
_IN_ORDER: dict[str, Any] = {"sqlite_autoincrement": True}  # a number is never given out twice, even if the newest row goes
_ONE_TREE: dict[str, Any] = {"sqlite_with_rowid": False}  # the rows stand in the index of the primary key


def _where_given(name: str, *columns: str, unique: bool = False) -> Index:
    """An index of the rows whose first column is not null: the others cost no write, and nobody looks for them."""
    given = text(f"{columns[0]} is not null")
    return Index(name, *columns, unique=unique, sqlite_where=given, postgresql_where=given)


people = Table(
    "people",
    metadata,
    Column("person", Text, primary_key=True),  # 32 hex digits at random
    Column("lookup", Text, unique=True),  # token of kind `customer`; null once erased
    Column("wrapped_key", LargeBinary),  # the person's data key under the master key, about `person`; null once erased
    Column("master", Text, nullable=False),  # id of that master key
    Column("created_at", BigInteger, nullable=False),
    Column("erased_at", BigInteger),
    **_ONE_TREE,
)
"""Whoever something is kept about. One of them is nobody (`privacy.NOBODY`): what names no person is sealed under a key of theirs."""

transactions = Table(
    "transactions",
    metadata,
    Column("transaction_token", Text, primary_key=True),  # of kind `transaction`
    Column("person", Text, nullable=False),
    Column("occurred_at", BigInteger, nullable=False),
    Column("amount", Double, nullable=False),
    Column("direction", Text, nullable=False),
    Column("merchant", Text),  # token of kind `merchant`
    Column("country", Text),  # token of kind `country`
    Column("is_fraud", Boolean),
    Column("label_known_at", BigInteger),
    Column("sealed", LargeBinary),  # JSON of the identifiers as they were sent, about `transaction_token`; null where the ledger has them
    # With everything that history features read: the rows themselves lie all over the table.
    Index("transactions_by_person", "person", "occurred_at", "amount", "is_fraud", "label_known_at", "merchant", "country"),
    Index("transactions_by_merchant", "merchant", "occurred_at", "amount", "is_fraud", "label_known_at"),
)
"""Movements of money: what history features are computed from. Time and amount are readable, because a merchant's history needs them."""

decisions = Table(
    "decisions",
    metadata,
    Column("position", _Counter, primary_key=True, autoincrement=True),  # the order of writing, whatever the clock said
    Column("id", Text, nullable=False, unique=True),  # see `Store.new_id`
    Column("person", Text),  # null where the request named nobody
    Column("domain", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("caller", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("transaction_token", Text),  # of kind `transaction`
    Column("idempotency", Text),  # token of kind `idempotency`, over the caller and the key that it sent
    Column("digest", Text, nullable=False),  # token of kind `request`, over the request
    Column("decided_at", BigInteger, nullable=False),
    Column("probability", Double),
    Column("decision", Text),
    Column("sealed", LargeBinary, nullable=False),  # request, answer and the model's row, about `id`: see `store.pack`
    _where_given("decisions_by_person", "person", "position"),
    _where_given("decisions_by_transaction", "transaction_token", unique=True),
    _where_given("decisions_by_idempotency", "idempotency", unique=True),
    **_IN_ORDER,
)
"""What was answered. The audit record of a decision has its `digest` for inputs and the SHA-256 of `sealed` for output."""

standings = Table(
    "standings",
    metadata,
    Column("subject", Text, primary_key=True),  # token of kind `subject`
    Column("domain", Text, primary_key=True),  # in this order, or SQLite's planner takes it for half an index by domain
    Column("person", Text, nullable=False),
    Column("account", Text),  # token of kind `account`; null where the domain decides on the customer as a whole
    Column("as_of", BigInteger),  # null where the source knows no time
    Column("sealed", LargeBinary, nullable=False),  # JSON: [subject, customer, account, features, score], about `subject`
    Index("standings_by_person", "person", "domain"),
    Index("standings_by_account", "account", "domain"),
    **_ONE_TREE,
)
"""How each customer stood in each domain when the ledger was last read."""

shadows = Table(
    "shadows",
    metadata,
    Column("position", _Counter, primary_key=True, autoincrement=True),
    Column("domain", Text, nullable=False),
    Column("person", Text),  # null where the request named nobody
    Column("subject", Text),  # token of kind `subject`; null where the request named none
    Column("sealed", LargeBinary),  # the subject itself, about `subject`
    Column("scored_at", BigInteger, nullable=False),
    Column("champion_version", Text, nullable=False),
    Column("champion_probability", Double, nullable=False),
    Column("champion_decision", Text, nullable=False),
    Column("challenger_version", Text, nullable=False),
    Column("challenger_probability", Double),
    Column("challenger_decision", Text),
    Column("failure", Text),  # the type of the challenger's failure
    Index("shadows_by_domain", "domain", "position"),
    Index("shadows_by_person", "person"),
    Index(
        "shadows_of_transactions",
        "subject",
        unique=True,
        sqlite_where=text("domain = 'transaction_anomaly'"),
        postgresql_where=text("domain = 'transaction_anomaly'"),
    ),
    **_IN_ORDER,
)
"""What a challenger would have answered beside the champion."""

feedback = Table(
    "feedback",
    metadata,
    Column("position", _Counter, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("decision", Text, nullable=False),  # `decisions.id`
    Column("person", Text),
    Column("label", Boolean, nullable=False),
    Column("known_at", BigInteger, nullable=False),
    Column("caller", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("note", LargeBinary),  # sealed, about `id`
    Index("feedback_by_decision", "decision", "position"),
    Index("feedback_by_person", "person"),
    **_IN_ORDER,
)
"""What an analyst found out about a decision."""

audit = Table(
    "audit",
    metadata,
    Column("writer", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("caller", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("person", Text),
    Column("domain", Text),
    Column("model_version", Text),
    Column("inputs", Text),
    Column("output", Text),
    Column("request_id", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index("audit_by_time", "at"),
    _where_given("audit_by_person", "person", "at"),
    **_ONE_TREE,
)
"""Who did what and when: chained by hash, one chain for each process that writes. See `audit`."""

audit_heads = Table(
    "audit_heads",
    metadata,
    Column("writer", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
    Column("mac", Text, nullable=False),
    **_ONE_TREE,
)
"""Where each chain ends."""

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("writer", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("mac", Text, nullable=False),
    Index("checkpoints_by_writer", "writer", "number"),
    **_ONE_TREE,
)
"""How far each chain had come: a chain of its own, over all writers."""

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("salt", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("roles", Text, nullable=False),  # with spaces between
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
)
"""API keys: salted hashes, never a key."""
