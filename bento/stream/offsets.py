"""The worker's place in each partition, in the store: written in one transaction with the decisions, so that neither is without the other.

The place has two parts. Messages below `next_offset` are decided. Messages below `published_offset` were answered in Kafka too, so those
between both are read again after a crash: they get the same decisions, which are published again.
"""

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, case, delete, select
from sqlalchemy.dialects import postgresql

from bento.store.session import Store
from bento.store.statements import CompiledStatement
from bento.store.tables import stream_offsets


class PartitionPlace(NamedTuple):
    """The place in one partition: the first message that is not decided, and the first whose decision may not be published."""

    topic: str
    partition: int
    next_offset: int
    published_offset: int


def _upsert() -> CompiledStatement:
    # A worker that lost its partition may still write: it never moves the place back.
    new, old = postgresql.insert(stream_offsets), stream_offsets.c
    moved = {name: case((new.excluded[name] > old[name], new.excluded[name]), else_=old[name]) for name in PartitionPlace._fields[2:]}
    return CompiledStatement(new.on_conflict_do_update(index_elements=["topic", "partition"], set_=moved), PartitionPlace._fields)


_UPSERT = _upsert()
_SELECT = select(*(stream_offsets.c[name] for name in PartitionPlace._fields)).where(stream_offsets.c.topic == bindparam("of_topic"))
_DELETE = delete(stream_offsets).where(
    stream_offsets.c.topic == bindparam("of_topic"), stream_offsets.c.partition == bindparam("of_partition")
)


def save_places(connection: Connection, places: Iterable[PartitionPlace]) -> None:
    """Move the worker's places on, inside `writing`; a place that is behind the stored one changes nothing."""
    for place in sorted(places):  # in one order, so that two workers never wait for each other
        _UPSERT(connection, place._asdict())


def load_places(store: Store, topic: str) -> dict[int, PartitionPlace]:
    """Return the place in each partition of a topic that was ever read.

    Raises
    ------
    bento.store.database.StoreUnavailable
        Where the store is not available.
    """
    with store.reading() as connection:
        return {row.partition: PartitionPlace._make(row) for row in connection.execute(_SELECT, {"of_topic": topic})}


def forget_place(store: Store, topic: str, partition: int) -> None:
    """Delete the place in a partition, which is another one under the same name now: the topic was deleted and created again."""
    with store.writing() as connection:
        connection.execute(_DELETE, {"of_topic": topic, "of_partition": partition})
