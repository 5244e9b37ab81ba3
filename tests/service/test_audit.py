"""Tests of the audit chains: every change to a record, a head, a checkpoint or a writer is found and named."""

import hashlib
import hmac
import json
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, exc, text

from bento.people.data_rights import rewrap
from bento.store import audit_chain, audit_verify
from bento.store.audit_chain import GENESIS, REGISTER, AuditError, Chain, Record, digest
from bento.store.audit_verify import ChainBreak, CheckpointReceipt
from bento.store.database import Database, StoreUnavailable
from bento.store.keyring import Keyring
from bento.store.session import Store
from tests.service.databases import Server, store_at

AT = 1_700_000_000_000_000
TABLES = ("audit", "audit_heads", "checkpoints")


class Keys:
    """A keyring with an audit key."""

    def mac(self, content: bytes) -> str:
        return hmac.new(b"the audit key", content, hashlib.sha256).hexdigest()


KEYS = Keys()


def record(store: Database, chain: Chain, n: int = 1, **what: str) -> None:
    """Append a number of equal records to a chain, in one transaction."""
    fields = {"caller": "key:1", "action": "decide", "person": "0c", "domain": "cashflow", "model_version": "5f", "request_id": "r"} | what
    with store.writing() as connection:
        for _ in range(n):
            chain.append(at=AT, inputs="1a", output="2b", **fields)
        chain.flush(connection)
    chain.committed()


def verify(store: Database, *receipt: CheckpointReceipt) -> audit_verify.Verdict:
    return audit_verify.verify(store, KEYS, receipt)


def find_break(store: Database, *receipt: CheckpointReceipt) -> ChainBreak:
    chain_break = verify(store, *receipt).broken
    assert chain_break is not None
    return chain_break


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str | Path:
    """Return the place of these tests' store, on each of both engines."""
    if request.param == "postgresql":
        server: Server = request.getfixturevalue("postgresql")
        return server.new(empty=False)
    path = tmp_path_factory.mktemp("audit") / "store.sqlite"
    store_at(path).close()
    return path


@pytest.fixture
def store(place: str | Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Yield the database of a store without records."""
    monkeypatch.setattr("bento.store.database.COOLDOWN_S", 0.0)  # a test that is refused asks again at once
    database = Database(place, durable=False)
    with database.writing() as connection:
        unguard(connection)
        for table in TABLES:
            connection.execute(text(f"delete from {table}"))
        guard(connection)
    yield database
    database.close()


@pytest.fixture
def recorded_store(store: Database) -> Database:
    """Return a store in which writer `a` recorded 30 times, with a checkpoint for each ten, and `b` five times."""
    one, other = Chain("a", KEYS, every=10), Chain("b", KEYS, every=10)
    record(store, one, 20)
    record(store, other, 5)
    record(store, one, 10)
    assert verify(store) == audit_verify.Verdict(writers=2, records=35, checkpoints=5, broken=None)
    return store


@pytest.fixture
def tamper(recorded_store: Database) -> Callable[..., None]:
    """Return a function that runs statements as the owner of the tables, without the audit key."""

    def run(*statements: str) -> None:
        with recorded_store.writing() as connection:
            unguard(connection)
            for statement in statements:
                assert connection.execute(text(statement)).rowcount, f"changed nothing: {statement}"

    return run


def unguard(connection: Connection) -> None:
    """Drop the triggers that guard the tables."""
    if connection.dialect.name == "postgresql":
        for table in TABLES:
            connection.execute(text(f"alter table {table} disable trigger user"))
    else:
        for name in connection.execute(text("select name from sqlite_master where type = 'trigger'")).scalars().all():
            connection.execute(text(f"drop trigger {name}"))


def guard(connection: Connection) -> None:
    """Put them back."""
    if connection.dialect.name == "postgresql":
        for table in TABLES:
            connection.execute(text(f"alter table {table} enable trigger user"))
    else:
        for statement in audit_chain.append_only("sqlite"):
            connection.execute(text(statement))


def row(store: Database, writer: str, number: int) -> Record:
    with store.writing() as connection:
        where = {"writer": writer, "number": number}
        return Record(
            *connection.execute(
                text(f"select {', '.join(Record._fields)} from audit where writer = :writer and number = :number"), where
            ).one()
        )


def assign(record: Record) -> str:
    """Return the assignments of an update that turns a row into this record."""
    return ", ".join(f"{name} = {'null' if value is None else repr(value)}" for name, value in record._asdict().items())


def insert(record: Record) -> str:
    values = ", ".join("null" if value is None else repr(value) for value in record)
    return f"insert into audit ({', '.join(Record._fields)}) values ({values})"


def move(writer: str, after: int, by: int) -> tuple[str, str]:
    """Return statements that renumber the records after one."""
    return (
        f"update audit set number = -number - {by} where writer = '{writer}' and number > {after}",
        f"update audit set number = -number where writer = '{writer}' and number < 0",
    )


@pytest.mark.parametrize("column", [name for name in Record._fields if name not in ("writer", "number")])
@pytest.mark.parametrize("value", ["'77'", "null"])
def test_a_changed_column_is_seen(recorded_store: Database, tamper: Callable[..., None], column: str, value: str) -> None:
    if value == "null" and column not in ("person", "domain", "model_version", "inputs", "output"):
        value = "'78'"
    tamper(f"update audit set {column} = {value.strip(chr(39)) if column == 'at' else value} where writer = 'a' and number = 7")

    assert find_break(recorded_store)[:2] == ("a", 7)
    assert "content was changed" in find_break(recorded_store).wrong


def test_a_record_that_was_given_another_number_is_seen(recorded_store: Database, tamper: Callable[..., None]) -> None:
    tamper("update audit set number = 99 where writer = 'a' and number = 7")
    assert find_break(recorded_store) == ChainBreak("a", 7, "the order was changed: it is now record 99")


def test_a_record_that_was_given_another_writer_is_missing(recorded_store: Database, tamper: Callable[..., None]) -> None:
    tamper("update audit set writer = 'b', number = 6 where writer = 'a' and number = 7")
    assert find_break(recorded_store) == ChainBreak("a", 7, "it is missing")


@pytest.mark.parametrize("number", [1, 17])
def test_a_deleted_record_is_missed(recorded_store: Database, tamper: Callable[..., None], number: int) -> None:
    tamper(f"delete from audit where writer = 'a' and number = {number}")
    assert find_break(recorded_store) == ChainBreak("a", number, "it is missing")


def test_the_deleted_last_record_is_missed(recorded_store: Database, tamper: Callable[..., None]) -> None:
    tamper("delete from audit where writer = 'b' and number = 5")
    assert find_break(recorded_store) == ChainBreak("b", 5, "it is missing: the tail was cut off, the head knows 5 records")


def test_a_deleted_record_is_missed_when_those_after_it_were_renumbered(recorded_store: Database, tamper: Callable[..., None]) -> None:
    tamper("delete from audit where writer = 'a' and number = 12", *move("a", 12, -1))
    description = "it is missing: the record with this number was written as record 13 and renumbered"
    assert find_break(recorded_store) == ChainBreak("a", 12, description)


def test_two_records_that_changed_places_are_seen(recorded_store: Database, tamper: Callable[..., None]) -> None:
    swap = "update audit set number = {} where writer = 'a' and number = {}"
    tamper(swap.format(-1, 8), swap.format(8, 9), swap.format(9, -1))
    assert find_break(recorded_store) == ChainBreak("a", 8, "the order was changed: it is now record 9")


def test_an_inserted_record_is_seen(recorded_store: Database, tamper: Callable[..., None]) -> None:
    """Anybody can compute hashes: the inserted record follows the one before it."""
    false = row(recorded_store, "a", 7)._replace(number=8, previous=row(recorded_store, "a", 7).hash, caller="key:2")
    tamper(*move("a", 7, 1), insert(false._replace(hash=digest(false))))

    assert find_break(recorded_store) == ChainBreak("a", 8, "it was inserted: the record written as 8 now has number 9")


def test_a_record_inserted_behind_the_head_is_seen(recorded_store: Database, tamper: Callable[..., None]) -> None:
    false = row(recorded_store, "b", 5)._replace(number=6, previous=row(recorded_store, "b", 5).hash)
    tamper(insert(false._replace(hash=digest(false))))

    assert find_break(recorded_store) == ChainBreak("b", 6, "it was inserted after the head")


def test_a_changed_record_that_was_hashed_anew_is_seen_by_the_next(recorded_store: Database, tamper: Callable[..., None]) -> None:
    false = row(recorded_store, "a", 7)._replace(caller="key:2")
    tamper(f"update audit set {assign(false._replace(hash=digest(false)))} where writer = 'a' and number = 7")

    assert find_break(recorded_store)[:2] == ("a", 7)


@pytest.mark.parametrize(
    ("writer", "number", "last", "head", "found"),
    [
        ("a", 13, 30, True, ChainBreak("a", 11, "it or one up to 20 was changed and all hashed anew: a checkpoint knows another hash")),
        ("b", 2, 5, False, ChainBreak("b", 1, "it or one up to 5 was changed and all hashed anew: the head knows another hash")),
        ("b", 2, 5, True, ChainBreak("b", 5, "the head of this writer was forged: its MAC is not that of this keyring")),
    ],
)
def test_a_chain_that_was_hashed_anew_from_one_record_on_is_seen(
    recorded_store: Database, tamper: Callable[..., None], writer: str, number: int, last: int, head: bool, found: ChainBreak
) -> None:
    """Hashes need no key, MACs do: verification names the records between which the change began."""
    false, rows = row(recorded_store, writer, number)._replace(caller="key:2"), []
    for n in range(number, last + 1):
        false = false._replace(hash=digest(false))
        rows.append(f"update audit set {assign(false)} where writer = '{writer}' and number = {n}")
        false = (row(recorded_store, writer, n + 1) if n < last else false)._replace(previous=false.hash)
    tamper(*rows, *[f"update audit_heads set hash = '{false.previous}' where writer = '{writer}'"] * head)

    assert find_break(recorded_store) == found


def test_a_tail_that_was_cut_off_is_missed_though_the_head_was_put_back(recorded_store: Database, tamper: Callable[..., None]) -> None:
    """Without the key the head has no MAC."""
    hash_ = row(recorded_store, "b", 3).hash
    tamper("delete from audit where writer = 'b' and number > 3", f"update audit_heads set number = 3, hash = '{hash_}' where writer = 'b'")
    assert find_break(recorded_store) == ChainBreak("b", 3, "the head of this writer was forged: its MAC is not that of this keyring")


def test_a_tail_that_was_cut_off_is_missed_though_an_older_head_was_put_back(store: Database) -> None:
    """The older head has a MAC, but a checkpoint knows more."""
    chain = Chain("a", KEYS, every=10)
    record(store, chain, 8)
    with store.writing() as connection:
        head = connection.execute(text("select * from audit_heads where writer = 'a'")).one()._asdict()
    record(store, chain, 4)
    with store.writing() as connection:
        unguard(connection)
        connection.execute(text("delete from audit where number > 8"))
        connection.execute(text("update audit_heads set number = :number, hash = :hash, mac = :mac where writer = :writer"), head)

    assert find_break(store) == ChainBreak("a", 9, "it is missing: the tail was cut off, a checkpoint knows 10 records")


REMOVED = "delete from audit where writer = 'b'", "delete from audit_heads where writer = 'b'"


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        (REMOVED, ChainBreak("b", 0, "the whole writer was removed")),
        (REMOVED[:1], ChainBreak("b", 1, "it is missing: all records of this writer were removed")),
        (REMOVED[1:], ChainBreak("b", 5, "the head of this writer was removed")),
        ((*REMOVED, "delete from checkpoints where writer = 'b'"), ChainBreak(REGISTER, 4, "it is missing")),
    ],
)
def test_a_writer_that_was_removed_is_missed(
    recorded_store: Database, tamper: Callable[..., None], statements: tuple[str, ...], found: ChainBreak
) -> None:
    tamper(*statements)
    assert find_break(recorded_store) == found


def test_a_writer_that_was_removed_is_missed_where_the_register_was_renumbered(
    recorded_store: Database, tamper: Callable[..., None]
) -> None:
    tamper(*REMOVED, "delete from checkpoints where position >= 4", "update audit_heads set number = 3 where writer = 'checkpoints'")
    assert find_break(recorded_store) == ChainBreak(REGISTER, 3, "the head of the checkpoints was forged")


def test_a_writer_that_was_made_up_is_seen(recorded_store: Database, tamper: Callable[..., None]) -> None:
    false = row(recorded_store, "a", 1)._replace(writer="c")
    tamper(insert(false._replace(hash=digest(false))))
    assert find_break(recorded_store) == ChainBreak("c", 1, "no checkpoint knows this writer: its records were inserted")


@pytest.mark.parametrize("change", ["number = 10", "hash = 'ff'", "mac = 'ff'"])
def test_a_forged_head_is_seen(recorded_store: Database, tamper: Callable[..., None], change: str) -> None:
    tamper(f"update audit_heads set {change} where writer = 'a'")
    assert find_break(recorded_store).wrong == "the head of this writer was forged: its MAC is not that of this keyring"


@pytest.mark.parametrize("change", ["writer = 'b'", "number = 9", "hash = 'ff'", "at = 5", "mac = 'ff'"])
def test_a_forged_checkpoint_is_seen(recorded_store: Database, tamper: Callable[..., None], change: str) -> None:
    tamper(f"update checkpoints set {change} where position = 2")
    assert find_break(recorded_store)[:2] == (REGISTER, 2)
    assert "forged" in find_break(recorded_store).wrong


@pytest.mark.parametrize(("position", "wrong"), [(1, "it is missing"), (5, "it is missing: the tail was cut off")])
def test_a_removed_checkpoint_is_missed(recorded_store: Database, tamper: Callable[..., None], position: int, wrong: str) -> None:
    tamper(f"delete from checkpoints where position = {position}")
    assert find_break(recorded_store) == ChainBreak(REGISTER, position, wrong)


def test_the_register_cannot_be_removed_with_its_head(recorded_store: Database, tamper: Callable[..., None]) -> None:
    tamper("delete from checkpoints", "delete from audit_heads where writer = 'checkpoints'")
    assert find_break(recorded_store).wrong == "no checkpoint knows this writer: its records were inserted"


def test_another_key_verifies_nothing(recorded_store: Database) -> None:
    class Other(Keys):
        def mac(self, content: bytes) -> str:
            return super().mac(content + b"!")

    assert audit_verify.verify(recorded_store, Other()).broken is not None


REFUSED = (StoreUnavailable, exc.IntegrityError)


# What the database itself refuses -------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(store_url: str | Path) -> Iterator[Database]:
    """Return a new store, as its migrations create it, with one record."""
    with closing(store_at(store_url)) as opened:
        with opened.writing():
            opened.audit("read")
        yield opened.database


@pytest.mark.parametrize("statement", ["update {} set hash = 'ff'", "delete from {}", "truncate {}"])
def test_the_database_refuses_to_change_what_is_recorded(guarded: Database, statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bento.store.database.COOLDOWN_S", 0.0)
    refused = {table: statement for table in TABLES} | ({"audit_heads": "delete from {}"} if "update" in statement else {})
    for table, change in refused.items():
        with pytest.raises(REFUSED), guarded.writing() as connection:
            connection.execute(text(change.format(table)))
    with guarded.reading() as connection:
        assert [connection.execute(text(f"select count(*) from {table}")).scalar() for table in TABLES] == [1, 2, 1]


# Checkpoints that are stored elsewhere ---------------------------------------------------------------------------------------------


def create_checkpoint(store: Database) -> CheckpointReceipt:
    with store.writing() as connection:
        return audit_verify.create_checkpoint(connection, KEYS, AT)


def dump_tables(store: Database) -> dict[str, list[dict[str, object]]]:
    """Return a backup of the audit."""
    with store.writing() as connection:
        return {table: [dict(one._mapping) for one in connection.execute(text(f"select * from {table}"))] for table in TABLES}


def restore(store: Database, backup: dict[str, list[dict[str, object]]]) -> None:
    with store.writing() as connection:
        unguard(connection)
        for table, rows in backup.items():
            connection.execute(text(f"delete from {table}"))
            connection.execute(
                text(f"insert into {table} ({', '.join(rows[0])}) values ({', '.join(f':{name}' for name in rows[0])})"), rows
            )


def test_a_kept_checkpoint_is_found_again_however_much_was_written_since(recorded_store: Database) -> None:
    first = create_checkpoint(recorded_store)
    record(recorded_store, Chain("c", KEYS), 3)
    second = create_checkpoint(recorded_store)

    assert first.position == 6  # `b` went on since its last checkpoint, `a` did not
    assert verify(recorded_store, first, second).broken is None
    assert create_checkpoint(recorded_store) == second  # nothing happened since


def test_of_an_empty_audit_there_is_nothing_to_keep(store: Database) -> None:
    assert verify(store) == audit_verify.Verdict(0, 0, 0, None)
    with pytest.raises(AuditError, match="nothing yet"):
        create_checkpoint(store)


def test_a_store_that_was_rolled_back_is_caught_by_a_kept_checkpoint(recorded_store: Database) -> None:
    backup = dump_tables(recorded_store)
    record(recorded_store, Chain("c", KEYS), 3)
    receipt = create_checkpoint(recorded_store)
    restore(recorded_store, backup)

    assert verify(recorded_store).broken is None  # an old backup is whole in itself
    assert find_break(recorded_store, receipt) == ChainBreak(
        REGISTER, receipt.position, "a receipt names it, but it is missing: the store was rolled back, or its tail cut off"
    )


def test_a_store_that_was_rolled_back_and_written_to_is_caught(recorded_store: Database) -> None:
    backup = dump_tables(recorded_store)
    record(recorded_store, Chain("c", KEYS), 3)
    receipt = create_checkpoint(recorded_store)
    restore(recorded_store, backup)
    record(recorded_store, Chain("d", KEYS), 4)
    create_checkpoint(recorded_store)

    assert "rolled back" in find_break(recorded_store, receipt).wrong


def test_a_kept_line_reads_back_and_another_line_is_refused() -> None:
    receipt = CheckpointReceipt(12, "ab" * 32)
    assert receipt.line(AT) == f"finrisk-audit 12 {'ab' * 32} 2023-11-14T22:13:20Z"
    assert CheckpointReceipt.parse(receipt.line(AT)) == receipt
    with pytest.raises(ValueError, match="finrisk audit checkpoint"):
        CheckpointReceipt.parse("finrisk-audit twelve ab 2023")


def test_others_may_go_on_writing_while_one_verifies(recorded_store: Database) -> None:
    chain, other = Chain("c", KEYS), Database(recorded_store.url.render_as_string(hide_password=False))
    statements: list[str] = []

    def write_meanwhile(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM" in statement:  # the first query fixes the state that is read, not the transaction's opening
            statements.append(statement)
            record(other, chain)

    event.listen(recorded_store.engine, "after_cursor_execute", write_meanwhile)
    try:
        assert verify(recorded_store) == audit_verify.Verdict(2, 35, 5, None)
    finally:
        event.remove(recorded_store.engine, "after_cursor_execute", write_meanwhile)
        other.close()
    assert len(statements) > 3
    assert verify(recorded_store).records == 35 + len(statements)


# Writing ---------------------------------------------------------------------------------------------------------------------------


def test_what_is_recorded_is_hashed_with_all_that_came_before(recorded_store: Database) -> None:
    first, second = row(recorded_store, "a", 1), row(recorded_store, "a", 2)
    content = json.dumps(second[:-1], separators=(",", ":")).encode()

    assert first.previous == GENESIS
    assert second.previous == first.hash
    assert second.hash == hashlib.sha256(content).hexdigest()


def test_several_records_of_one_transaction_follow_each_other(store: Database) -> None:
    chain = Chain("a", KEYS, every=10)
    with store.writing() as connection:
        for n in range(25):
            chain.append(at=AT + n, caller="key:1", action="decide")
        chain.flush(connection)
    chain.committed()

    assert verify(store) == audit_verify.Verdict(1, 25, 3, None)


def test_what_was_rolled_back_leaves_no_gap(store: Database) -> None:
    chain = Chain("a", KEYS)
    for fails in (True, False, False, True, False):  # also the first, which enters the writer into the register
        try:
            with store.writing() as connection:
                chain.append(at=AT, caller="key:1", action="decide")
                chain.flush(connection)
                if fails:
                    raise ValueError
        except ValueError:
            chain.rolled_back()
        else:
            chain.committed()

    assert verify(store) == audit_verify.Verdict(1, 3, 1, None)


def test_what_failed_inside_a_transaction_that_went_on_left_no_record(store_url: str | Path) -> None:
    with closing(store_at(store_url)) as opened:
        with opened.writing():
            with pytest.raises(ValueError, match="refused"), opened.savepoint():
                opened.audit("decide")
                raise ValueError("refused")
            opened.audit("read")
            with opened.savepoint():
                opened.audit("export")
        with opened.reading() as connection:
            assert [one.action for one in audit_verify.find(connection)] == ["export", "read"]
        assert audit_verify.verify(opened.database, opened.keyring).broken is None


def test_a_commit_whose_answer_was_lost_is_found_again(store: Database) -> None:
    """The database committed, the process did not hear of it."""
    chain = Chain("a", KEYS)
    record(store, chain, 2)
    with store.writing() as connection:
        chain.append(at=AT, caller="key:1", action="decide")
        chain.flush(connection)
    chain.rolled_back()
    record(store, chain, 2)

    assert verify(store) == audit_verify.Verdict(1, 5, 1, None)


def test_a_writer_stops_with_a_checkpoint(store: Database) -> None:
    chain = Chain("a", KEYS)
    record(store, chain, 3)
    with store.writing() as connection:
        chain.stop(connection, AT)
        Chain("idle", KEYS).stop(connection, AT)  # recorded nothing, so there is nothing to say of it

    assert verify(store) == audit_verify.Verdict(1, 3, 2, None)


def test_nobody_writes_on_under_a_head_that_was_forged(store: Database) -> None:
    """Its new MAC would cover the traces."""
    chain = Chain("a", KEYS)
    record(store, chain, 3)
    with store.writing() as connection:
        connection.execute(text("update audit_heads set number = 2 where writer = 'a'"))

    with pytest.raises(AuditError, match="writer a"):
        record(store, chain)
    with pytest.raises(AuditError, match="writer a"):
        record(store, Chain("a", KEYS))


def test_many_write_at_once_and_every_chain_holds(store: Database) -> None:
    """Each waits for the others at its checkpoints alone; on SQLite for every write."""

    def write(name: str) -> None:
        own = Database(store.url.render_as_string(hide_password=False), wait_s=30.0, durable=False)
        chain = Chain(name, KEYS, every=5)
        for _ in range(12):
            record(own, chain)
        own.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, "abcd"))

    assert verify(store) == audit_verify.Verdict(writers=4, records=48, checkpoints=4 * 3, broken=None)


def test_verifying_needs_no_more_memory_for_more_records(store: Database) -> None:
    chain, peaks = Chain("a", KEYS), []
    for n in (2_000, 4_000):
        record(store, chain, n)
        tracemalloc.start()
        assert verify(store).broken is None
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < 1.2 * peaks[0]


def test_a_new_master_key_leaves_every_mac_as_it_was(tmp_path: Path) -> None:
    old, new = bytes(range(32)), bytes(range(32, 64))
    with closing(Store(tmp_path / "store.sqlite", Keyring([old]))) as before, before.writing():
        before.audit("read")
    with closing(Store(tmp_path / "store.sqlite", Keyring([new, old]))) as between:
        assert rewrap(between) == 1
    with closing(Store(tmp_path / "store.sqlite", Keyring([new]))) as after:
        assert audit_verify.verify(after.database, after.keyring).broken is None
