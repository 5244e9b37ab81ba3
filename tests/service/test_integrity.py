"""Tests of an attacker who can write into the store's database and has no key: every change is named by the verification."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, select, text, update

from bento.access.api_keys import create_key, revoke_key
from bento.decisions import feedback
from bento.decisions.reconcile import reconcile
from bento.people import data_rights, retention
from bento.store import audit_verify, tables
from bento.store.audit_chain import AuditError
from bento.store.database import Database
from bento.store.keyring import BOUND, Keyring, KeyringError, key_context, seal, snapshot_context, unseal
from bento.store.records import FeatureSnapshot, NewDecision
from bento.store.session import Store, open_store
from finrisk_assets.cli.main import cli
from finrisk_assets.settings import Settings
from schemas.api import FeedbackRequest
from tests.service.databases import KEYRING_KEY, store_at
from tests.service.test_audit import TABLES, unguard

NOW = 1_700_000_000_000_000
DAY = 86_400_000_000
PEOPLE = ("ada", "bob", "cyd", "dan")


class Clock:
    """A clock that goes on by a microsecond whenever it is read."""

    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        self.now += 1
        return self.now


def decide(store: Store, number: int, customer: str | None) -> str:
    """Store a decision under an identifier of its own, and return its id."""
    with store.writing():
        person = None if customer is None else store.person(customer, make=True)
        decision = NewDecision(
            store.new_id(), "transaction_anomaly", "/v1/transactions", "5f", b"{}", b'{"transaction_id":"t"}', np.zeros(3, np.float32), 0.5,
            "allow", person=person, transaction_id=f"t{number}", key=f"k{number}",
        )  # fmt: skip
        store.insert_decisions([decision])
    return decision.id


def fill(store: Store) -> None:
    """Have a store of nine decisions, two labels, an erased person and three keys, one of them revoked."""
    ids = [decide(store, number, (*PEOPLE, None)[number % 5]) for number in range(9)]
    for decision in ids[:2]:
        feedback.record(store, FeedbackRequest(decision_id=decision, label=True, note="seen"))
    data_rights.erase(store, "dan", wiping=False)
    with store.writing() as connection:
        for name in ("one", "two", "three"):
            key, _ = create_key(connection, store.keyring.mac, name, ["scorer"], now=store.clock())
            store.audit("key.create", inputs=key.mac, output=key.id)
        revoked = revoke_key(connection, store.keyring.mac, key.id, now=store.clock())
        store.audit("key.revoke", inputs=revoked.mac, output=key.id)


def find_faults(store: Store) -> list[str]:
    """Return what `finrisk audit verify` would name."""
    broken = audit_verify.verify(store.database, store.keyring).broken
    return [str(broken)] * (broken is not None) + [str(mismatch) for mismatch in reconcile(store).listed]


@pytest.fixture
def filled(store_url: str | Path) -> Iterator[Store]:
    """Yield a store, on each of both engines, as the service left it."""
    with closing(store_at(store_url, durable=False, clock=Clock())) as store:
        fill(store)
    with closing(store_at(store_url, durable=False, clock=Clock(NOW + DAY))) as store:
        assert find_faults(store) == []
        yield store


def tamper(store: Store, *statements: str, **values: Any) -> None:
    """Run statements as the owner of the tables, without a key of the service."""
    with store.writing() as connection:
        unguard(connection)
        for statement in statements:
            assert connection.execute(text(statement), values).rowcount, f"changed nothing: {statement}"


OF_SECOND = "(select person from decisions where position = 2)"
ERASED = "(select person from (select person from people where erased_at is not null) as erased)"
COPY = ", ".join(
    column.name for column in tables.decisions.columns if column.name not in ("position", "id", "transaction_token", "idempotency")
)
FEEDBACK_COPY = ", ".join(column.name for column in tables.feedback.columns if column.name not in ("position", "id"))
NEVER = r"decision \w+: no audit record has its content"


@pytest.mark.parametrize(
    ("statements", "fault"),
    [
        *[
            ((f"update decisions set {change} where position = 2",), NEVER)
            for change in (
                "caller = 'key:2'",
                "request_id = 'r'",
                "route = '/v1/cashflow'",
                "domain = 'cashflow'",
                "model_version = '60'",
                "digest = '00'",
                "decided_at = decided_at + 1",
                "probability = 0.4",
                "decision = 'block'",
                "probability = null",
                "transaction_token = null",
                "idempotency = null",
                "person = null",
                "id = 'ff'",
                "person = (select person from (select person from decisions where position = 3) as another)",
                "sealed = (select sealed from (select sealed from decisions where position = 3) as another)",
            )
        ],
        (("update decisions set position = 99 where position = 2",), "its position was changed"),
        (("update decisions set position = -2 where position = 9",), "its position was changed"),
        (
            tuple(f"update decisions set position = {new} where position = {old}" for old, new in ((2, 99), (3, 2), (99, 3))),
            "its position was changed",
        ),
        (("delete from decisions where position = 2",), r"writer \w+, record 2: its decision is missing"),
        (("delete from decisions where position = 9",), r"writer \w+, record 9: its decision is missing"),
        (("delete from decisions",), "its decision is missing"),
        ((f"insert into decisions (id, {COPY}) select 'ff', {COPY} from decisions where position = 2",), NEVER),
        ((f"update decisions set probability = 0.5, decision = 'allow' where person = {ERASED}",), NEVER),
        (
            (f"update people set lookup = null, wrapped_key = null, erased_at = 5 where person = {OF_SECOND}",),
            "the erasure was faked",
        ),
        (
            (
                f"update decisions set probability = null, decision = null where person = {OF_SECOND}",
                f"update people set lookup = null, wrapped_key = null, erased_at = 5 where person = {OF_SECOND}",
            ),
            "the erasure was faked",
        ),
        ((f"update people set wrapped_key = null where person = {OF_SECOND}",), "the erasure was faked"),
        ((f"update people set lookup = '00' where person = {OF_SECOND}",), "the data key does not open"),
        ((f"update people set lookup = null where person = {OF_SECOND}",), "the data key does not open"),
        (
            (f"update people set wrapped_key = (select wrapped_key from people where person = {OF_SECOND}) where person = {ERASED}",),
            "the erasure is recorded, and the row is not erased",
        ),
        ((f"update people set lookup = '00' where person = {ERASED}",), "the erasure is recorded, and the row is not erased"),
        ((f"delete from people where person = {ERASED}",), "the erasure is recorded, and the row is not erased"),
        ((f"delete from people where person = {OF_SECOND}",), "the row of its person was deleted"),
        (
            (f"insert into feedback (id, {FEEDBACK_COPY}) select 'ff', {FEEDBACK_COPY} from feedback where position = 1",),
            "feedback ff: no audit",
        ),
        *[
            ((f"update feedback set {change} where position = 1",), r"feedback \w+: no audit record has its content")
            for change in ("label = false", "known_at = 5", "caller = 'key:2'", "at = at + 1", "note = null", "id = 'ff'", "person = null")
        ],
        (("delete from feedback where position = 1",), r"decision \w+: its recorded feedback is missing"),
        (("update keys set revoked_at = null where revoked_at is not null",), r"API key \w+: its row was changed"),
        (("update keys set roles = 'admin' where name = 'one'",), r"API key \w+: its row was changed"),
        (("update keys set name = 'x', mac = (select mac from keys where name = 'two') where name = 'one'",), "its row was changed"),
        (("delete from keys where name = 'one'",), "its creation is recorded, and its row is missing"),
        (("delete from keys",), "its creation is recorded, and its row is missing"),
        (tuple(f"delete from {table}" for table in TABLES), "audit: it is not the one that this store began"),
        (
            (*(f"delete from {table}" for table in TABLES), "delete from decisions", "delete from feedback", "delete from keys"),
            "audit: it is not the one that this store began",
        ),
    ],
)
def test_a_row_that_the_service_did_not_write_so_is_named(filled: Store, statements: tuple[str, ...], fault: str) -> None:
    tamper(filled, *statements)

    faults = find_faults(filled)
    assert any(re.search(fault, one) for one in faults), faults


def swap_lookups(store: Store) -> None:
    with store.reading() as connection:
        rows = connection.execute(select(tables.people.c.person, tables.people.c.lookup).where(tables.people.c.lookup.is_not(None))).all()
    (one, first), (other, second) = rows[:2]
    change = "update people set lookup = {} where person = {}"
    values = {"one": one, "other": other, "first": first, "second": second}
    tamper(store, change.format("'-'", ":one"), change.format(":first", ":other"), change.format(":second", ":one"), **values)


def test_two_people_whose_look_up_tokens_were_swapped_are_named_and_neither_answers_for_the_other(filled: Store) -> None:
    for customer in PEOPLE[:3]:
        filled.person(customer)  # their keys are in memory
    swap_lookups(filled)

    assert sum("the data key does not open" in fault for fault in find_faults(filled)) == 2
    refused = 0
    for customer in PEOPLE[:3]:
        try:
            filled.person(customer)
        except KeyringError:
            refused += 1
    assert refused == 2


def test_a_service_whose_look_up_tokens_were_swapped_answers_503(client, transaction) -> None:
    import bentoml

    for customer in ("ada", "bob"):
        assert client.post("/v1/transactions", json=transaction(user_id=customer)).status_code == 200
    store = bentoml.get_current_service().store
    with store.reading() as connection:
        tokens = [store.keyring.token("customer", customer) for customer in ("ada", "bob")]
        people = dict(connection.execute(select(tables.people.c.lookup, tables.people.c.person)).tuples().all())
    change = "update people set lookup = {} where person = {}"
    values = {"ada": people[tokens[0]], "bob": people[tokens[1]], "token_a": tokens[0], "token_b": tokens[1]}
    tamper(store, change.format("'-'", ":ada"), change.format(":token_a", ":bob"), change.format(":token_b", ":ada"), **values)

    assert client.get("/v1/people/ada/export").status_code == 503
    assert client.post("/v1/transactions", json=transaction(5, user_id="ada")).status_code == 503


SNAPSHOT = FeatureSnapshot("loan_default", "ada@2024-06", "ada", "A1", datetime(2024, 6, 1), {"balance": 1.0}, {"score": 1.0})


@pytest.mark.parametrize("change", ["domain = 'cashflow'", "account = null", "as_of = as_of + 1", "subject = '00'"])
def test_a_feature_snapshot_in_the_row_of_another_one_does_not_open(filled: Store, change: str) -> None:
    filled.replace_snapshots([SNAPSHOT])
    assert filled.find_snapshots(customer_id="ada") == [SNAPSHOT]
    tamper(filled, f"update standings set {change}")
    with pytest.raises(KeyringError, match="moved to another row"):
        filled.find_snapshots(customer_id="ada")


def test_an_older_row_of_a_revoked_key_is_named_and_stays_revoked(store_url: str | Path) -> None:
    with closing(store_at(store_url)) as store:
        with store.writing() as connection:
            key, _ = create_key(connection, store.keyring.mac, "one", ["scorer"], now=1)
            store.audit("key.create", inputs=key.mac, output=key.id)
        with store.writing() as connection:
            revoke_key(connection, store.keyring.mac, key.id, now=2)
            store.audit("key.revoke", output=key.id)
        tamper(store, "update keys set revoked_at = null, mac = :mac", mac=key.mac)

        assert find_faults(store) == [
            f"API key {key.id}: its revocation is recorded, and the row is not revoked: an older row was put back"
        ]


def test_an_audit_that_was_wiped_and_begun_anew_is_named(filled: Store, store_url: str | Path) -> None:
    tamper(filled, *(f"delete from {table}" for table in TABLES), "delete from decisions", "delete from feedback", "delete from keys")
    with closing(store_at(store_url, clock=Clock(NOW + 2 * DAY))) as another:
        decide(another, 77, "ada")
        faults = find_faults(another)

    assert "audit: it is not the one that this store began: it was wiped, or wiped and begun anew" in faults


def test_a_store_that_recorded_nothing_is_whole(store: Store) -> None:
    store.register_customers({"ada", "bob"})
    assert find_faults(store) == []


def test_what_the_service_itself_deletes_and_wraps_anew_is_whole(filled: Store, store_url: str | Path) -> None:
    data_rights.erase(filled, "ada", wiping=False)
    filled.clock = Clock(NOW + 200 * DAY)
    for number in range(20, 25):
        decide(filled, number, "bob")
    assert retention.retain(filled, 150).decisions == 9
    assert find_faults(filled) == []
    filled.close()
    with closing(Store(store_url, Keyring([bytes(reversed(KEYRING_KEY)), KEYRING_KEY]), durable=False)) as rotated:
        assert data_rights.rewrap(rotated) > 1
        assert find_faults(rotated) == []
        tamper(rotated, "delete from decisions where position = 12")
        assert "its decision is missing" in find_faults(rotated)[0]


# Keys that were deleted -----------------------------------------------------------------------------------------------------------


def test_a_service_whose_keys_were_deleted_stays_closed(serving, bundles, tmp_path: Path) -> None:
    environment = {"FINRISK_HOME": str(serving.home)}
    with serving(bundles) as client:
        assert client.get("/v1/models").status_code == 200
    created = CliRunner().invoke(cli, ["keys", "create", "--name", "one", "--role", "scorer"], env=environment)
    assert created.exit_code == 0, created.output
    with closing(open_store(Settings(home=serving.home))) as store:
        tamper(store, "delete from keys", "delete from audit where action like 'key.%'")
    with serving(bundles) as client:
        assert client.get("/v1/models").status_code == 401

    listed = CliRunner().invoke(cli, ["keys", "list"], env=environment).output
    assert "their rows were deleted, and the service answers nobody" in listed
    verified = CliRunner().invoke(cli, ["audit", "verify"], env=environment)
    assert verified.exit_code == 1
    assert "the store had keys, and neither a row nor a record of one is left" in verified.output


def test_a_store_of_which_a_part_was_emptied_is_no_new_store(filled: Store, store_url: str | Path) -> None:
    filled.replace_snapshots([SNAPSHOT])
    filled.close()
    with closing(Database(store_url)) as database, database.writing() as connection:
        unguard(connection)
        for table in ("people", "keys", *TABLES, "decisions", "feedback"):
            connection.execute(text(f"delete from {table}"))

    with pytest.raises(KeyringError, match="the store's root secret is missing"):
        store_at(store_url)


def test_a_wholly_emptied_store_is_a_new_one_which_a_receipt_alone_tells_apart(filled: Store, store_url: str | Path) -> None:
    with filled.writing() as connection:
        receipt = audit_verify.create_checkpoint(connection, filled.keyring, filled.clock())
    filled.close()
    with closing(Database(store_url)) as database, database.writing() as connection:
        unguard(connection)
        for table in tables.metadata.sorted_tables:
            connection.execute(table.delete())

    with closing(store_at(store_url)) as store:
        assert find_faults(store) == []
        broken = audit_verify.verify(store.database, store.keyring, [receipt]).broken
        assert broken is not None and "a receipt names it" in broken.wrong


def test_a_key_that_was_revoked_is_refused_though_its_row_says_otherwise(serving, bundles) -> None:
    environment = {"FINRISK_HOME": str(serving.home)}
    with serving(bundles):
        pass
    shown = CliRunner().invoke(cli, ["keys", "create", "--name", "one", "--role", "scorer"], env=environment).stdout.strip()
    key_id = shown.split("_")[1]
    with closing(open_store(Settings(home=serving.home))) as store:
        with store.reading() as connection:
            before = connection.execute(select(tables.keys.c.mac)).scalar()
        assert CliRunner().invoke(cli, ["keys", "revoke", key_id], env=environment).exit_code == 0
        for mac in ("mac", f"'{before}'"):
            tamper(store, f"update keys set revoked_at = null, mac = {mac}")
            with serving(bundles) as client:
                assert client.get("/v1/models", headers={"X-API-Key": shown}).status_code == 401


# A store that was replaced --------------------------------------------------------------------------------------------------------


def dump(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Return a backup of all tables."""
    with store.reading() as connection:
        return {table.name: [dict(row) for row in connection.execute(select(table)).mappings()] for table in tables.metadata.sorted_tables}


def restore(connection: Connection, backup: dict[str, list[dict[str, Any]]]) -> None:
    unguard(connection)
    for table in tables.metadata.sorted_tables:
        connection.execute(table.delete())
        if backup[table.name]:
            connection.execute(table.insert(), backup[table.name])


@pytest.mark.parametrize("writes_on", [True, False])
def test_after_an_older_copy_was_put_in_place_the_next_verification_says_so(
    store_url: str | Path, writes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bento.store.database.COOLDOWN_S", 0.0)
    running = store_at(store_url, writer="a" * 32, clock=Clock())
    decide(running, 1, "ada")
    backup = dump(running)
    for number in range(2, 5):
        decide(running, number, "ada")
    with closing(store_at(store_url)) as attacker, attacker.database.writing() as connection:
        restore(connection, backup)
    if writes_on:
        with pytest.raises(AuditError):
            decide(running, 5, "ada")
        decide(running, 6, "ada")
        decide(running, 7, "ada")
    running.close()

    with closing(store_at(store_url, clock=Clock(NOW + DAY))) as store:
        verdict = audit_verify.verify(store.database, store.keyring)
        assert verdict.broken is None
        (replaced,) = verdict.replaced
        assert replaced.lost == f"{'a' * 32} 4"
        assert "the store was replaced by an older copy" in str(replaced)
        assert reconcile(store).mismatches == 0
        assert len(list(store.decisions())) == (3 if writes_on else 1)


def test_a_newer_store_that_came_back_lost_nothing(store_url: str | Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bento.store.database.COOLDOWN_S", 0.0)
    running = store_at(store_url, writer="a" * 32, clock=Clock())
    decide(running, 1, "ada")
    older = dump(running)
    decide(running, 2, "ada")
    newer = dump(running)
    with closing(store_at(store_url)) as other:
        for backup in (older, newer):
            with other.database.writing() as connection:
                restore(connection, backup)
            if backup is older:
                assert not running.is_writable()  # says so once, and then goes on in the older copy
                assert running.is_writable()
    decide(running, 3, "ada")
    running.close()

    with closing(store_at(store_url, clock=Clock(NOW + DAY))) as store:
        verdict = audit_verify.verify(store.database, store.keyring)
        assert (verdict.broken, list(verdict.replaced)) == (None, [])
        assert len(list(store.decisions())) == 3


def test_a_replacement_is_reported_once_as_a_failure_and_named_ever_after(serving, bundles, transaction, tmp_path: Path) -> None:
    environment = {"FINRISK_HOME": str(serving.home)}

    def verify() -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["audit", "verify"], env=environment)
        return done.exit_code, done.output

    with closing(open_store(Settings(home=serving.home), writer="a" * 32)) as store:
        decide(store, 1, "ada")
        backup = dump(store)
        decide(store, 2, "ada")
        with store.database.writing() as connection:
            restore(connection, backup)

    first, second = verify(), verify()
    assert first[0] == 1
    assert "the store was replaced by an older copy, which lacks the records of writer " + "a" * 32 in first[1]
    assert second[0] == 0, second[1]
    assert "reported before" in second[1]
    assert "all whole" in second[1]


def test_nothing_is_written_into_another_store(store_url: str | Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bento.store.database.COOLDOWN_S", 0.0)
    running = store_at(store_url)
    with running.database.writing() as connection:
        unguard(connection)
        for table in tables.metadata.sorted_tables:
            connection.execute(table.delete())
    with closing(store_at(store_url)):
        pass  # another store begins in the same place
    with pytest.raises(KeyringError, match="restart the service"):
        decide(running, 1, "ada")
    running.close()
    with closing(store_at(store_url)) as store:
        assert find_faults(store) == []


# A store of the former schema ------------------------------------------------------------------------------------------------------


def make_former(store: Store) -> None:
    """Turn a store into one that code of schema 0001 wrote."""
    keyring = store.keyring
    with store.database.writing() as connection:
        connection.execute(text("drop table stream_offsets"))
        connection.execute(text("drop table alerts"))
        connection.execute(text("drop table policies"))
        connection.execute(text("alter table decisions drop column policy_version"))
        connection.execute(text("drop table bundles"))
        connection.execute(text("drop table history_version"))
        connection.execute(text("drop index transactions_by_writing"))
        connection.execute(text("alter table transactions drop column written_in"))
        connection.execute(text("drop index audit_of_keys"))
        connection.execute(text("alter table keys drop column mac"))
        connection.execute(text("update alembic_version set version_num = '0001'"))
        for row in connection.execute(select(tables.people).where(tables.people.c.wrapped_key.is_not(None))).all():
            plain = keyring.unwrap(row.wrapped_key, key_context(row.person, row.lookup))[:32]
            wrapped = keyring.wrap(plain, row.person.encode())
            for snapshot in connection.execute(select(tables.standings).where(tables.standings.c.person == row.person)).all():
                context = snapshot_context(snapshot.domain, snapshot.subject, snapshot.account, snapshot.as_of)
                sealed = seal(plain, unseal(plain, snapshot.sealed, context), snapshot.subject.encode())
                connection.execute(update(tables.standings).values(sealed=sealed))
            connection.execute(update(tables.people).where(tables.people.c.person == row.person).values(wrapped_key=wrapped))


def test_a_store_of_the_former_schema_is_bound_when_it_is_opened(store_url: str | Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as former, closing(store_at(store_url, clock=Clock())) as store:
        former.setattr("bento.store.decisions.bind_row", lambda mac, row: hashlib.sha256(row["sealed"]).hexdigest())
        former.setattr("bento.decisions.feedback.bind_feedback", lambda mac, row: None)
        fill(store)
        store.replace_snapshots([SNAPSHOT])
        make_former(store)

    with closing(store_at(store_url, clock=Clock(NOW + DAY))) as store:
        assert BOUND in store.keyring.marks
        assert find_faults(store) == []
        assert len(feedback.list_labels(store, "transaction_anomaly").labels) == 2
        assert data_rights.export(store, "ada").decisions[0]["answer"] is not None
        assert store.find_snapshots(customer_id="ada") == [SNAPSHOT]
        decide(store, 50, "ada")
        assert find_faults(store) == []
        tamper(store, "update decisions set caller = 'key:2' where position = 2")
        assert re.search(NEVER, find_faults(store)[0])
    with closing(store_at(store_url)) as store, store.reading() as connection:
        binds = connection.execute(text("select count(*) from audit where action = 'bind'")).scalar()
        assert binds == 1
