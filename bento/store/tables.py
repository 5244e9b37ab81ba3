"""The tables and indexes of the service's store.

No identifier of a customer, an account, a transaction, a merchant or a country is stored in plain text. An identifier that finds a row is
a token, `Keyring.token(kind, value)`; an identifier that must be read again is sealed under the key of the person concerned. A person is
a random pseudonymous id. Every time is an integer: microseconds since 1970, UTC.

Statements stand in the modules of each table; the upgrade of an older schema in `migrations`.
"""

from math import nan
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Dialect, Double, Index, Integer, LargeBinary, MetaData, Table, Text, text

REVISION = "0007"
"""Newest revision in `migrations`: the schema that this code reads and writes."""

metadata = MetaData()

_Counter = BigInteger().with_variant(Integer, "sqlite")  # only an `integer` autoincrements there
_IN_ORDER: dict[str, Any] = {"sqlite_autoincrement": True}  # a number is never reused, even after the newest row is deleted
_ONE_TREE: dict[str, Any] = {"sqlite_with_rowid": False}  # rows are stored in the index of the primary key


def _not_null_index(name: str, *columns: str, unique: bool = False) -> Index:
    """Return an index of the rows whose first column is not null: the other rows cost no write and are never looked up."""
    not_null = text(f"{columns[0]} is not null")
    return Index(name, *columns, unique=unique, sqlite_where=not_null, postgresql_where=not_null)


# On SQLite any column takes a value of any type, so whoever can write the database can put bytes into a column of text. Such a value is
# read as one that the service never writes: it fails the MAC, the hash or the key of its row, as any other change does, and ends nothing.


class _StoredText(Text):
    """Text; a value of another type is read as its Python form."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        if dialect.name != "sqlite":
            return super().result_processor(dialect, coltype)
        return lambda value: value if value is None or type(value) is str else repr(value)


class _StoredBytes(LargeBinary):
    """Bytes; a value of another type is read as no bytes, which open with no key."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        if dialect.name != "sqlite":
            return super().result_processor(dialect, coltype)
        return lambda value: value if value is None or type(value) is bytes else b""


class _StoredInteger(BigInteger):
    """An integer; a value of another type is read as -1: no number of a record, and a moment before 1970."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        if dialect.name != "sqlite":
            return super().result_processor(dialect, coltype)
        return lambda value: value if value is None or type(value) is int else -1


class _StoredNumber(Double[float]):
    """A number; a value of another type is read as NaN, which equals no number."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        if dialect.name != "sqlite":
            return super().result_processor(dialect, coltype)
        return lambda value: value if value is None or type(value) is float else nan


class _StoredBoolean(Boolean):
    """A truth value; a value that is neither is read as None."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        if dialect.name != "sqlite":
            return super().result_processor(dialect, coltype)
        return {0: False, 1: True}.get


people = Table(
    "people",
    metadata,
    Column("person", _StoredText, primary_key=True),  # 32 hex digits at random
    Column("lookup", _StoredText, unique=True),  # token of kind `customer`; null once erased
    Column("wrapped_key", _StoredBytes),  # data key under the master key, about `person` and `lookup`; null once erased
    Column("master", _StoredText, nullable=False),  # id of that master key
    Column("created_at", _StoredInteger, nullable=False),
    Column("erased_at", _StoredInteger),
    **_ONE_TREE,
)
"""People, and `keyring.SERVICE_KEY_OWNER`, whose row holds the root secret for data without a person."""

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
    Column("sealed", LargeBinary),  # JSON of the identifiers as sent, about `transaction_token`; null where the ledger has them
    Column("written_in", BigInteger),  # PostgreSQL's number of the transaction that inserted the row, by default; null on SQLite
    _not_null_index("transactions_by_writing", "written_in"),
    # Covering indexes: the columns of history features are read without touching the rows, which lie scattered over the table.
    Index("transactions_by_person", "person", "occurred_at", "amount", "is_fraud", "label_known_at", "merchant", "country"),
    Index("transactions_by_merchant", "merchant", "occurred_at", "amount", "is_fraud", "label_known_at"),
)
"""Movements of money, the input of history features. Time and amount are readable, because a merchant's history needs them."""

history_version = Table(
    "history_version",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("number", BigInteger, nullable=False),
)
"""On PostgreSQL the number of changes of stored transactions beside inserts: workers compare it, see `transactions`. Empty on SQLite."""

decisions = Table(
    "decisions",
    metadata,
    Column("position", _Counter, primary_key=True, autoincrement=True),  # the order of writing, independent of the clock
    Column("id", _StoredText, nullable=False, unique=True),  # see `Store.new_id`
    Column("person", _StoredText),  # null where the request named no person
    Column("domain", _StoredText, nullable=False),
    Column("route", _StoredText, nullable=False),
    Column("model_version", _StoredText, nullable=False),
    Column("policy_version", _StoredText),  # null where the decision is older than policies
    Column("caller", _StoredText, nullable=False),
    Column("request_id", _StoredText, nullable=False),
    Column("transaction_token", _StoredText),  # of kind `transaction`
    Column("idempotency", _StoredText),  # token of kind `idempotency`, over the caller and the key that it sent
    Column("digest", _StoredText, nullable=False),  # token of kind `request`, over the request
    Column("decided_at", _StoredInteger, nullable=False),
    Column("probability", _StoredNumber),
    Column("decision", _StoredText),
    Column("sealed", _StoredBytes, nullable=False),  # request, answer and the model's row, about `id`: see `bento.store.decisions`
    _not_null_index("decisions_by_person", "person", "position"),
    _not_null_index("decisions_by_transaction", "transaction_token", unique=True),
    _not_null_index("decisions_by_idempotency", "idempotency", unique=True),
    **_IN_ORDER,
)
"""Decisions. The audit record of a decision has its `digest` for inputs and `decisions.bind_row` of its columns for output."""

bundles = Table(
    "bundles",
    metadata,
    Column("domain", _StoredText, primary_key=True),
    Column("version", _StoredText, primary_key=True),
    Column("sealed", _StoredBytes, nullable=False),  # a zip of the bundle's files, about `domain` and `version`, under the service key
)
"""Scoring bundles of the models that decided: see `bento.decisions.bundle_versions`."""

policies = Table(
    "policies",
    metadata,
    Column("version", _StoredText, primary_key=True),  # the first digits of the document's hash, which proves it
    Column("document", _StoredText, nullable=False),  # canonical JSON
)
"""Decision policies that decided: see `bento.decisions.bundle_versions`."""

stream_offsets = Table(
    "stream_offsets",
    metadata,
    Column("topic", _StoredText, primary_key=True),
    Column("partition", _StoredInteger, primary_key=True, autoincrement=False),
    Column("next_offset", _StoredInteger, nullable=False),  # the first message that is not decided
    Column("published_offset", _StoredInteger, nullable=False),  # the first whose decision may not be published
)
"""The place of the stream's worker in each partition of a topic: see `bento.stream.offsets`."""

standings = Table(
    "standings",
    metadata,
    Column("subject", _StoredText, primary_key=True),  # token of kind `subject`
    Column("domain", _StoredText, primary_key=True),  # in this order, or SQLite's planner uses the key as half an index by domain
    Column("person", _StoredText, nullable=False),
    Column("account", _StoredText),  # token of kind `account`; null where the domain decides on the customer as a whole
    Column("as_of", _StoredInteger),  # null where the source knows no time
    Column("sealed", _StoredBytes, nullable=False),  # JSON: [subject, customer, account, features, score], about the other columns
    Index("standings_by_person", "person", "domain"),
    Index("standings_by_account", "account", "domain"),
    **_ONE_TREE,
)
"""Feature snapshots of each customer in each domain, as of the last load of the ledger."""

shadows = Table(
    "shadows",
    metadata,
    Column("position", _Counter, primary_key=True, autoincrement=True),
    Column("domain", Text, nullable=False),
    Column("person", Text),  # null where the request named no person
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
"""Shadow scores: the challenger's answers beside the champion's."""

feedback = Table(
    "feedback",
    metadata,
    Column("position", _Counter, primary_key=True, autoincrement=True),
    Column("id", _StoredText, nullable=False, unique=True),
    Column("decision", _StoredText, nullable=False),  # `decisions.id`
    Column("person", _StoredText),
    Column("label", _StoredBoolean, nullable=False),
    Column("known_at", _StoredInteger, nullable=False),
    Column("caller", _StoredText, nullable=False),
    Column("at", _StoredInteger, nullable=False),
    Column("note", _StoredBytes),  # sealed, about `id`
    Index("feedback_by_decision", "decision", "position"),
    Index("feedback_by_person", "person"),
    **_IN_ORDER,
)
"""Labels that analysts gave to decisions."""

alerts = Table(
    "alerts",
    metadata,
    Column("position", _Counter, primary_key=True, autoincrement=True),
    Column("decision", _StoredText, nullable=False, unique=True),  # `decisions.id`, which names the alert too
    Column("person", _StoredText),
    Column("outcome", _StoredText, nullable=False),  # the decision: review or block
    Column("expected_loss", _StoredNumber, nullable=False),  # in currency; `records.UNKNOWN_LOSS` where the score is no probability
    Column("opened_at", _StoredInteger, nullable=False),
    Column("state", _StoredText, nullable=False),  # open, claimed, closed
    Column("version", _StoredInteger, nullable=False),  # 1, and one more with each change
    Column("assignee", _StoredText),  # the caller who claimed or closed it
    Column("claimed_at", _StoredInteger),
    Column("disposition", _StoredText),
    Column("closed_at", _StoredInteger),
    Column("reason", _StoredBytes),  # sealed, about `decision`
    Index("alerts_by_loss", "state", "expected_loss", "position"),
    Index("alerts_by_time", "state", "position"),
    _not_null_index("alerts_by_assignee", "assignee", "state", "expected_loss", "position"),
    _not_null_index("alerts_by_person", "person"),
    **_IN_ORDER,
)
"""Reviewed and blocked transactions that wait for a person: see `bento.alerts`. A record of the audit has `bind_alert` of each version."""

OF_KEYS = text("action in ('key.create', 'key.revoke')")
"""The audit records of API keys: a worker reads them every few seconds, so they have an index of their own."""

audit = Table(
    "audit",
    metadata,
    Column("writer", _StoredText, primary_key=True),
    Column("number", _StoredInteger, primary_key=True, autoincrement=False),
    Column("at", _StoredInteger, nullable=False),
    Column("caller", _StoredText, nullable=False),
    Column("action", _StoredText, nullable=False),
    Column("person", _StoredText),
    Column("domain", _StoredText),
    Column("model_version", _StoredText),
    Column("inputs", _StoredText),
    Column("output", _StoredText),
    Column("request_id", _StoredText, nullable=False),
    Column("previous", _StoredText, nullable=False),
    Column("hash", _StoredText, nullable=False),
    Index("audit_by_time", "at"),
    _not_null_index("audit_by_person", "person", "at"),
    Index("audit_of_keys", "action", "output", sqlite_where=OF_KEYS, postgresql_where=OF_KEYS),
    **_ONE_TREE,
)
"""Audit records: one hash chain for each writing process. See `audit_chain`."""

audit_heads = Table(
    "audit_heads",
    metadata,
    Column("writer", _StoredText, primary_key=True),
    Column("number", _StoredInteger, nullable=False),
    Column("hash", _StoredText, nullable=False),
    Column("mac", _StoredText, nullable=False),
    **_ONE_TREE,
)
"""The head of each chain."""

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("position", _StoredInteger, primary_key=True, autoincrement=False),
    Column("writer", _StoredText, nullable=False),
    Column("number", _StoredInteger, nullable=False),
    Column("hash", _StoredText, nullable=False),
    Column("at", _StoredInteger, nullable=False),
    Column("mac", _StoredText, nullable=False),
    Index("checkpoints_by_writer", "writer", "number"),
    **_ONE_TREE,
)
"""Checkpoints of all chains, themselves a chain of MACs over all writers."""

keys = Table(
    "keys",
    metadata,
    Column("id", _StoredText, primary_key=True),
    Column("salt", _StoredText, nullable=False),
    Column("hash", _StoredText, nullable=False),
    Column("name", _StoredText, nullable=False),
    Column("roles", _StoredText, nullable=False),  # separated by spaces
    Column("created_at", _StoredInteger, nullable=False),
    Column("expires_at", _StoredInteger),
    Column("revoked_at", _StoredInteger),
    Column("mac", _StoredText),  # over all other columns, see `audit_chain.compute_row_mac`
)
"""API keys as salted hashes."""
