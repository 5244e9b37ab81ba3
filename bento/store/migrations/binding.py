"""The part of an upgrade that needs the store's keys: rows of schema 0001 are bound to their look-up tokens and audit records.

It runs once, when a process first opens the upgraded store. The mark `keyring.BOUND` is sealed with the root secret, so nobody without the
master key can make it run again on rows that were changed.
"""

from collections.abc import Callable

from sqlalchemy import Connection, bindparam, select, update

from bento.store.audit_chain import bind_feedback, bind_key
from bento.store.keyring import BOUND, SERVICE_KEY_OWNER, Keyring, key_context, seal, snapshot_context, unseal
from bento.store.tables import audit, decisions, feedback, keys, people, standings

_FEEDBACK_LEAD_US = 10_000_000
"""Microseconds by which the record of a label may be later than the label: both are written in one transaction."""


def bind_rows(connection: Connection, keyring: Keyring, record: Callable[..., None]) -> None:
    """Bind the rows of an upgraded store, in one transaction; do nothing where another process was first.

    Parameters
    ----------
    record
        Records an action: `UnitOfWork.audit`.
    """
    if not keyring.add_mark(connection, BOUND):
        return
    _bind_data_keys(connection, keyring)
    for key in connection.execute(select(keys).where(keys.c.mac.is_(None))).mappings().all():
        connection.execute(update(keys).where(keys.c.id == key["id"]).values(mac=bind_key(keyring.mac, key)))
    _record_labels(connection, keyring, record)
    record("bind")


def _bind_data_keys(connection: Connection, keyring: Keyring) -> None:
    """Wrap each data key again, now about the person and the look-up token, and seal the person's feature snapshots about their rows."""
    wrapped_keys = select(people.c.person, people.c.lookup, people.c.wrapped_key).where(
        people.c.wrapped_key.is_not(None), people.c.person != SERVICE_KEY_OWNER
    )
    replace_key = (
        update(people)
        .where(people.c.person == bindparam("person_id"))
        .values(wrapped_key=bindparam("wrapped"), master=bindparam("under"))
    )  # fmt: skip
    for person, lookup, wrapped in connection.execute(wrapped_keys).all():
        data_key = keyring.unwrap(wrapped, key_context(person, None))
        for row in connection.execute(select(standings).where(standings.c.person == person)).all():
            plain = unseal(data_key, row.sealed, row.subject.encode())
            sealed = seal(data_key, plain, snapshot_context(row.domain, row.subject, row.account, row.as_of))
            place = standings.c.subject == row.subject, standings.c.domain == row.domain
            connection.execute(update(standings).where(*place).values(sealed=sealed))
        rewrapped = keyring.wrap(data_key, key_context(person, lookup))
        connection.execute(replace_key, {"person_id": person, "wrapped": rewrapped, "under": keyring.master})


def _record_labels(connection: Connection, keyring: Keyring, record: Callable[..., None]) -> None:
    """Record each label again, with its content, where the audit has its record of schema 0001."""
    label_rows = select(feedback, decisions.c.domain, decisions.c.model_version).join(decisions, feedback.c.decision == decisions.c.id)
    used: set[tuple[str, int]] = set()
    for label in connection.execute(label_rows.order_by(feedback.c.position)).mappings().all():
        records = select(audit.c.writer, audit.c.number).where(
            audit.c.at.between(label["at"], label["at"] + _FEEDBACK_LEAD_US),
            audit.c.action == "feedback",
            audit.c.output.is_(None),
            audit.c.caller == label["caller"],
            audit.c.person.is_not_distinct_from(label["person"]),
            audit.c.domain == label["domain"],
        )
        places = connection.execute(records.order_by(audit.c.at)).tuples().all()
        place = next((place for place in places if place not in used), None)
        if place is not None:
            used.add(place)
            record(
                "feedback",
                at=label["at"],
                person=label["person"],
                domain=label["domain"],
                model_version=label["model_version"],
                inputs=label["decision"],
                output=bind_feedback(keyring.mac, label),
            )
