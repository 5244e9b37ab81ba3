"""Reconciliation: each stored row is matched with its audit record, and each record with its row, in both directions.

`store.audit_verify` proves that the records are those that the service wrote. Here the records of decisions, erasures, labels and API keys
prove their rows: the output of a record is a MAC over its row. Nothing is written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, func, select, text

from bento.access.api_keys import find_recorded_revocations, list_keys
from bento.decisions.bundle_versions import has_copy, has_policy
from bento.decisions.feedback import match_labels
from bento.store.audit_chain import Record, bind_alert
from bento.store.audit_verify import find_erasures, find_records_at, find_retention_limit
from bento.store.decisions import OUTCOME_STARTS, find_record, read_time
from bento.store.keyring import AUDIT_BEGAN, CLOSED, MASTER_ID_BYTES, SERVICE_KEY_OWNER, KeyringError, key_context
from bento.store.session import Store
from bento.store.tables import OF_KEYS, alerts, audit, checkpoints, decisions, people

ROWS_AT_ONCE = 500
"""Rows in memory at a time. More takes fewer queries and more memory."""
MAX_MISMATCHES = 20
"""Mismatches that are listed; all are counted."""
NEVER_RECORDED = "no audit record has its content: it was inserted or changed"
"""The fault of a row that the service did not write as it is."""

_DECISION_ROWS = (
    select(decisions, people.c.person.label("known_person"), people.c.wrapped_key.is_(None).label("has_no_key"))
    .select_from(decisions.outerjoin(people, decisions.c.person == people.c.person))
    .order_by(decisions.c.position)
)
_PEOPLE_ROWS = select(people.c.person, people.c.lookup, people.c.wrapped_key, people.c.master, people.c.erased_at)
_IS_ERASURE = and_(audit.c.action == "erase", audit.c.person == people.c.person)
_UNRECORDED_ERASURES = (
    select(people.c.person)
    .select_from(people.outerjoin(audit, _IS_ERASURE))
    .where(people.c.wrapped_key.is_(None), people.c.person != SERVICE_KEY_OWNER, audit.c.writer.is_(None))
)
_UNDONE_ERASURES = (
    select(audit.c.person)
    .select_from(audit.outerjoin(people, _IS_ERASURE))
    .where(audit.c.action == "erase", (people.c.person.is_(None)) | people.c.wrapped_key.is_not(None) | people.c.lookup.is_not(None))
)
_MODELS = select(decisions.c.domain, decisions.c.model_version).distinct().order_by(decisions.c.domain, decisions.c.model_version)
_POLICY = decisions.c.policy_version
_POLICIES = select(_POLICY).where(_POLICY.is_not(None)).distinct().order_by(_POLICY)
_SEALED = select(decisions.c.id, decisions.c.person, people.c.lookup, people.c.wrapped_key, decisions.c.sealed).select_from(
    decisions.outerjoin(people, decisions.c.person == people.c.person)
)
_DECIDE_RECORDS = select(audit.c.output, audit.c.writer, audit.c.number).where(audit.c.action == "decide")
_ALERT_ACTIONS = ("alert.open", "alert.claim", "alert.release", "alert.dispose")
_ALERT_RECORDS = select(audit.c.inputs, audit.c.output).where(audit.c.action.in_(_ALERT_ACTIONS))
_PEOPLE_OF_ALERTS = select(audit.c.inputs, audit.c.person).where(audit.c.action == "alert.open")
_KEY_RECORDS = select(audit.c.output, audit.c.inputs).where(OF_KEYS, audit.c.action == "key.create")


class Mismatch(NamedTuple):
    """A row without its audit record, or a record without its row.

    Attributes
    ----------
    place
        The row or the record: ``decision 0f…``, ``person 3a…``, ``writer 9c…, record 12``.
    wrong
        What is wrong with it, as a sentence without its full stop.
    """

    place: str
    wrong: str

    def __str__(self) -> str:
        return f"{self.place}: {self.wrong}"


@dataclass
class ReconcileReport:
    """The number of reconciled rows and of mismatches, and the first mismatches, at most `MAX_MISMATCHES`."""

    rows: int = 0
    mismatches: int = 0
    listed: list[Mismatch] = field(default_factory=list)

    def add(self, place: str, wrong: str) -> None:
        """Count a mismatch."""
        self.mismatches += 1
        if len(self.listed) < MAX_MISMATCHES:
            self.listed.append(Mismatch(place, wrong))


def reconcile(store: Store) -> ReconcileReport:
    """Match all rows of decisions, people, labels, alerts and API keys with their audit records; check the copies that decisions need.

    All is read in one state of the store.

    The records are taken for true: verify the audit before (`audit_verify.verify`).

    Raises
    ------
    bento.store.database.StoreUnavailable
        Where the store is not available.
    """
    report = ReconcileReport()
    with store.reading() as connection:
        if store.database.dialect == "postgresql":
            connection.execute(text("set transaction isolation level repeatable read"))
        if not _begins_as_recorded(store, connection):
            report.add("audit", "it is not the one that this store began: it was wiped, or wiped and begun anew")
        _reconcile_people(store, connection, report)
        _reconcile_decisions(store, connection, report)
        _reconcile_copies(store, connection, report)
        labels = match_labels(connection, store.keyring.mac)
        for label in labels.unrecorded:
            report.add(f"feedback {label}", NEVER_RECORDED)
        for decision in labels.missing:
            report.add(f"decision {decision}", "its recorded feedback is missing")
        for label in labels.reordered:
            report.add(f"feedback {label}", "its position was changed: the audit has another order")
        _reconcile_alerts(store, connection, report)
        _reconcile_keys(store, connection, report)
    return report


def _begins_as_recorded(store: Store, connection: Connection) -> bool:
    """Return whether the first checkpoint is the one whose MAC is sealed with the store's root secret."""
    began = [mark.removeprefix(AUDIT_BEGAN) for mark in store.keyring.read_marks(connection) if mark.startswith(AUDIT_BEGAN)]
    first = connection.execute(select(checkpoints.c.mac).where(checkpoints.c.position == 1)).scalar_one_or_none()
    return began == [first] or (not began and first is None)


def _reconcile_people(store: Store, connection: Connection, report: ReconcileReport) -> None:
    for row in _stream(connection, _PEOPLE_ROWS):
        is_root = row.person == SERVICE_KEY_OWNER
        report.rows += not is_root
        if row.wrapped_key is None:
            continue
        if row.wrapped_key[:MASTER_ID_BYTES].hex() != row.master:
            report.add(f"person {row.person}", "the named master key is not the one that wraps its key: the name or the key was changed")
        if is_root:  # the keyring is unlocked with it
            continue
        try:
            store.keyring.unwrap(row.wrapped_key, key_context(row.person, row.lookup))
        except KeyringError:
            report.add(f"person {row.person}", "the data key does not open: the look-up token or the key was changed")
    for (person,) in _stream(connection, _UNRECORDED_ERASURES):
        report.add(f"person {person}", "the data key is gone, and no erasure is recorded: the erasure was faked")
    for (person,) in _stream(connection, _UNDONE_ERASURES):
        report.add(f"person {person}", "the erasure is recorded, and the row is not erased: it was restored or deleted")


def _reconcile_decisions(store: Store, connection: Connection, report: ReconcileReport) -> None:
    limit, recent = find_retention_limit(connection), 0
    newest_of_writer: dict[str, int] = {}
    rows = _stream(connection, _DECISION_ROWS)
    while page := [row._asdict() for row in islice(rows, ROWS_AT_ONCE)]:
        for row, record in zip(page, _find_records(store, connection, page), strict=True):
            report.rows += 1
            place = f"decision {row['id']}"
            if record is None:
                report.add(place, NEVER_RECORDED)
                continue
            recent += row["decided_at"] >= limit
            if row["person"] is not None and row["known_person"] is None:
                report.add(place, "the row of its person was deleted")
            if row["position"] < 1 or record.number <= newest_of_writer.get(record.writer, 0):
                report.add(place, "its position was changed: the audit has another order")
            newest_of_writer[record.writer] = max(record.number, newest_of_writer.get(record.writer, 0))
    recorded = select(func.count()).select_from(audit).where(audit.c.action == "decide", audit.c.at >= limit)
    if connection.execute(recorded).scalar_one() > recent:
        _name_missing_decisions(store, connection, report, limit)


def _find_records(store: Store, connection: Connection, page: Sequence[Mapping[str, Any]]) -> list[Record | None]:
    found = find_records_at(connection, "decide", {row["decided_at"] for row in page})
    records = {str(record.output)[:OUTCOME_STARTS]: record for record in found}
    return [
        find_record(store.keyring.mac, row, records, erased=row["known_person"] is not None and bool(row["has_no_key"])) for row in page
    ]


def _name_missing_decisions(store: Store, connection: Connection, report: ReconcileReport, limit: int) -> None:
    """Name the records without a row; the places of all rows are held in memory, which is why this runs for a loss alone."""
    present: set[tuple[str, int]] = set()
    rows = _stream(connection, _DECISION_ROWS)
    while page := [row._asdict() for row in islice(rows, ROWS_AT_ONCE)]:
        present |= {(record.writer, record.number) for record in _find_records(store, connection, page) if record is not None}
    for record in _stream(connection, _DECIDE_RECORDS.where(audit.c.at >= limit).order_by(audit.c.writer, audit.c.number)):
        if (record.writer, record.number) not in present:
            report.add(f"writer {record.writer}, record {record.number}", "its decision is missing: the row was deleted or changed")


def _reconcile_copies(store: Store, connection: Connection, report: ReconcileReport) -> None:
    """Name the models and policies without a copy whose abridged decisions need one; full decisions have their answers themselves."""
    lost = "its copy is missing or was changed, and abridged decisions need it for their answers"
    for domain, version in connection.execute(_MODELS).all():
        of_model = and_(decisions.c.domain == domain, decisions.c.model_version == version)
        if not has_copy(store, connection, domain, version) and _has_abridged(store, connection, of_model):
            report.add(f"bundle {domain} {version}", lost)
    for (version,) in connection.execute(_POLICIES).all():
        if not has_policy(connection, version) and _has_abridged(store, connection, version == _POLICY):
            report.add(f"policy {version}", lost)


def _has_abridged(store: Store, connection: Connection, condition: ColumnElement[bool]) -> bool:
    payloads = (store.open_payload(*row) for row in _stream(connection, _SEALED.where(condition)))
    return any(payload is not None and payload.abridged is not None for payload in payloads)


def _reconcile_alerts(store: Store, connection: Connection, report: ReconcileReport) -> None:
    """Match each alert with the record of its newest version: it has as many records as its version says."""
    recorded: dict[str, list[str]] = {}
    for record in _stream(connection, _ALERT_RECORDS):
        recorded.setdefault(record.inputs, []).append(record.output)
    for row in _stream(connection, select(alerts)):
        report.rows += 1
        outputs = recorded.pop(row.decision, [])
        if bind_alert(store.keyring.mac, row._mapping) not in outputs:
            report.add(f"alert {row.decision}", NEVER_RECORDED)
        elif row.version != len(outputs):
            report.add(f"alert {row.decision}", "a later change of it is recorded: an older row was put back")
    limit = find_retention_limit(connection)
    missing = {decision for decision in recorded if read_time(decision) >= limit}
    people_of = dict(connection.execute(_PEOPLE_OF_ALERTS).tuples().all()) if missing else {}
    erased = find_erasures(connection, {str(people_of.get(decision)) for decision in missing})
    for decision in sorted(missing):
        if people_of.get(decision) not in erased:
            report.add(f"alert {decision}", "it is recorded, and its row is missing")


def _reconcile_keys(store: Store, connection: Connection, report: ReconcileReport) -> None:
    created = dict(connection.execute(_KEY_RECORDS).tuples().all())
    revoked = find_recorded_revocations(connection)
    stored = {key.id: key for key in list_keys(connection)}
    for key in stored.values():
        report.rows += 1
        if not key.is_genuine(store.keyring.mac):
            report.add(f"API key {key.id}", "its row was changed: it does not have its MAC")
        elif key.revoked_at is None and key.id in revoked:
            report.add(f"API key {key.id}", "its revocation is recorded, and the row is not revoked: an older row was put back")
        elif key.id not in created:
            report.add(f"API key {key.id}", "its creation is not recorded")
    for key_id in created.keys() - stored.keys():
        report.add(f"API key {key_id}", "its creation is recorded, and its row is missing")
    if CLOSED in store.keyring.read_marks(connection) and not created and not stored:
        report.add("API keys", "the store had keys, and neither a row nor a record of one is left")


def _stream(connection: Connection, query: Any) -> Iterator[Any]:
    """Yield the rows of a query with a bounded number in memory."""
    return iter(connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}))
