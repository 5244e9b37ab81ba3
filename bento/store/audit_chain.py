"""The audit's hash chains: records, heads and checkpoints are appended here. A change of any of them is detected by `audit_verify`.

Every process that writes has a chain of its own: each record carries the hash of the one before it, and the chain's head (number and
hash of the last record) carries a MAC. `checkpoints` is a chain of MACs over all writers: one entry where a writer begins, one for each
1,000 records, one where it stops. So it is also the register of writers. One line of it, stored elsewhere, proves every older record.

docs/audit.md says what the audit proves and what it does not.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection, bindparam, select, text

from bento.store.records import make_json_encoder
from bento.store.statements import CompiledStatement
from bento.store.tables import alerts, audit, audit_heads, checkpoints, keys

CHECKPOINT_INTERVAL = 1_000
"""Records of a writer between two checkpoints. Fewer cost more writes and narrow down a break more closely."""
GENESIS = "0" * 64
"""The hash before the first record."""
REPLACED = "store.replaced"
"""Action of the first record after the store was replaced by an older copy; its inputs name the last record that was lost."""
REGISTER = "checkpoints"
"""Name of the checkpoints' head, in place of a writer's name."""
_encode_json = make_json_encoder(allow_nan=True)  # a row that was tampered with may hold an infinite number, which fails its hash


class AuditError(RuntimeError):
    """The audit was changed by another program, so no record can be appended. The message names the writer."""


class Macs(Protocol):
    """The part of a keyring that the audit uses."""

    def mac(self, content: bytes) -> str: ...


class Record(NamedTuple):
    """One recorded action.

    Attributes
    ----------
    writer, number
        The chain, and the place in it, from 1.
    at
        Microseconds since 1970, UTC, by the writer's clock: it may go back, the number does not.
    caller, action, request_id
        Who, what (``decide``, ``read``, ``export``, ...), and the request; of an operator's command ``-``.
    person
        Pseudonymous id of the person concerned; None where the action named no person.
    domain, model_version
        Of a decision.
    inputs, output
        Digests (hex) of what went in and what came out: of sealed bytes, or keyed; never of what could be guessed.
    previous, hash
        The hash of the record before, and of this one: SHA-256 over all the other fields.
    """

    writer: str
    number: int
    at: int
    caller: str
    action: str
    person: str | None
    domain: str | None
    model_version: str | None
    inputs: str | None
    output: str | None
    request_id: str
    previous: str
    hash: str


class Checkpoint(NamedTuple):
    """The state of a writer's chain at one moment.

    Attributes
    ----------
    position
        Its place among all checkpoints, from 1.
    writer, number, hash
        The last record, or 0 and `GENESIS` where the writer began.
    at
        Microseconds since 1970, UTC.
    mac
        Over all of this and the MAC of the checkpoint before.
    """

    position: int
    writer: str
    number: int
    hash: str
    at: int
    mac: str


def digest(record: Record) -> str:
    """Return the expected hash of a record: SHA-256 of its other fields, the previous hash among them, as canonical JSON."""
    return _hash(record[:-1])


def _hash(fields: tuple[Any, ...]) -> str:
    return hashlib.sha256(_encode_json(fields).encode()).hexdigest()


def compute_row_mac(mac: Callable[[bytes], str], table: str, *values: Any) -> str:
    """Return the MAC of a row's values, which write access to the database alone cannot compute.

    Parameters
    ----------
    mac
        Authenticates bytes under a key of the store: `Keyring.mac`.
    table
        What the values are of, so that no row stands for a row of another table.
    *values
        JSON values.
    """
    return mac(_encode_json((table, *values)).encode())


def bind_feedback(mac: Callable[[bytes], str], row: Mapping[Any, Any]) -> str:
    """Return the output of a label's audit record: a MAC over the row in `feedback`."""
    note = None if row["note"] is None else hashlib.sha256(row["note"]).hexdigest()
    columns = [row[name] for name in ("id", "decision", "person", "known_at", "caller", "at")]
    return compute_row_mac(mac, "feedback", *columns, bool(row["label"]), note)


def bind_alert(mac: Callable[[bytes], str], row: Mapping[Any, Any]) -> str:
    """Return the output of an alert's audit record: a MAC over the row in `alerts`, whose position the database chooses."""
    reason = None if row["reason"] is None else hashlib.sha256(row["reason"]).hexdigest()
    return compute_row_mac(mac, "alerts", *[row[name] for name in _ALERT_COLUMNS], reason)


def bind_key(mac: Callable[[bytes], str], row: Mapping[Any, Any]) -> str:
    """Return the MAC over an API key's row in `keys`, its revocation included."""
    return compute_row_mac(mac, "keys", *[row[name] for name in KEY_COLUMNS])


KEY_COLUMNS = [column.name for column in keys.columns if column.name != "mac"]
"""The columns of an API key that its MAC covers."""
_ALERT_COLUMNS = [column.name for column in alerts.columns if column.name not in ("position", "reason")]
RECORD_COLUMNS = [audit.c[name] for name in Record._fields]
_INSERT = CompiledStatement(audit.insert().inline(), Record._fields)
_INSERT_CHECKPOINT = checkpoints.insert()
_INSERT_HEAD = audit_heads.insert()
SELECT_HEAD = select(audit_heads.c.number, audit_heads.c.hash, audit_heads.c.mac).where(audit_heads.c.writer == bindparam("named"))
_ADVANCE = CompiledStatement(
    audit_heads.update()
    .where(audit_heads.c.writer == bindparam("named"), audit_heads.c.number == bindparam("before"))
    .values(number=bindparam("number"), hash=bindparam("hash"), mac=bindparam("mac"))
)


class Chain:
    """The chain of one writer; no other process appends to it.

    Inside a transaction `append` as often as there is something to record, and `flush` last; then say `committed` or `rolled_back`.

    Parameters
    ----------
    writer
        A name that no other process uses, now or ever.
    keyring
        Knows the audit key.
    every
        Records between two checkpoints.
    """

    def __init__(self, writer: str, keyring: Macs, every: int = CHECKPOINT_INTERVAL) -> None:
        self.writer = writer
        self._keyring = keyring
        self._every = every
        self._last: tuple[int, str] | None = None  # number and hash of the last committed record; None: to be read from the store
        self._flushed: tuple[int, str] | None = None  # those of the last record that is written and not yet committed
        self._pending: list[tuple[Any, ...]] = []
        self._lost: tuple[str, int, str] | None = None  # writer, number and hash of the last record in a store that was replaced

    @property
    def begins(self) -> bool:
        """Whether the next `flush` reads the writer's head from the store, or registers the writer."""
        return bool(self._pending) and self._last is None

    def append(
        self,
        *,
        at: int,
        caller: str,
        action: str,
        request_id: str = "-",
        person: str | None = None,
        domain: str | None = None,
        model_version: str | None = None,
        inputs: str | None = None,
        output: str | None = None,
    ) -> None:
        """Add a record that the next `flush` writes."""
        self._pending.append((at, caller, action, person, domain, model_version, inputs, output, request_id))

    def waiting(self) -> int:
        """Return the number of records that `flush` has not written."""
        return len(self._pending)

    def forget(self, waiting: int) -> None:
        """Drop the records behind the first `waiting` ones: a savepoint was rolled back and the transaction goes on."""
        del self._pending[waiting:]

    def flush(self, connection: Connection) -> None:
        """Write the pending records, the head, and a due checkpoint, right before the commit.

        Raises
        ------
        AuditError
            If the writer's head in the store differs from the head that this process wrote.
        """
        if not self._pending:
            return
        self._resume_where_nothing_is_lost(connection)
        before, previous = self._last or self._begin(connection, self._pending[0][0])
        records = []
        for number, pending in enumerate([*self._replacement(self._pending[0][0]), *self._pending], before + 1):
            fields = (self.writer, number, *pending, previous)
            previous = _hash(fields)
            records.append((*fields, previous))
        _INSERT.execute_many(connection, [dict(zip(Record._fields, record, strict=True)) for record in records])
        last = before + len(records)
        mac = self._keyring.mac(head_content(self.writer, last, previous))
        moved = {"number": last, "hash": previous, "mac": mac, "named": self.writer, "before": before}
        if _ADVANCE(connection, moved).rowcount != 1:
            moved_head = _head_moved(self.writer)
            self._begin_anew_in_older_copy(connection)
            raise moved_head
        for _, number, at, *_, record_hash in records:
            if number % self._every == 0:
                checkpoint(connection, self._keyring, at, (self.writer, number, record_hash))
        self._flushed = last, previous

    def committed(self) -> None:
        """Mark the flushed records as committed."""
        if self._flushed is not None:
            self._last, self._flushed, self._lost = self._flushed, None, None
            self._pending.clear()

    def rolled_back(self) -> None:
        """Drop the pending records. A failed commit may still have taken place, so the next flush reads the head from the store."""
        if self._flushed is not None:
            self._last = self._flushed = None
        self._pending.clear()

    def check(self, connection: Connection) -> None:
        """Check that the head in the store is where this process left it, as `flush` needs it.

        Raises
        ------
        AuditError
            If it is not: the store was replaced by another one, or by an older copy, in which the next `flush` begins anew.
        """
        head = connection.execute(SELECT_HEAD, {"named": self.writer}).one_or_none()
        if head is not None:
            check_head(self._keyring, self.writer, *head)
        if self._last is None:
            _read_register(connection, self._keyring)
        elif head is None or (head.number, head.hash) != self._last:
            moved_head = _head_moved(self.writer)
            self._begin_anew_in_older_copy(connection)
            raise moved_head

    def stop(self, connection: Connection, at: int) -> None:
        """Put a checkpoint on the last record, if there is one, in a separate transaction.

        Where an older copy was put in place of the store, record that instead: a checkpoint of a record that is not there would look as
        if somebody had cut it off.
        """
        if self._last is None:
            return
        head = connection.execute(SELECT_HEAD, {"named": self.writer}).one_or_none()
        if head is not None and (head.number, head.hash) == self._last:
            checkpoint(connection, self._keyring, at, (self.writer, *self._last))
        elif self._begin_anew_in_older_copy(connection):
            self.append(at=at, caller="-", action="stop")
            self.flush(connection)

    def _begin_anew_in_older_copy(self, connection: Connection) -> bool:
        """Continue as another writer, whose first record names what was lost, where the store was replaced by an older copy of itself."""
        head = connection.execute(SELECT_HEAD, {"named": self.writer}).one_or_none()
        if self._last is None or (head is not None and head.number >= self._last[0]):
            return False
        if head is not None and not is_mac(self._keyring, head.mac, head_content(self.writer, head.number, head.hash)):
            return False
        self._lost = (self.writer, *self._last)
        self.writer, self._last = _hash(self._lost)[:32], None
        return True

    def _resume_where_nothing_is_lost(self, connection: Connection) -> None:
        """Continue as the former writer where the newer store is back in its place."""
        if self._lost is None:
            return
        writer, *last = self._lost
        head = connection.execute(SELECT_HEAD, {"named": writer}).one_or_none()
        if head is not None and [head.number, head.hash] == last:
            self.writer, self._last, self._lost = writer, (head.number, head.hash), None

    def _replacement(self, at: int) -> list[tuple[Any, ...]]:
        """Return the record that says that the store was replaced, where that is not recorded yet."""
        if self._lost is None:
            return []
        writer, number, hash_ = self._lost
        return [(at, "-", REPLACED, None, None, None, f"{writer} {number}", hash_, "-")]

    def _begin(self, connection: Connection, at: int) -> tuple[int, str]:
        """Return number and hash of the writer's last record in the store; register a new writer."""
        head = connection.execute(SELECT_HEAD, {"named": self.writer}).one_or_none()
        if head is None:
            mac = self._keyring.mac(head_content(self.writer, 0, GENESIS))
            connection.execute(_INSERT_HEAD, {"writer": self.writer, "number": 0, "hash": GENESIS, "mac": mac})
            checkpoint(connection, self._keyring, at, (self.writer, 0, GENESIS))
            return 0, GENESIS
        check_head(self._keyring, self.writer, *head)
        return head.number, head.hash


def checkpoint(connection: Connection, keyring: Macs, at: int, *reached: tuple[str, int, str]) -> None:
    """Append a checkpoint for each of these writers, with number and hash of its last record. Waits for other processes that append.

    Raises
    ------
    AuditError
        If another program changed the head of the checkpoints.
    """
    if not reached:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(text("select pg_advisory_xact_lock(hashtext('finrisk.checkpoints'))"))
    before, mac = _read_register(connection, keyring)
    position = before
    for writer, number, hash_ in reached:
        position += 1
        mac = keyring.mac(checkpoint_content(position, writer, number, hash_, at, mac))
        connection.execute(_INSERT_CHECKPOINT, Checkpoint(position, writer, number, hash_, at, mac)._asdict())
    new = {"number": position, "hash": mac, "mac": keyring.mac(head_content(REGISTER, position, mac))}
    if before == 0:
        connection.execute(_INSERT_HEAD, {"writer": REGISTER, **new})
    elif _ADVANCE(connection, {"named": REGISTER, "before": before, **new}).rowcount != 1:
        raise _head_moved(REGISTER)


def _read_register(connection: Connection, keyring: Macs) -> tuple[int, str]:
    """Return position and MAC of the last checkpoint; 0 and `GENESIS` where there is none.

    Raises
    ------
    AuditError
        If another program changed the head of the checkpoints, or deleted it.
    """
    head = connection.execute(SELECT_HEAD, {"named": REGISTER}).one_or_none()
    if head is not None:
        check_head(keyring, REGISTER, *head)
        return head.number, head.hash
    if connection.execute(select(checkpoints.c.position).limit(1)).first() is not None:
        raise _head_moved(REGISTER)
    return 0, GENESIS


def append_only(dialect: str) -> tuple[str, ...]:
    """Return the statements that create triggers against changes and deletions in the audit.

    The owner of the tables can drop the triggers; the chains and MACs then show a change.
    """
    refused = "the audit is append-only"
    if dialect == "postgresql":
        body = f"begin raise exception '{refused}'; end"
        do = "for each statement execute function refuse_change_of_audit()"
        return (
            f"create or replace function refuse_change_of_audit() returns trigger language plpgsql as $$ {body} $$",
            *(f"create trigger {table}_append_only before {events} or truncate on {table} {do}" for table, events in _REFUSED.items()),
        )
    return tuple(
        f"create trigger {table}_no_{event} before {event} on {table} begin select raise(abort, '{refused}'); end"
        for table, events in _REFUSED.items()
        for event in events.split(" or ")
    )


_REFUSED = {"audit": "update or delete", "checkpoints": "update or delete", "audit_heads": "delete"}


def _head_moved(writer: str) -> AuditError:
    return AuditError(f"the head of writer {writer} in the audit is not where this process left it: run `finrisk audit verify`")


def check_head(keyring: Macs, writer: str, number: int, hash_: str, mac: str) -> None:
    """Check that the MAC of a writer's head is the one that this service computes.

    Raises
    ------
    AuditError
        If another program changed the head.
    """
    if not is_mac(keyring, mac, head_content(writer, number, hash_)):
        raise AuditError(f"the head of writer {writer} in the audit was changed by another program: run `finrisk audit verify`")


def is_mac(keyring: Macs, mac: Any, content: bytes) -> bool:
    return equal_macs(keyring.mac(content), mac)


def equal_macs(expected: str, stored: str | None) -> bool:
    """Return whether a stored MAC or hash is the expected one; the time does not tell how much of it is equal."""
    return hmac.compare_digest(expected.encode(), (stored or "").encode(errors="surrogatepass"))


def head_content(writer: str, number: int, hash_: str) -> bytes:
    return _encode_json(("head", writer, number, hash_)).encode()


def checkpoint_content(position: int, writer: str, number: int, hash_: str, at: int, previous: str) -> bytes:
    return _encode_json(("checkpoint", position, writer, number, hash_, at, previous)).encode()
