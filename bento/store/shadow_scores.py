"""Shadow scores: the challenger's answers beside the champion's, the newest of each domain."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from bento.store.keyring import seal, unseal
from bento.store.records import ShadowScore
from bento.store.tables import people, shadows
from bento.store.unit_of_work import UnitOfWork
from schemas.timestamps import from_micros, to_micros

MAX_SHADOW_SCORES = 100_000
"""Shadow scores that the store holds of each domain, the newest."""

_OLDEST_TO_DELETE = (
    select(shadows.c.position)
    .where(shadows.c.domain == bindparam("named"))
    .order_by(shadows.c.position.desc())
    .limit(1)
    .offset(bindparam("most"))
    .scalar_subquery()
)
_DELETE_OLD = delete(shadows).where(shadows.c.domain == bindparam("named"), shadows.c.position <= _OLDEST_TO_DELETE)
_INSERT = {name: dialect.insert(shadows).on_conflict_do_nothing() for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))}
_SELECT = (
    select(shadows, people.c.lookup, people.c.wrapped_key)
    .select_from(shadows.outerjoin(people, shadows.c.person == people.c.person))
    .where(shadows.c.domain == bindparam("domain"))
    .order_by(shadows.c.position)
)


def insert_shadow_scores(session: UnitOfWork, scores: Sequence[ShadowScore], most: int = MAX_SHADOW_SCORES) -> None:
    """Insert shadow scores and delete the oldest beyond `most` of a domain; a second score of one transaction is ignored."""
    with session.writing() as connection:
        # A person who was erased since the answer must not come back.
        rows = [_pack(session, score) for score in scores if score.customer_id is None or session.person(score.customer_id)]
        if rows:
            connection.execute(_INSERT[session.database.dialect], rows)
        for domain in sorted({score.domain for score in scores}):
            connection.execute(_DELETE_OLD, {"named": domain, "most": most})


def list_shadow_scores(session: UnitOfWork, domain: str) -> list[ShadowScore]:
    """Return the shadow scores of a domain, the oldest first."""
    with session.reading() as connection:
        rows = connection.execute(_SELECT, {"domain": domain}).all()
    return [_unpack(session, row) for row in rows]


def _pack(session: UnitOfWork, score: ShadowScore) -> dict[str, Any]:
    person = None if score.customer_id is None else session.person(score.customer_id)
    values = score._asdict() | {"person": person and person.person, "scored_at": to_micros(score.scored_at), "sealed": None}
    del values["customer_id"]
    if score.subject is not None:
        values["subject"] = session.keyring.token("subject", score.subject)
        key = session.keyring.service_key if person is None else person.key
        values["sealed"] = seal(key, score.subject.encode(), values["subject"].encode())
    return values


def _unpack(session: UnitOfWork, row: Any) -> ShadowScore:
    key = session.key_of(row.person, row.lookup, row.wrapped_key)
    subject = None if row.sealed is None or key is None else unseal(key, row.sealed, row.subject.encode()).decode()
    values = {name: row._mapping[name] for name in ShadowScore._fields if name not in ("subject", "scored_at", "customer_id")}
    return ShadowScore(**values, subject=subject, scored_at=from_micros(row.scored_at))
