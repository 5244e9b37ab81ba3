"""Feature snapshots: the newest features and batch score of each customer or account, replaced as a whole by `finrisk load-history`."""

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import bindparam, delete, insert, select

from bento.store.keyring import seal, snapshot_context, unseal
from bento.store.records import FeatureSnapshot, encode_json
from bento.store.tables import people, standings
from bento.store.unit_of_work import UnitOfWork
from schemas.timestamps import from_micros, to_micros

INSERT_CHUNK_SIZE = 4_000
"""Rows of one insert. More takes fewer statements and more memory."""

_SELECT = select(
    standings.c.domain,
    standings.c.subject,
    standings.c.account,
    standings.c.as_of,
    standings.c.sealed,
    people.c.person,
    people.c.lookup,
    people.c.wrapped_key,
).select_from(standings.join(people, standings.c.person == people.c.person))
_SELECT_BY = {
    names: _SELECT.where(*((people if name == "lookup" else standings).c[name] == bindparam(name) for name in names))
    for holder in (("lookup",), ("account",), ("lookup", "account"))
    for names in (holder, (*holder, "domain"))
}
"""The parameters' names -> the query of the snapshots that they name."""


def replace_snapshots(session: UnitOfWork, snapshots: Iterable[FeatureSnapshot]) -> int:
    """Replace all stored snapshots by these, all or none, and return their number."""
    read = list(snapshots)
    people_of = session.register_customers({snapshot.customer_id for snapshot in read})
    with session.reading() as connection:
        keys = {row.person: row for row in connection.execute(select(people.c.person, people.c.lookup, people.c.wrapped_key))}
    rows = [_pack(session, snapshot, *keys[people_of[snapshot.customer_id]]) for snapshot in read]
    with session.writing() as connection:
        connection.execute(delete(standings))
        for first in range(0, len(rows), INSERT_CHUNK_SIZE):
            connection.execute(insert(standings), rows[first : first + INSERT_CHUNK_SIZE])
    return len(rows)


def find_snapshots(
    session: UnitOfWork, *, customer_id: str | None = None, account_id: str | None = None, domain: str | None = None
) -> list[FeatureSnapshot]:
    """Return the snapshots of a customer or of an account, in all domains or in one, ordered by domain and subject.

    Raises
    ------
    ValueError
        Where neither customer nor account is named.
    """
    if customer_id is None and account_id is None:
        raise ValueError("a feature snapshot belongs to a customer or an account: name one")
    values: dict[str, str] = {}
    if customer_id is not None:
        values["lookup"] = session.keyring.token("customer", customer_id)
    if account_id is not None:
        values["account"] = session.keyring.token("account", account_id)
    if domain is not None:
        values["domain"] = domain
    with session.reading() as connection:
        rows = connection.execute(_SELECT_BY[tuple(values)], values).all()
    return sorted((_unpack(session, row) for row in rows), key=lambda snapshot: (snapshot.domain, snapshot.subject))


def list_snapshots(session: UnitOfWork) -> list[FeatureSnapshot]:
    """Return the snapshots of all customers and accounts, in no particular order."""
    with session.reading() as connection:
        return [_unpack(session, row) for row in connection.execute(_SELECT)]


def _pack(session: UnitOfWork, snapshot: FeatureSnapshot, person: str, lookup: str, wrapped: bytes) -> dict[str, Any]:
    subject = session.keyring.token("subject", snapshot.subject)
    plain = encode_json([snapshot.subject, snapshot.customer_id, snapshot.account_id, snapshot.features, snapshot.score])
    account = None if snapshot.account_id is None else session.keyring.token("account", snapshot.account_id)
    as_of = None if snapshot.as_of is None else to_micros(snapshot.as_of)
    context = snapshot_context(snapshot.domain, subject, account, as_of)
    return {
        "subject": subject,
        "domain": snapshot.domain,
        "person": person,
        "account": account,
        "as_of": as_of,
        "sealed": seal(session.data_key(person, lookup, wrapped), plain.encode(), context),
    }


def _unpack(session: UnitOfWork, row: Any) -> FeatureSnapshot:
    context = snapshot_context(row.domain, row.subject, row.account, row.as_of)
    plain = unseal(session.data_key(row.person, row.lookup, row.wrapped_key), row.sealed, context)
    subject, customer, account, features, score = json.loads(plain)
    as_of = None if row.as_of is None else from_micros(row.as_of)
    return FeatureSnapshot(row.domain, subject, customer, account, as_of, features, score)
