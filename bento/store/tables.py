"""The tables and indexes of the service's store.

No identifier of a customer, an account, a transaction, a merchant or a country is stored in plain text. An identifier that finds a row is
a token, `Keyring.token(kind, value)`; an identifier that must be read again is sealed under the key of the person concerned. A person is
a random pseudonymous id. Every time is an integer: microseconds since 1970, UTC.

Statements stand in the modules of each table; the upgrade of an older schema in `migrations`.
"""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, LargeBinary, MetaData, Table, Text, text

REVISION = "0005"
"""Newest revision in `migrations`: the schema that this code reads and writes."""

metadata = MetaData()

_Counter = BigInteger().with_variant(Integer, "sqlite")  # only an `integer` autoincrements there
_IN_ORDER: dict[str, Any] = {"sqlite_autoincrement": True}  # a number is never reused, even after the newest row is deleted
_ONE_TREE: dict[str, Any] = {"sqlite_with_rowid": False}  # rows are stored in the index of the primary key


def _not_null_index(name: str, *columns: str, unique: bool = False) -> Index:
    """Return an index of the rows whose first column is not null: the other rows cost no write and are never looked up."""
    not_null = text(f"{columns[0]} is not null")
    return Index(name, *columns, unique=unique, sqlite_where=not_null, postgresql_where=not_null)


people = Table(
    "people",
    metadata,
    Column("person", Text, primary_key=True),  # 32 hex digits at random
    Column("lookup", Text, unique=True),  # token of kind `customer`; null once erased
    Column("wrapped_key", LargeBinary),  # data key under the master key, about `person` and `lookup`; null once erased
    Column("master", Text, nullable=False),  # id of that master key
    Column("created_at", BigInteger, nullable=False),
    Column("erased_at", BigInteger),
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
    Column("id", Text, nullable=False, unique=True),  # see `Store.new_id`
    Column("person", Text),  # null where the request named no person
    Column("domain", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("policy_version", Text),  # null where the decision is older than policies
    Column("caller", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("transaction_token", Text),  # of kind `transaction`
    Column("idempotency", Text),  # token of kind `idempotency`, over the caller and the key that it sent
    Column("digest", Text, nullable=False),  # token of kind `request`, over the request
    Column("decided_at", BigInteger, nullable=False),
    Column("probability", Double),
    Column("decision", Text),
    Column("sealed", LargeBinary, nullable=False),  # request, answer and the model's row, about `id`: see `bento.store.decisions`
    _not_null_index("decisions_by_person", "person", "position"),
    _not_null_index("decisions_by_transaction", "transaction_token", unique=True),
    _not_null_index("decisions_by_idempotency", "idempotency", unique=True),
    **_IN_ORDER,
)
"""Decisions. The audit record of a decision has its `digest` for inputs and `decisions.bind_row` of its columns for output."""

bundles = Table(
    "bundles",
    metadata,
    Column("domain", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),  # a zip of the bundle's files, about `domain` and `version`, under the service key
)
"""Scoring bundles of the models that decided: see `bento.decisions.bundle_versions`."""

policies = Table(
    "policies",
    metadata,
    Column("version", Text, primary_key=True),  # the first digits of the document's hash, which proves it
    Column("document", Text, nullable=False),  # canonical JSON
)
"""Decision policies that decided: see `bento.decisions.bundle_versions`."""

standings = Table(
    "standings",
    metadata,
    Column("subject", Text, primary_key=True),  # token of kind `subject`
    Column("domain", Text, primary_key=True),  # in this order, or SQLite's planner uses the key as half an index by domain
    Column("person", Text, nullable=False),
    Column("account", Text),  # token of kind `account`; null where the domain decides on the customer as a whole
    Column("as_of", BigInteger),  # null where the source knows no time
    Column("sealed", LargeBinary, nullable=False),  # JSON: [subject, customer, account, features, score], about the other columns
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
"""Labels that analysts gave to decisions."""

OF_KEYS = text("action in ('key.create', 'key.revoke')")
"""The audit records of API keys: a worker reads them every few seconds, so they have an index of their own."""

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
    _not_null_index("audit_by_person", "person", "at"),
    Index("audit_of_keys", "action", "output", sqlite_where=OF_KEYS, postgresql_where=OF_KEYS),
    **_ONE_TREE,
)
"""Audit records: one hash chain for each writing process. See `audit_chain`."""

audit_heads = Table(
    "audit_heads",
    metadata,
    Column("writer", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
    Column("mac", Text, nullable=False),
    **_ONE_TREE,
)
"""The head of each chain."""

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
"""Checkpoints of all chains, themselves a chain of MACs over all writers."""

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("salt", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("roles", Text, nullable=False),  # separated by spaces
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("mac", Text),  # over all other columns, see `audit_chain.compute_row_mac`
)
"""API keys as salted hashes."""
