"""audit_verify."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, or_, select, text, tuple_

from bento.store.audit_chain import (
    _AT_ONCE,
    _COLUMNS,
    _HEAD,
    _LINE,
    _RENUMBERED,
    GENESIS,
    REGISTER,
    AuditError,
    Checkpoint,
    Macs,
    Record,
    _check_head,
    _checkpoint_content,
    _head_content,
    _is_mac,
    checkpoint,
    digest,
)
from bento.store.database import Database
from bento.store.tables import audit, audit_heads, checkpoints

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


class ChainBreak(NamedTuple):
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
    broken: ChainBreak | None


class CheckpointReceipt(NamedTuple):
    """A checkpoint that was kept elsewhere: its position and MAC. It proves everything that is older."""

    position: int
    mac: str

    @classmethod
    def parse(cls, line: str) -> "CheckpointReceipt":
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


def create_checkpoint(connection: Connection, keyring: Macs, at: int) -> CheckpointReceipt:
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
    return CheckpointReceipt(newest.number, newest.hash)


_REACHED = select(checkpoints.c.writer, func.max(checkpoints.c.number).label("number")).group_by(checkpoints.c.writer)


def verify(database: Database, keyring: Macs, kept: Iterable[CheckpointReceipt] = ()) -> Verdict:
    """Look at every record of every writer, in memory that does not grow with their number, while others may go on writing.

    Parameters
    ----------
    database
        The store's, nobody at work in it: `Store.database`, or one opened for this.
    kept
        Checkpoints that were kept elsewhere.

    Raises
    ------
    bento.store.database.StoreUnavailable
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
        self.broken = ChainBreak(writer, number, wrong)


def _writers(connection: Connection, keyring: Macs, kept: Iterable[CheckpointReceipt], counted: _Counted) -> list[str]:
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
