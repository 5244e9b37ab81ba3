"""Reading the audit: find records, verify every chain, and print checkpoint receipts. Records are appended in `audit_chain`."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, or_, select, text, tuple_

from bento.store.audit_chain import (
    GENESIS,
    RECORD_COLUMNS,
    REGISTER,
    REPLACED,
    SELECT_HEAD,
    AuditError,
    Checkpoint,
    Macs,
    Record,
    check_head,
    checkpoint,
    checkpoint_content,
    digest,
    head_content,
    is_mac,
)
from bento.store.database import Database
from bento.store.tables import audit, audit_heads, checkpoints

_RECEIPT_PREFIX = "finrisk-audit"
_ROWS_IN_MEMORY = 1_000
_MAX_RENUMBERING = 100  # numbers before and behind a record among which its original number is looked for

# Reading -----------------------------------------------------------------------------------------------------------------------


def find(
    connection: Connection, *, since: int | None = None, older: tuple[int, str, int] | None = None, most: int = 100, **named: str | None
) -> list[Record]:
    """Return the newest records, the newest first.

    Parameters
    ----------
    since
        Microseconds since 1970, UTC: none before that.
    older
        Only records older than that of this `at`, `writer` and `number`.
    most
        Largest number of records.
    named
        Required values of ``caller``, ``action``, ``person``, ``domain`` or ``request_id``; None requires nothing.
    """
    conditions = [audit.c[name] == value for name, value in named.items() if value is not None]
    if since is not None:
        conditions.append(audit.c.at >= since)
    if older is not None:
        at, writer, number = older
        behind = tuple_(audit.c.writer, audit.c.number) < tuple_(writer, number)
        conditions += [audit.c.at <= at, or_(audit.c.at < at, behind)]
    newest = select(*RECORD_COLUMNS).where(*conditions).order_by(audit.c.at.desc(), audit.c.writer.desc(), audit.c.number.desc())
    return [Record(*row) for row in connection.execute(newest.limit(most))]


def find_records_at(connection: Connection, action: str, moments: Collection[int]) -> list[Record]:
    """Return the records of an action at some moments, in microseconds since 1970, UTC."""
    return [Record(*row) for row in connection.execute(_RECORDS_AT, {"named": action, "moments": list(moments)})]


def find_erasures(connection: Connection, people: Collection[str]) -> set[str]:
    """Return those of some pseudonymous ids whose erasure is recorded."""
    return set(connection.execute(_ERASURES, {"people": list(people)}).scalars())


def find_retention_limit(connection: Connection) -> int:
    """Return the moment before which `finrisk people retain` may have deleted rows; 0 where it never ran."""
    limits = connection.execute(_RETENTION_LIMITS).scalars().all()
    return max((int(limit) for limit in limits if re.fullmatch("[0-9]{1,18}", limit)), default=0)  # another text is a changed record


_RECORDS_AT = select(*RECORD_COLUMNS).where(audit.c.at.in_(bindparam("moments", expanding=True)), audit.c.action == bindparam("named"))
_ERASURES = select(audit.c.person).where(audit.c.person.in_(bindparam("people", expanding=True)), audit.c.action == "erase")
_RETENTION_LIMITS = select(audit.c.inputs).where(audit.c.action == "retain", audit.c.inputs.is_not(None))


# Verifying ---------------------------------------------------------------------------------------------------------------------


class ChainBreak(NamedTuple):
    """The first record or checkpoint that differs from what was written.

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
        place = "checkpoint" if self.writer == REGISTER else f"writer {self.writer}, record"
        return f"{place} {self.number}: {self.wrong}"


class Replacement(NamedTuple):
    """A replacement of the store by an older copy of itself, as the process recorded it that had the newer store open.

    Attributes
    ----------
    writer, number
        The record of the replacement.
    at
        Microseconds since 1970, UTC, of the next record after the replacement.
    lost
        The writer of the lost records, and the number of the last one.
    reported
        Whether an earlier verification has reported the replacement.
    """

    writer: str
    number: int
    at: int
    lost: str
    reported: bool

    def __str__(self) -> str:
        writer, number = self.lost.split()
        moment = datetime.fromtimestamp(self.at // 1_000_000, UTC)
        return (
            f"before {moment:%Y-%m-%dT%H:%M:%SZ} the store was replaced by an older copy, which lacks the records of writer {writer} "
            f"up to {number} that were written since"
        )


@dataclass(frozen=True)
class Verdict:
    """The result of a verification: counts, the first break or None, and the recorded replacements of the store."""

    writers: int
    records: int
    checkpoints: int
    broken: ChainBreak | None
    replaced: tuple[Replacement, ...] = ()


class CheckpointReceipt(NamedTuple):
    """Position and MAC of a checkpoint, stored outside the database: proof of every older record."""

    position: int
    mac: str

    @classmethod
    def parse(cls, line: str) -> "CheckpointReceipt":
        """Return the receipt of a line that `finrisk audit checkpoint` printed.

        Raises
        ------
        ValueError
            If it is not such a line.
        """
        parts = line.split()
        if len(parts) != 4 or parts[0] != _RECEIPT_PREFIX or not parts[1].isdigit():
            raise ValueError("not a line of `finrisk audit checkpoint`: it begins with " + _RECEIPT_PREFIX)
        return cls(int(parts[1]), parts[2])

    def line(self, at: int) -> str:
        """Return the line to store outside the database; `at` in microseconds since 1970, UTC."""
        return f"{_RECEIPT_PREFIX} {self.position} {self.mac} {datetime.fromtimestamp(at // 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def create_checkpoint(connection: Connection, keyring: Macs, at: int) -> CheckpointReceipt:
    """Put a checkpoint on every writer with records since its last checkpoint, and return the newest one's receipt.

    Raises
    ------
    AuditError
        If nothing was recorded yet, or a head was changed by another program.
    """
    reached = {row.writer: row.number for row in connection.execute(_REACHED)}
    heads = connection.execute(select(audit_heads).where(audit_heads.c.writer != REGISTER).order_by(audit_heads.c.writer)).all()
    for head in heads:
        check_head(keyring, head.writer, head.number, head.hash, head.mac)
    checkpoint(connection, keyring, at, *((h.writer, h.number, h.hash) for h in heads if reached.get(h.writer) != h.number))
    newest = connection.execute(SELECT_HEAD, {"named": REGISTER}).one_or_none()
    if newest is None:
        raise AuditError("there is nothing to put a checkpoint on: the service has recorded nothing yet")
    return CheckpointReceipt(newest.number, newest.hash)


_REACHED = select(checkpoints.c.writer, func.max(checkpoints.c.number).label("number")).group_by(checkpoints.c.writer)


def verify(database: Database, keyring: Macs, receipts: Iterable[CheckpointReceipt] = ()) -> Verdict:
    """Verify every record of every writer, in constant memory, while other processes write.

    Parameters
    ----------
    database
        The store's database, with no open transaction: `Store.database`, or a database opened for this.
    receipts
        Checkpoint receipts that were stored elsewhere.

    Raises
    ------
    bento.store.database.StoreUnavailable
        Where the store is not available.
    """
    counts = _Counts()
    replaced: tuple[Replacement, ...] = ()
    try:
        with database.reading() as connection:
            if database.dialect == "postgresql":
                connection.execute(text("set transaction isolation level repeatable read"))
            replaced = _find_replacements(connection)
            for writer in _writers(connection, keyring, receipts, counts):
                _verify_writer(connection, keyring, writer, counts)
    except _Stop as stop:
        return Verdict(counts.writers, counts.records, counts.checkpoints, stop.broken, replaced)
    return Verdict(counts.writers, counts.records, counts.checkpoints, None, replaced)


def _find_replacements(connection: Connection) -> tuple[Replacement, ...]:
    reported = set(connection.execute(select(audit.c.inputs).where(audit.c.action == REPORTED)).scalars())
    records = connection.execute(
        select(audit.c.writer, audit.c.number, audit.c.at, audit.c.inputs).where(audit.c.action == REPLACED).order_by(audit.c.at)
    )
    return tuple(Replacement(*record, f"{record.writer} {record.number}" in reported) for record in records)


REPORTED = "verify.replaced"
"""Action of the record that a verification has reported a replacement; its inputs name the record of the replacement."""


@dataclass
class _Counts:
    writers: int = 0
    records: int = 0
    checkpoints: int = 0


class _Stop(Exception):  # noqa: N818 - ends the walk, never leaves this module
    def __init__(self, writer: str, number: int, wrong: str) -> None:
        self.broken = ChainBreak(writer, number, wrong)


def _writers(connection: Connection, keyring: Macs, receipts: Iterable[CheckpointReceipt], counts: _Counts) -> list[str]:
    """Return the writers in the order of their first records, after verifying the register of writers."""
    head = connection.execute(SELECT_HEAD, {"named": REGISTER}).one_or_none()
    receipt_macs = {receipt.position: receipt.mac for receipt in receipts}
    writers: dict[str, None] = {}
    position, mac = 0, GENESIS
    for row in _stream(connection, select(*(checkpoints.c[name] for name in Checkpoint._fields)).order_by(checkpoints.c.position)):
        stored = Checkpoint(*row)
        position += 1
        if stored.position != position:
            raise _Stop(REGISTER, position, "it is missing")
        if not is_mac(keyring, stored.mac, checkpoint_content(*stored[:-1], mac)):
            raise _Stop(REGISTER, position, f"it was forged, or its order changed: its MAC is not that of this keyring for {stored.writer}")
        if receipt_macs.pop(position, stored.mac) != stored.mac:
            raise _Stop(REGISTER, position, "it differs from its receipt: the store was rolled back and written to since")
        mac = stored.mac
        writers[stored.writer] = None
        counts.checkpoints += 1
    if head is None and position:
        raise _Stop(REGISTER, position, "the head of the checkpoints was removed")
    if head is not None:
        if not is_mac(keyring, head.mac, head_content(REGISTER, head.number, head.hash)):
            raise _Stop(REGISTER, head.number, "the head of the checkpoints was forged")
        if head.number != position:
            after = min(head.number, position) + 1
            raise _Stop(
                REGISTER, after, "it is missing: the tail was cut off" if head.number > position else "it was inserted after the head"
            )
    if receipt_macs:
        lost = min(receipt_macs)
        raise _Stop(REGISTER, lost, "a receipt names it, but it is missing: the store was rolled back, or its tail cut off")
    for table in (audit_heads, audit):
        for (writer,) in connection.execute(select(table.c.writer).distinct()):
            if writer not in writers and writer != REGISTER:
                first = connection.execute(select(func.min(audit.c.number)).where(audit.c.writer == writer)).scalar()
                raise _Stop(writer, first or 0, "no checkpoint knows this writer: its records were inserted")
    return list(writers)


def _verify_writer(connection: Connection, keyring: Macs, writer: str, counts: _Counts) -> None:
    """Verify the chain of one writer against its checkpoints and its head."""
    head = connection.execute(SELECT_HEAD, {"named": writer}).one_or_none()
    reached = iter(_stream(connection, _CHECKPOINTS, named=writer))
    mark = next(reached, None)
    number, previous, sure = 0, GENESIS, 0
    for row in _stream(connection, _RECORDS, named=writer):
        record = Record(*row)
        if record.number != number + 1 or record.previous != previous or digest(record) != record.hash:
            raise _Stop(writer, *_describe_break(connection, record, number + 1, previous))
        number, previous = record.number, record.hash
        while mark is not None and mark.number <= number:
            if mark.number == number and mark.hash != previous:
                raise _Stop(writer, sure + 1, f"it or one up to {number} was changed and all hashed anew: a checkpoint knows another hash")
            sure, mark = mark.number, next(reached, None)
        counts.records += 1
    if head is None:
        raise _Stop(writer, number, "the head of this writer was removed" if number else "the whole writer was removed")
    if not number and head.number:
        raise _Stop(writer, 1, "it is missing: all records of this writer were removed")
    if mark is not None and mark.number > number:
        raise _Stop(writer, number + 1, f"it is missing: the tail was cut off, a checkpoint knows {mark.number} records")
    if not is_mac(keyring, head.mac, head_content(writer, head.number, head.hash)):
        raise _Stop(writer, head.number, "the head of this writer was forged: its MAC is not that of this keyring")
    if head.number > number:
        raise _Stop(writer, number + 1, f"it is missing: the tail was cut off, the head knows {head.number} records")
    if head.number < number:
        raise _Stop(writer, head.number + 1, "it was inserted after the head")
    if head.hash != previous:
        raise _Stop(writer, sure + 1, f"it or one up to {number} was changed and all hashed anew: the head knows another hash")
    counts.writers += 1


_RECORDS = select(*RECORD_COLUMNS).where(audit.c.writer == bindparam("named")).order_by(audit.c.number)
_CHECKPOINTS = (
    select(checkpoints.c.number, checkpoints.c.hash)
    .where(checkpoints.c.writer == bindparam("named"))
    .order_by(checkpoints.c.number, checkpoints.c.position)
)


def _describe_break(connection: Connection, record: Record, number: int, previous: str) -> tuple[int, str]:
    """Return the number of the broken record and a description, where `record` stands in place of record `number`."""
    followers = select(audit.c.number).where(audit.c.writer == record.writer, audit.c.previous == previous, audit.c.number != number)
    moved_to = connection.execute(followers.order_by(audit.c.number).limit(1)).scalar()
    if moved_to is not None and record.previous != previous:
        return number, f"the order was changed: it is now record {moved_to}"
    if record.number < number:
        return record.number, "it was inserted or renumbered: a chain begins with 1"
    if record.number > number:
        return number, "it is missing"
    if record.previous == previous:
        return number, "its content was changed: it does not have its hash"
    if digest(record._replace(previous=previous)) == record.hash:
        return number, "its content was changed: it names another hash before it"
    written = next(
        (
            k
            for k in range(max(1, number - _MAX_RENUMBERING), number + _MAX_RENUMBERING)
            if digest(record._replace(number=k)) == record.hash
        ),
        0,
    )
    if written > number:
        return number, f"it is missing: the record with this number was written as record {written} and renumbered"
    if 0 < written < number:
        return written, f"it was inserted: the record written as {written} now has number {number}"
    if written == number:
        return max(1, number - 1), "its content was changed and it was hashed anew: the record after it knows another hash"
    return number, "its content was changed: it does not have its hash"


def _stream(connection: Connection, rows: Any, **named: str) -> Iterator[Any]:
    """Yield the rows of a query with a bounded number in memory."""
    return iter(connection.execute(rows, named, execution_options={"yield_per": _ROWS_IN_MEMORY}))
