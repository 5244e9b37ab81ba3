"""Tests of export, erasure, retention and rewrapping, and that no personal data lies in plain text."""

import json
import re
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from sqlalchemy import select, update

from bento.decisions import feedback
from bento.decisions.reconcile import reconcile
from bento.people import data_rights, retention
from bento.people.backup import BackupError, backup, wipe
from bento.problems import Problem
from bento.store import audit_verify, tables
from bento.store.database import location
from bento.store.keyring import SERVICE_KEY_OWNER, Keyring, KeyringError, key_file, read_keys, unseal
from bento.store.records import FeatureSnapshot, NewDecision, ShadowScore, Transaction
from bento.store.session import Store, open_store
from finrisk_assets.cli.main import cli
from finrisk_assets.domains.transaction_anomaly.catalogue import FEATURES
from finrisk_assets.features.online import OnlineFeatures
from finrisk_assets.settings import Settings
from schemas.api import FeedbackRequest
from tests.service.databases import KEYRING_KEY, store_at

SECOND = bytes((2 * 97 + 31 * at) % 256 for at in range(32))
START = datetime(2024, 5, 6, 12, 0, 0)
MARK = re.compile(rb"MARK-[a-z]+-[0-9a-f]{12}")


class Marked:
    """A person whose identifiers, amounts, times and features occur nowhere else."""

    def __init__(self, rng: Random) -> None:
        def named(kind: str) -> str:
            return f"MARK-{kind}-{rng.randbytes(6).hex()}"

        self.customer, self.account, self.merchant, self.country = (named(kind) for kind in ("customer", "account", "merchant", "country"))
        self.transactions = [named("transaction") for _ in range(3)]
        self.amounts = [rng.uniform(100, 1000) for _ in self.transactions]
        self.times = [START + timedelta(microseconds=rng.randrange(10**13)) for _ in self.transactions]
        self.row = np.array([rng.uniform(0, 9) for _ in range(4)], np.float32)
        self.probability, self.balance, self.note = rng.random(), rng.uniform(1000, 9000), named("note")

    def numbers(self) -> list[bytes]:
        """Return the numbers in the eight-byte forms of SQLite and of the sealed row."""
        doubles = [struct.pack(">d", value) for value in (*self.amounts, self.probability, self.balance)]
        times = [struct.pack(">q", (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)) for moment in self.times]
        return [*doubles, *times, self.row.tobytes()[:8]]

    def snapshot(self) -> FeatureSnapshot:
        score = {"score": 1.0, "probability": self.probability, "decision": "approve", "model_version": "v"}
        return FeatureSnapshot(
            "loan_default", f"{self.customer}@2024-05", self.customer, self.account, START, {"balance": self.balance}, score
        )


def fill(store: Store, marked: Sequence[Marked]) -> None:
    """Have a store know these people, as if they had been decided on."""
    for first in range(0, len(marked), 50):
        with store.writing():
            for one in marked[first : first + 50]:
                person = store.person(one.customer, make=True)
                for name, amount, at in zip(one.transactions, one.amounts, one.times, strict=True):
                    store.insert_transaction(Transaction(name, one.customer, at, amount, "debit", one.merchant, one.country), person)
                decision = NewDecision(
                    store.new_id(),
                    domain="transaction_anomaly",
                    route="/v1/transactions",
                    model_version="v",
                    request=json.dumps({"user_id": one.customer, "amount": one.amounts[0], "merchant": one.merchant}).encode(),
                    answer=json.dumps({"transaction_id": one.transactions[0], "risk_score": one.probability}).encode(),
                    row=one.row,
                    probability=one.probability,
                    decision="allow",
                    person=person,
                    transaction_id=one.transactions[0],
                )
                store.insert_decisions([decision])
    store.replace_snapshots(one.snapshot() for one in marked)
    store.insert_shadow_scores(
        [ShadowScore("loan_default", one.customer, START, "v", 0.5, "a", "w", 0.5, "a", None, one.customer) for one in marked]
    )
    for one in marked[::10]:
        feedback.record(store, FeedbackRequest(transaction_id=one.transactions[0], label=True, note=one.note))


def held(store: Store, one: Marked) -> dict[str, Any]:
    """Return an export without the fields that change by exporting."""
    exported = data_rights.export(store, one.customer).model_dump()
    return {name: value for name, value in exported.items() if name not in ("exported_at", "audit")}


def cells(store: Store) -> list[Any]:
    """Return every value of every column of every table."""
    with store.reading() as connection:
        return [value for table in tables.metadata.tables.values() for row in connection.execute(select(table)) for value in row]


def raw(*files: Path) -> bytes:
    """Return the bytes of files, and of SQLite's files next to them."""
    beside = (Path(f"{file}{suffix}") for file in files for suffix in ("", "-wal", "-shm", "-journal"))
    return b"".join(path.read_bytes() for path in beside if path.exists())


def among(content: bytes, wanted: Sequence[bytes]) -> int:
    """Return how many of some eight-byte values occur in the bytes."""
    values, found = np.sort(np.frombuffer(b"".join(wanted), "<u8")), set[int]()
    for offset in range(8):
        there = np.frombuffer(content[offset : offset + (len(content) - offset) // 8 * 8], "<u8")
        place = np.searchsorted(values, there)
        place[place == len(values)] = 0
        found |= set(there[values[place] == there].tolist())
    return len(found)


@pytest.fixture
def store(store_url: str | Path) -> Iterator[Store]:
    """Yield an empty store on each engine, with its clock a year after `START`."""
    with closing(store_at(store_url, durable=False, clock=lambda: people_now(365))) as store:
        yield store


def people_now(days: float) -> int:
    """Return the time a number of days after `START`, in microseconds since 1970."""
    return (START + timedelta(days=days) - datetime(1970, 1, 1)) // timedelta(microseconds=1)


@pytest.fixture
def few(store: Store) -> list[Marked]:
    """Return twenty people whom the store knows."""
    rng = Random(5)
    marked = [Marked(rng) for _ in range(20)]
    fill(store, marked)
    return marked


def opens(key: bytes, sealed: bytes, about: bytes) -> bool:
    try:
        return bool(unseal(key, sealed, about))
    except KeyringError:
        return False


def is_whole(store: Store) -> bool:
    return audit_verify.verify(store.database, store.keyring).broken is None


# The proof.


@pytest.mark.slow
def test_of_a_hundred_erased_among_a_thousand_nothing_is_left_and_the_others_are_as_before(store: Store, tmp_path: Path):
    rng = Random(7)
    everybody = [Marked(rng) for _ in range(1_000)]
    fill(store, everybody)
    erased, others = everybody[::10], [one for at, one in enumerate(everybody) if at % 10]
    compared = others if store.database.file else others[::9]
    before = {one.customer: held(store, one) for one in compared}
    with store.reading() as connection:
        lookups = {store.keyring.token("customer", one.customer) for one in erased}
        gone = connection.execute(select(tables.people).where(tables.people.c.lookup.in_(lookups))).all()
    assert len(gone) == 100

    for one in erased:
        data_rights.erase(store, one.customer, wiping=False)
    on_file = store.database.file is not None
    assert wipe(store) == on_file
    if on_file:
        backup(store, tmp_path / "backup.sqlite")
        files = raw(store.database.file, tmp_path / "backup.sqlite")
        assert not MARK.findall(files)
        assert among(files, [number for one in others[:5] for number in one.numbers()[:3]]) == 15  # the search finds what is there
        assert among(files, [number for one in erased for number in one.numbers()]) == 0
        assert among(files, [row.wrapped_key[at : at + 8] for row in gone for at in (8, 16)]) == 0
        # Sixteen digits: any eight stand somewhere among the digits of so many other tokens by chance.
        assert not any(row.lookup[8:24].encode() in files for row in gone)

    values = cells(store)
    assert not any(MARK.search(value if isinstance(value, bytes) else value.encode()) for value in values if isinstance(value, bytes | str))
    numbers = {value for value in values if isinstance(value, float)}
    assert numbers.isdisjoint({value for one in erased for value in (*one.amounts, one.probability, one.balance)})
    assert numbers.issuperset(others[0].amounts)

    with store.reading() as connection:
        left = connection.execute(select(tables.people.c.person, tables.people.c.lookup, tables.people.c.wrapped_key)).all()
        keys = [store.data_key(*row) for row in left if row.lookup is not None] + [store.keyring.service_key]
        whose = [row.person for row in gone]
        for table in (tables.transactions, tables.standings, tables.shadows, tables.feedback):
            assert not connection.execute(select(table).where(table.c.person.in_(whose))).all()
        sealed = connection.execute(select(tables.decisions).where(tables.decisions.c.person.in_(whose))).all()
    assert len(sealed) == 100
    assert not any(opens(key, row.sealed, row.id.encode()) for row in sealed[:20] for key in keys)

    assert {one.customer: held(store, one) for one in compared} == before
    for one in erased:
        with pytest.raises(Problem, match="unknown_customer"):
            data_rights.export(store, one.customer)
    assert is_whole(store)


# Export.


def test_an_export_has_everything_that_is_held(store: Store, few: list[Marked]):
    one = few[0]
    export = data_rights.export(store, one.customer)
    assert [row["transaction_id"] for row in export.transactions] == [
        name for _, name in sorted(zip(one.times, one.transactions, strict=True))
    ]
    assert {(row["amount"], row["merchant"], row["country"]) for row in export.transactions} == {
        (amount, one.merchant, one.country) for amount in one.amounts
    }
    (decision,) = export.decisions
    assert decision["request"]["user_id"] == one.customer and decision["answer"]["risk_score"] == one.probability
    assert decision["model_input"] == [float(value) for value in one.row]
    (standing,) = export.standings
    assert (standing["account_id"], standing["features"]) == (one.account, {"balance": one.balance})
    (shadow,) = export.shadows
    assert shadow["subject"] == one.customer and shadow["challenger_version"] == "w"
    assert [row["note"] for row in export.feedback] == [one.note]
    assert [row["action"] for row in export.audit] == ["decide", "feedback"]
    assert [row["action"] for row in data_rights.export(store, one.customer).audit] == ["decide", "feedback", "export"]
    assert json.loads(export.model_dump_json())["customer_id"] == one.customer


def test_nobody_unknown_is_exported_or_erased(store: Store, few: list[Marked]):
    for ask in (data_rights.export, data_rights.erase):
        with pytest.raises(Problem, match="unknown_customer"):
            ask(store, "nobody")
        with pytest.raises(Problem, match="invalid"):
            ask(store, "x" * 1_000)


# Erasure.


def test_whoever_is_erased_is_unknown_and_comes_back_as_somebody_else(store: Store, few: list[Marked]):
    one = few[0]
    before = store.person(one.customer)
    data_rights.erase(store, one.customer)
    assert store.person(one.customer) is None and store.find_snapshots(customer_id=one.customer) == []
    assert store.history({"merchant": one.merchant}, START - timedelta(1), START + timedelta(365)) == []
    with pytest.raises(Problem, match="unknown_customer"):
        data_rights.erase(store, one.customer)
    after = store.person(one.customer, make=True)
    assert after.person != before.person and after.key != before.key
    assert data_rights.export(store, one.customer).decisions == []
    assert is_whole(store)


def test_of_a_large_store_the_log_is_emptied_at_once(home: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bento.people.backup.SMALL_BYTES", 1_000)
    with closing(open_store(home)) as store:
        assert not data_rights.erase(store, Marked(Random(9)).customer).file_wiped
        assert Path(f"{store.database.file}-wal").stat().st_size == 0


def test_a_decision_on_somebody_erased_is_known_to_be_one(store: Store, few: list[Marked]):
    data_rights.erase(store, few[0].customer)
    states = [(one.erased, one.content is None, one.probability is None) for one in store.decisions()]
    assert states.count((True, True, True)) == 1 and states.count((False, False, False)) == 19
    prior = store.find_prior_decision(transaction_id=few[0].transactions[0])
    assert prior is not None and prior.body is None


def test_a_challenger_that_is_late_brings_nobody_back(store: Store, few: list[Marked]):
    late = ShadowScore("loan_default", few[0].customer, START, "v", 0.5, "a", "w", 0.5, "a", None, few[0].customer)
    data_rights.erase(store, few[0].customer)
    store.insert_shadow_scores([late])
    assert {one.subject for one in store.list_shadow_scores("loan_default")} == {one.customer for one in few[1:]}


# Retention.


def test_what_is_older_goes_and_people_of_whom_nothing_is_left(store: Store, few: list[Marked]):
    store.clock = lambda: people_now(900)
    with store.writing():
        recent = store.person("recent", make=True)
        store.insert_transaction(Transaction("t-new", "recent", START + timedelta(days=899), 1.0, "debit"), recent)
    done = retention.retain(store, 400)
    assert (done.transactions, done.decisions, done.people) == (60, 20, 0)  # their standings are the batch's, which replaces them
    store.replace_snapshots([few[0].snapshot()])
    assert retention.retain(store, 400) == (0, 0, 19)
    assert store.person(few[0].customer) and store.person("recent") and store.person(few[1].customer) is None
    assert list(store.decisions()) == [] and is_whole(store)


def test_history_is_kept_as_long_as_features_look_back(store: Store):
    assert max(OnlineFeatures(FEATURES).history_s.values()) < retention.SHORTEST_DAYS * 86_400
    with pytest.raises(ValueError, match="keep at least 100"):
        retention.retain(store, 99)


# Rotation.


def test_keys_are_wrapped_anew_and_the_old_master_key_is_of_no_use_afterwards(store: Store, few: list[Marked]):
    before = [held(store, one) for one in few]
    url, old = store.database.url.render_as_string(hide_password=False), store.keyring.master
    with closing(Store(url, Keyring([SECOND, KEYRING_KEY]), upgrades=True)) as rotating:
        with rotating.reading() as connection:
            assert data_rights.count_keys_by_master(connection) == {old: 21}
        assert data_rights.rewrap(rotating) == 21
        assert data_rights.rewrap(rotating) == 0
        with rotating.reading() as connection:
            assert data_rights.count_keys_by_master(connection) == {rotating.keyring.master: 21}
    with closing(Store(url, Keyring([SECOND]), upgrades=True)) as after:
        assert [held(after, one) for one in few] == before
        assert is_whole(after)
    with pytest.raises(KeyringError, match="not given"):
        Store(url, Keyring([KEYRING_KEY]), upgrades=True)


def test_rotation_goes_on_where_it_was_cut_off(store: Store, few: list[Marked], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(data_rights, "ROWS_PER_TRANSACTION", 4)
    url = store.database.url.render_as_string(hide_password=False)
    with closing(Store(url, Keyring([SECOND, KEYRING_KEY]), upgrades=True)) as rotating:
        wrap, calls = rotating.keyring.wrap, iter(range(9))
        with monkeypatch.context() as cut, pytest.raises(StopIteration):
            cut.setattr(rotating.keyring, "wrap", lambda key, about: (next(calls), wrap(key, about))[1])
            data_rights.rewrap(rotating)
        with rotating.reading() as connection:
            assert sorted(data_rights.count_keys_by_master(connection).values()) == [8, 13]
        assert data_rights.rewrap(rotating) == 13


@pytest.mark.parametrize("owner", ["root", "person"])
def test_rotation_trusts_the_id_in_front_of_a_wrapped_key_and_not_the_column_beside_it(store: Store, few: list[Marked], owner: str):
    before = [held(store, one) for one in few]
    url, old = store.database.url.render_as_string(hide_password=False), store.keyring.master
    person = SERVICE_KEY_OWNER if owner == "root" else store.person(few[0].customer).person
    new = Keyring([SECOND]).master
    with store.writing() as connection:
        connection.execute(update(tables.people).where(tables.people.c.person == person).values(master=new))

    assert [(fault.place, fault.wrong) for fault in reconcile(store).listed] == [
        (f"person {person}", "the named master key is not the one that wraps its key: the name or the key was changed")
    ]
    with closing(Store(url, Keyring([SECOND, KEYRING_KEY]), upgrades=True)) as rotating:
        with rotating.reading() as connection:
            assert data_rights.count_keys_by_master(connection) == {old: 21}
        assert data_rights.rewrap(rotating) == 21
    with closing(Store(url, Keyring([SECOND]), upgrades=True)) as after:
        assert [held(after, one) for one in few] == before
        assert reconcile(after).mismatches == 0


# The operator's commands.


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings of a store with twenty people, as the commands find it."""
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path))
    settings = Settings(home=tmp_path)
    with closing(open_store(settings, durable=False)) as store:
        rng = Random(9)
        fill(store, [Marked(rng) for _ in range(20)])
    return settings


def run(*words: str) -> str:
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_people_are_exported_and_erased_by_command(home: Settings, tmp_path: Path):
    one, other = (Marked(rng) for rng in (Random(9),) for _ in range(2))
    run("people", "export", one.customer, "--to", str(tmp_path / "export.json"))
    export = json.loads((tmp_path / "export.json").read_text())
    assert export["standings"][0]["account_id"] == one.account
    assert (tmp_path / "export.json").stat().st_mode & 0o077 == 0
    output = run("people", "erase", "--yes", one.customer, other.customer, "nobody")
    assert "2 erased, 1 not known here" in output and "holds nothing that was deleted" in output
    failed = CliRunner().invoke(cli, ["people", "export", one.customer, "--to", str(tmp_path / "again.json")])
    assert failed.exit_code == 1 and "knows nothing of this customer" in failed.output and one.customer not in failed.output


def test_a_master_key_is_replaced_by_command(home: Settings):
    file = str(key_file(home))
    run("keyring", "new", file)
    assert len(read_keys(Path(file))) == 2
    refused = CliRunner().invoke(cli, ["keyring", "drop"])
    assert refused.exit_code == 1 and "run `finrisk keyring rotate` first" in refused.output
    assert "21 keys wrapped anew" in run("keyring", "rotate")
    assert re.findall(r"(current|old) +(\d+) keys", run("keyring", "show")) == [("current", "21"), ("old", "0")]
    assert "1 old master keys dropped" in run("keyring", "drop")
    assert len(read_keys(Path(file))) == 1 and "current  21 keys" in run("keyring", "show")


def test_what_is_old_is_deleted_by_command(home: Settings):
    assert "deleted 60 transactions and 0 decisions; forgot 0 people" in run("people", "retain", "--older-than", "100")
    refused = CliRunner().invoke(cli, ["people", "retain", "--older-than", "7"])
    assert refused.exit_code == 1 and "keep at least 100" in refused.output


def test_a_backup_is_a_store_which_the_master_key_opens(home: Settings, tmp_path: Path):
    copy = tmp_path / "backups" / "store.sqlite"
    run("store", "backup", str(copy))
    assert copy.stat().st_mode & 0o077 == 0
    one = Marked(Random(9))
    with closing(Store(copy, Keyring.of(home))) as store:
        assert store.find_snapshots(customer_id=one.customer)[0].features == {"balance": one.balance}
        assert is_whole(store)
    refused = CliRunner().invoke(cli, ["store", "backup", str(copy)])
    assert refused.exit_code == 1 and "exists; name a new file" in refused.output


def test_a_file_that_somebody_reads_is_not_wiped_but_later(home: Settings):
    path = location(home)
    with closing(open_store(home)) as store:
        assert wipe(store)
        with closing(sqlite3.connect(path)) as reader:
            reader.execute("begin")
            reader.execute("select count(*) from people").fetchone()
            data_rights.erase(store, Marked(Random(9)).customer, wiping=False)
            assert not wipe(store)
        assert wipe(store)


def test_a_backup_is_a_new_file_and_on_postgresql_that_of_its_own_tools(store: Store, tmp_path: Path):
    (tmp_path / "there").touch()
    with pytest.raises(BackupError, match="exists" if store.database.file else "pg_dump"):
        backup(store, tmp_path / "there")
