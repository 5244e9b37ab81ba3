"""The audit: who did what and when, in chains that cannot be changed without being seen.

Every process that writes has a chain of its own: each record carries the hash of the one before it, and the chain's head (number and
hash of the last record) carries a MAC. `checkpoints` is a chain of MACs over all writers: one entry where a writer begins, one for each
1,000 records, one where it stops. So it is also the register of writers. One line of it, kept elsewhere, proves all that is older.

Here records are made, appended and verified. Who may read them is `security`'s matter, how they are shown `finrisk_assets.audit`'s;
docs/audit.md says what the audit proves and what it does not.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection, bindparam, func, or_, select, text, tuple_

from bento.database import Database, Prepared
from bento.tables import audit, audit_heads, checkpoints

EVERY = 1_000
"""Records of a writer between two checkpoints."""
GENESIS = "0" * 64
"""What stands for the hash before the first record."""
REGISTER = "checkpoints"
"""In the place of a writer: the head of the checkpoints."""
_LINE = "finrisk-audit"
_AT_ONCE = 1_000  # rows that are in memory at a time
_RENUMBERED = 100  # how far a record is looked for from the number that it was written with
_encode = json.JSONEncoder(separators=(",", ":")).encode


class AuditError(RuntimeError):
    """The audit cannot be appended to: somebody else changed it. The message names the writer."""


class Macs(Protocol):
    """What the audit needs of a keyring."""

    def mac(self, content: bytes) -> str: ...


class Record(NamedTuple):
    """One thing that was done.

    Attributes
    ----------
    writer, number
        The chain, and the place in it, from 1.
    at
        Microseconds since 1970, UTC, by the writer's clock: it may go back, the number does not.
    caller, action, request_id
        Who, what (``decide``, ``read``, ``export``, ...), and the request; of an operator's command ``-``.
    person
        Surrogate of the person concerned; None where nobody was named.
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
    """How far a writer had come.

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
    """What the hash of a record must be: SHA-256 of its other fields as canonical JSON, the previous hash among them."""
    return _hash(record[:-1])


def _hash(fields: tuple[Any, ...]) -> str:
    return hashlib.sha256(_encode(fields).encode()).hexdigest()


_COLUMNS = [audit.c[name] for name in Record._fields]
_INSERT = Prepared(audit.insert().inline(), Record._fields)
_INSERT_CHECKPOINT = checkpoints.insert()
_INSERT_HEAD = audit_heads.insert()
_HEAD = select(audit_heads.c.number, audit_heads.c.hash, audit_heads.c.mac).where(audit_heads.c.writer == bindparam("named"))
_ADVANCE = Prepared(
    audit_heads.update()
    .where(audit_heads.c.writer == bindparam("named"), audit_heads.c.number == bindparam("before"))
    .values(number=bindparam("number"), hash=bindparam("hash"), mac=bindparam("mac"))
)


class Chain:
    """The chain of one writer, which nobody else writes to.

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

    def __init__(self, writer: str, keyring: Macs, every: int = EVERY) -> None:
        self.writer = writer
        self._keyring = keyring
        self._every = every
        self._last: tuple[int, str] | None = None  # number and hash of the last committed record; None: to be read from the store
        self._flushed: tuple[int, str] | None = None  # those of the last record that is written and not yet committed
        self._waiting: list[tuple[Any, ...]] = []

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
        """Record something; it waits for `flush`."""
        self._waiting.append((at, caller, action, person, domain, model_version, inputs, output, request_id))

    def waiting(self) -> int:
        """How many records wait."""
        return len(self._waiting)

    def forget(self, waiting: int) -> None:
        """Let go of what was appended since so many records waited: it was undone, though the transaction goes on."""
        del self._waiting[waiting:]

    def flush(self, connection: Connection) -> None:
        """Write what waits, the head, and a checkpoint where one is due: the last thing before the commit.

        Raises
        ------
        AuditError
            If the writer's head in the store is not what it wrote.
        """
        if not self._waiting:
            return
        before, previous = self._last or self._begin(connection, self._waiting[0][0])
        records = []
        for number, what in enumerate(self._waiting, before + 1):
            fields = (self.writer, number, *what, previous)
            previous = _hash(fields)
            records.append((*fields, previous))
        _INSERT.each(connection, [dict(zip(Record._fields, one, strict=True)) for one in records])
        last = before + len(records)
        mac = self._keyring.mac(_head_content(self.writer, last, previous))
        moved = {"number": last, "hash": previous, "mac": mac, "named": self.writer, "before": before}
        if _ADVANCE(connection, moved).rowcount != 1:
            raise _moved(self.writer)
        for one in records:
            if one[1] % self._every == 0:
                checkpoint(connection, self._keyring, one[2], (self.writer, one[1], one[-1]))
        self._flushed = last, previous

    def committed(self) -> None:
        """What was flushed is on disk."""
        if self._flushed is not None:
            self._last, self._flushed = self._flushed, None
            self._waiting.clear()

    def rolled_back(self) -> None:
        """Nothing of it is there, as far as one can know: a commit may fail after it was done. So the store is asked again."""
        if self._flushed is not None:
            self._last = self._flushed = None
        self._waiting.clear()

    def stop(self, connection: Connection, at: int) -> None:
        """Put a checkpoint on the last record, in a transaction of its own, where anything was recorded."""
        if self._last is not None:
            checkpoint(connection, self._keyring, at, (self.writer, *self._last))

    def _begin(self, connection: Connection, at: int) -> tuple[int, str]:
        """Where the writer stands in the store; one that is new is entered into the register."""
        head = connection.execute(_HEAD, {"named": self.writer}).one_or_none()
        if head is None:
            mac = self._keyring.mac(_head_content(self.writer, 0, GENESIS))
            connection.execute(_INSERT_HEAD, {"writer": self.writer, "number": 0, "hash": GENESIS, "mac": mac})
            checkpoint(connection, self._keyring, at, (self.writer, 0, GENESIS))
            return 0, GENESIS
        _check_head(self._keyring, self.writer, *head)
        return head.number, head.hash


def checkpoint(connection: Connection, keyring: Macs, at: int, *reached: tuple[str, int, str]) -> None:
    """Append a checkpoint for each of these writers, with number and hash of its last record. Waits for others who do the same.

    Raises
    ------
    AuditError
        If somebody else changed the head of the checkpoints.
    """
    if not reached:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(text("select pg_advisory_xact_lock(hashtext('finrisk.checkpoints'))"))
    head = connection.execute(_HEAD, {"named": REGISTER}).one_or_none()
    position, mac = 0, GENESIS
    if head is not None:
        _check_head(keyring, REGISTER, *head)
        position, mac = head.number, head.hash
    for writer, number, hash_ in reached:
        position += 1
        mac = keyring.mac(_checkpoint_content(position, writer, number, hash_, at, mac))
        connection.execute(_INSERT_CHECKPOINT, Checkpoint(position, writer, number, hash_, at, mac)._asdict())
    new = {"number": position, "hash": mac, "mac": keyring.mac(_head_content(REGISTER, position, mac))}
    if head is None:
        connection.execute(_INSERT_HEAD, {"writer": REGISTER, **new})
    elif _ADVANCE(connection, {"named": REGISTER, "before": head.number, **new}).rowcount != 1:
        raise _moved(REGISTER)


def append_only(dialect: str) -> tuple[str, ...]:
    """The statements that make the database itself refuse to change or remove what is in the audit.

    Who owns the tables can take them away again; the chains and MACs are what shows it.
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


def _moved(writer: str) -> AuditError:
    return AuditError(f"the head of writer {writer} in the audit is not where this process left it: `finrisk audit verify` tells more")


def _check_head(keyring: Macs, writer: str, number: int, hash_: str, mac: str) -> None:
    if not _is_mac(keyring, mac, _head_content(writer, number, hash_)):
        raise AuditError(f"the head of writer {writer} in the audit was changed by somebody else: `finrisk audit verify` tells more")


def _is_mac(keyring: Macs, mac: Any, content: bytes) -> bool:
    return hmac.compare_digest(keyring.mac(content), str(mac))


def _head_content(writer: str, number: int, hash_: str) -> bytes:
    return _encode(("head", writer, number, hash_)).encode()


def _checkpoint_content(position: int, writer: str, number: int, hash_: str, at: int, previous: str) -> bytes:
    return _encode(("checkpoint", position, writer, number, hash_, at, previous)).encode()


# Reading -----------------------------------------------------------------------------------------------------------------------


def find(
    connection: Connection, *, since: int | None = None, older: tuple[int, str, int] | None = None, most: int = 100, **named: str | None
) -> list[Record]:
    """The newest records, the newest first.

    Parameters
    ----------
    since
        Microseconds since 1970, UTC: none before that.
    older
        Only those behind the record of this `at`, `writer` and `number`.
    most
        How many at most.
    named
        Values of ``caller``, ``action``, ``person``, ``domain`` or ``request_id`` that they must have; None demands nothing.
    """
    wanted = [audit.c[name] == value for name, value in named.items() if value is not None]
    if since is not None:
        wanted.append(audit.c.at >= since)
    if older is not None:
        at, writer, number = older
        behind = tuple_(audit.c.writer, audit.c.number) < tuple_(writer, number)
        wanted += [audit.c.at <= at, or_(audit.c.at < at, behind)]
    newest = select(*_COLUMNS).where(*wanted).order_by(audit.c.at.desc(), audit.c.writer.desc(), audit.c.number.desc())
    return [Record(*row) for row in connection.execute(newest.limit(most))]


def is_recorded(connection: Connection, at: int, output: str) -> bool:
    """Whether something was done at this moment that had this output."""
    return connection.execute(_RECORDED, {"moment": at, "digest": output}).first() is not None


_RECORDED = select(audit.c.number).where(audit.c.at == bindparam("moment"), audit.c.output == bindparam("digest")).limit(1)


# Verifying ---------------------------------------------------------------------------------------------------------------------


class Broken(NamedTuple):
    """The first thing that is not as it was written.

    Attributes
    ----------
    writer, number
        The record; `REGISTER` and a position for a checkpoint.
    wrong
        What is wrong with it, as a sentence without its full stop.
    """

    writer: str
    number: int
    wrong: str

    def __str__(self) -> str:
        what = "checkpoint" if self.writer == REGISTER else f"writer {self.writer}, record"
        return f"{what} {self.number}: {self.wrong}"


@dataclass(frozen=True)
class Verdict:
    """What verifying found: how much there is, and the first thing that is broken, or None."""

    writers: int
    records: int
    checkpoints: int
    broken: Broken | None


class Kept(NamedTuple):
    """A checkpoint that was kept elsewhere: its position and MAC. It proves everything that is older."""

    position: int
    mac: str

    @classmethod
    def parse(cls, line: str) -> "Kept":
        """Read a line that `finrisk audit checkpoint` has printed.

        Raises
        ------
        ValueError
            If it is not such a line.
        """
        parts = line.split()
        if len(parts) != 4 or parts[0] != _LINE or not parts[1].isdigit():
            raise ValueError("not a line of `finrisk audit checkpoint`: it begins with " + _LINE)
        return cls(int(parts[1]), parts[2])

    def line(self, at: int) -> str:
        """The line to keep; `at` in microseconds since 1970, UTC."""
        return f"{_LINE} {self.position} {self.mac} {datetime.fromtimestamp(at // 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def keep(connection: Connection, keyring: Macs, at: int) -> Kept:
    """Put a checkpoint on every writer that went on since its last one, and return the newest: what it proves is all there is now.

    Raises
    ------
    AuditError
        If nothing was recorded yet, or somebody else changed a head.
    """
    reached = {row.writer: row.number for row in connection.execute(_REACHED)}
    heads = connection.execute(select(audit_heads).where(audit_heads.c.writer != REGISTER).order_by(audit_heads.c.writer)).all()
    for head in heads:
        _check_head(keyring, head.writer, head.number, head.hash, head.mac)
    checkpoint(connection, keyring, at, *((h.writer, h.number, h.hash) for h in heads if reached.get(h.writer) != h.number))
    newest = connection.execute(_HEAD, {"named": REGISTER}).one_or_none()
    if newest is None:
        raise AuditError("there is nothing to put a checkpoint on: the service has recorded nothing yet")
    return Kept(newest.number, newest.hash)


_REACHED = select(checkpoints.c.writer, func.max(checkpoints.c.number).label("number")).group_by(checkpoints.c.writer)


def verify(database: Database, keyring: Macs, kept: Iterable[Kept] = ()) -> Verdict:
    """Look at every record of every writer, in memory that does not grow with their number, while others may go on writing.

    Parameters
    ----------
    database
        The store's, nobody at work in it: `Store.database`, or one opened for this.
    kept
        Checkpoints that were kept elsewhere.

    Raises
    ------
    bento.database.StoreUnavailable
        Where the store cannot be had.
    """
    counted = _Counted()
    try:
        with database.reading() as connection:
            if database.dialect == "postgresql":
                connection.execute(text("set transaction isolation level repeatable read"))
            for writer in _writers(connection, keyring, kept, counted):
                _verify_writer(connection, keyring, writer, counted)
    except _Found as found:
        return Verdict(counted.writers, counted.records, counted.checkpoints, found.broken)
    return Verdict(counted.writers, counted.records, counted.checkpoints, None)


@dataclass
class _Counted:
    writers: int = 0
    records: int = 0
    checkpoints: int = 0


class _Found(Exception):  # noqa: N818 - it is what was looked for
    def __init__(self, writer: str, number: int, wrong: str) -> None:
        self.broken = Broken(writer, number, wrong)


def _writers(connection: Connection, keyring: Macs, kept: Iterable[Kept], counted: _Counted) -> list[str]:
    """The writers in the order in which they began, once the register of them is seen to be whole."""
    head = connection.execute(_HEAD, {"named": REGISTER}).one_or_none()
    elsewhere = {one.position: one.mac for one in kept}
    writers: dict[str, None] = {}
    position, mac = 0, GENESIS
    for row in _stream(connection, select(*(checkpoints.c[name] for name in Checkpoint._fields)).order_by(checkpoints.c.position)):
        one = Checkpoint(*row)
        position += 1
        if one.position != position:
            raise _Found(REGISTER, position, "it is missing")
        if not _is_mac(keyring, one.mac, _checkpoint_content(*one[:-1], mac)):
            raise _Found(REGISTER, position, f"it was forged, or its order changed: its MAC is not that of this keyring for {one.writer}")
        if elsewhere.pop(position, one.mac) != one.mac:
            raise _Found(REGISTER, position, "it is not the one that was kept elsewhere: the store was rolled back and written to since")
        mac = one.mac
        writers[one.writer] = None
        counted.checkpoints += 1
    if head is None and position:
        raise _Found(REGISTER, position, "the head of the checkpoints was removed")
    if head is not None:
        if not _is_mac(keyring, head.mac, _head_content(REGISTER, head.number, head.hash)):
            raise _Found(REGISTER, head.number, "the head of the checkpoints was forged")
        if head.number != position:
            after = min(head.number, position) + 1
            raise _Found(REGISTER, after, "it is missing: the tail was cut off" if head.number > position else "it stands behind the head")
    if elsewhere:
        lost = min(elsewhere)
        raise _Found(REGISTER, lost, "it was kept elsewhere and is not here: the store was rolled back, or its tail cut off")
    for table in (audit_heads, audit):
        for (writer,) in connection.execute(select(table.c.writer).distinct()):
            if writer not in writers and writer != REGISTER:
                first = connection.execute(select(func.min(audit.c.number)).where(audit.c.writer == writer)).scalar()
                raise _Found(writer, first or 0, "no checkpoint knows this writer: its records were inserted")
    return list(writers)


def _verify_writer(connection: Connection, keyring: Macs, writer: str, counted: _Counted) -> None:
    """Walk along the chain of one writer, with its checkpoints beside it."""
    head = connection.execute(_HEAD, {"named": writer}).one_or_none()
    reached = iter(_stream(connection, _CHECKPOINTS, named=writer))
    mark = next(reached, None)
    number, previous, sure = 0, GENESIS, 0
    for row in _stream(connection, _RECORDS, named=writer):
        record = Record(*row)
        if record.number != number + 1 or record.previous != previous or digest(record) != record.hash:
            raise _Found(writer, *_wrong(connection, record, number + 1, previous))
        number, previous = record.number, record.hash
        while mark is not None and mark.number <= number:
            if mark.number == number and mark.hash != previous:
                raise _Found(writer, sure + 1, f"it or one up to {number} was changed and all hashed anew: a checkpoint knows another hash")
            sure, mark = mark.number, next(reached, None)
        counted.records += 1
    if head is None:
        raise _Found(writer, number, "the head of this writer was removed" if number else "the whole writer was removed")
    if not number and head.number:
        raise _Found(writer, 1, "it is missing: all records of this writer were removed")
    if mark is not None and mark.number > number:
        raise _Found(writer, number + 1, f"it is missing: the tail was cut off, a checkpoint knows {mark.number} records")
    if not _is_mac(keyring, head.mac, _head_content(writer, head.number, head.hash)):
        raise _Found(writer, head.number, "the head of this writer was forged: its MAC is not that of this keyring")
    if head.number > number:
        raise _Found(writer, number + 1, f"it is missing: the tail was cut off, the head knows {head.number} records")
    if head.number < number:
        raise _Found(writer, head.number + 1, "it was inserted: it stands behind the head")
    if head.hash != previous:
        raise _Found(writer, sure + 1, f"it or one up to {number} was changed and all hashed anew: the head knows another hash")
    counted.writers += 1


_RECORDS = select(*_COLUMNS).where(audit.c.writer == bindparam("named")).order_by(audit.c.number)
_CHECKPOINTS = (
    select(checkpoints.c.number, checkpoints.c.hash)
    .where(checkpoints.c.writer == bindparam("named"))
    .order_by(checkpoints.c.number, checkpoints.c.position)
)


def _wrong(connection: Connection, found: Record, number: int, previous: str) -> tuple[int, str]:
    """What is wrong where `found` stands and the record `number`, which follows the hash `previous`, should; and the record concerned."""
    followers = select(audit.c.number).where(audit.c.writer == found.writer, audit.c.previous == previous, audit.c.number != number)
    elsewhere = connection.execute(followers.order_by(audit.c.number).limit(1)).scalar()
    if elsewhere is not None and found.previous != previous:
        return number, f"the order was changed: it stands as record {elsewhere} now"
    if found.number < number:
        return found.number, "it was inserted or renumbered: a chain begins with 1"
    if found.number > number:
        return number, "it is missing"
    if found.previous == previous:
        return number, "its content was changed: it does not have its hash"
    if digest(found._replace(previous=previous)) == found.hash:
        return number, "its content was changed: it names another hash before it"
    written = next(
        (k for k in range(max(1, number - _RENUMBERED), number + _RENUMBERED) if digest(found._replace(number=k)) == found.hash), 0
    )
    if written > number:
        return number, f"it is missing: what stands here was written as record {written} and renumbered"
    if 0 < written < number:
        return written, f"it was inserted: what was written as record {written} stands as {number}"
    if written == number:
        return max(1, number - 1), "its content was changed and it was hashed anew: the record after it knows another hash"
    return number, "its content was changed: it does not have its hash"


def _stream(connection: Connection, rows: Any, **named: str) -> Iterator[Any]:
    """The rows of a query, a few at a time."""
    return iter(connection.execute(rows, named, execution_options={"yield_per": _AT_ONCE}))
