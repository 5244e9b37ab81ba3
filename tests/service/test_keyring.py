"""Tests of the keyring: derived keys, wrapped keys, a new master key, and that no text shows a key."""

import base64
import re
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, delete, select

from bento.store import tables
from bento.store.keyring import BOUND, CLOSED, SERVICE_KEY_OWNER, Keyring, KeyringError, key_file, read_keys, seal, unseal, write_keys
from finrisk_assets.settings import Settings

FIRST, SECOND = (bytes((seed * 97 + 31 * at) % 256 for at in range(32)) for seed in (1, 2))
AT = 1_700_000_000_000_000


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        tables.metadata.create_all(connection)
        yield connection
    engine.dispose()


def open_keyring(connection: Connection, *masters: bytes) -> Keyring:
    keyring = Keyring(masters)
    keyring.unlock(connection, AT)
    return keyring


def test_what_is_sealed_opens_with_its_key_at_its_place_only():
    sealed = seal(FIRST, b"customer 5", b"row 1")
    assert b"customer" not in sealed and seal(FIRST, b"customer 5", b"row 1") != sealed
    assert unseal(FIRST, sealed, b"row 1") == b"customer 5"
    for key, content, about in (
        (SECOND, sealed, b"row 1"),
        (FIRST, sealed, b"row 2"),
        (FIRST, sealed[:-1], b"row 1"),
        (FIRST, sealed[:-1] + bytes([sealed[-1] ^ 1]), b"row 1"),
        (FIRST, b"", b"row 1"),
    ):
        with pytest.raises(KeyringError, match="sealed data"):
            unseal(key, content, about)


def test_a_token_is_the_same_in_every_worker_and_differs_by_kind(connection: Connection):
    one, other = open_keyring(connection, FIRST), open_keyring(connection, FIRST)
    assert one.token("customer", "5") == other.token("customer", "5")
    assert re.fullmatch("[0-9a-f]{32}", one.token("customer", "5"))
    assert len({one.token("customer", "5"), one.token("merchant", "5"), one.token("customer", "6"), one.token("customer", "\ud800")}) == 4
    assert re.fullmatch("[0-9a-f]{64}", one.mac(b"head")) and one.mac(b"head") == other.mac(b"head") != one.mac(b"tail")


def test_another_store_has_other_tokens_and_macs(connection: Connection):
    engine = create_engine("sqlite://")
    with engine.begin() as elsewhere:
        tables.metadata.create_all(elsewhere)
        one, other = open_keyring(connection, FIRST), open_keyring(elsewhere, FIRST)
    assert one.token("customer", "5") != other.token("customer", "5")
    assert one.mac(b"head") != other.mac(b"head")
    assert one.service_key != other.service_key


def test_a_new_master_key_changes_no_token_no_mac_and_nothing_sealed(connection: Connection):
    before = open_keyring(connection, FIRST)
    derived = before.token("customer", "5"), before.mac(b"head"), before.service_key
    both = Keyring([SECOND, FIRST])
    both.unlock(connection, AT)
    assert (both.token("customer", "5"), both.mac(b"head"), both.service_key) == derived
    assert both.master == Keyring([SECOND]).master and both.masters[1] == before.master
    assert both.unwrap(before.wrap(FIRST, b"person"), b"person") == FIRST


def test_a_key_is_wrapped_for_one_person(connection: Connection):
    keyring = Keyring([FIRST])
    key = keyring.new_key()
    wrapped = keyring.wrap(key, b"person")
    assert keyring.unwrap(wrapped, b"person") == key and key not in wrapped
    with pytest.raises(KeyringError):
        keyring.unwrap(wrapped, b"somebody else")


def test_the_wrong_master_key_is_refused_before_anything_is_written(connection: Connection):
    open_keyring(connection, FIRST)
    with pytest.raises(
        KeyringError, match=f"under master key {Keyring([FIRST]).master}, which is not given; given: {Keyring([SECOND]).master}"
    ):
        Keyring([SECOND]).unlock(connection, AT)


def test_a_store_that_lost_its_root_secret_gets_no_other_one(connection: Connection):
    open_keyring(connection, FIRST)
    connection.execute(tables.people.insert().values(person="1" * 32, lookup="t", wrapped_key=b"", master="", created_at=AT))
    connection.execute(delete(tables.people).where(tables.people.c.person == SERVICE_KEY_OWNER))
    with pytest.raises(KeyringError, match="restore the table"):
        Keyring([FIRST]).unlock(connection, AT)


def test_a_locked_keyring_says_so():
    for use in (lambda keyring: keyring.token("customer", "5"), lambda keyring: keyring.mac(b""), lambda keyring: keyring.service_key):
        with pytest.raises(KeyringError, match="unlock"):
            use(Keyring([FIRST]))


def test_the_root_secret_is_in_the_store_only_wrapped(connection: Connection):
    keyring = open_keyring(connection, FIRST)
    (row,) = connection.execute(select(tables.people)).all()
    assert row.person == SERVICE_KEY_OWNER and row.lookup is None and row.master == keyring.master
    assert len(keyring.unwrap(row.wrapped_key, SERVICE_KEY_OWNER.encode())[:32]) == 32


def test_a_mark_outlives_the_process_and_a_new_master_key_and_is_put_on_once(connection: Connection):
    assert open_keyring(connection, FIRST).marks == {BOUND}
    before = open_keyring(connection, FIRST)
    assert before.add_mark(connection, CLOSED)
    assert not before.add_mark(connection, CLOSED)
    assert before.read_marks(connection) == open_keyring(connection, FIRST).marks == {BOUND, CLOSED}
    both = open_keyring(connection, SECOND, FIRST)
    assert both.token("customer", "5") == before.token("customer", "5")
    both.add_mark(connection, "audit:ff")
    assert open_keyring(connection, SECOND).marks == {BOUND, CLOSED, "audit:ff"}


def test_another_store_in_the_place_of_the_opened_one_is_told_apart(connection: Connection):
    opened = open_keyring(connection, FIRST)
    connection.execute(delete(tables.people))
    open_keyring(connection, FIRST)
    with pytest.raises(KeyringError, match="restart the service"):
        opened.read_marks(connection)


# Where the master key comes from.


@pytest.mark.parametrize(
    "given",
    [
        base64.b64encode(FIRST).decode(),
        base64.urlsafe_b64encode(FIRST).decode().rstrip("="),
        FIRST.hex(),
        f"{FIRST.hex()},{SECOND.hex()}",
        f"# the current one\n{FIRST.hex()}\n# the one before\n{SECOND.hex()}\n",
    ],
)
def test_the_master_key_may_be_given_in_base64_or_hex_with_older_ones_behind(given: str):
    assert Keyring.of(Settings(master_key=given)).masters[0] == Keyring([FIRST]).master


@pytest.mark.parametrize("given", ["secret", "x" * 64, "0" * 64, FIRST.hex()[:-2], f"{FIRST.hex()},{SECOND.hex()}?", ","])
def test_what_is_no_key_is_refused_without_being_told(given: str):
    with pytest.raises(KeyringError, match="FINRISK_MASTER_KEY must hold 32 random bytes") as refused:
        Keyring.of(Settings(master_key=given))
    assert given == "," or given not in str(refused.value)


def test_settings_and_keyrings_do_not_print_a_key(tmp_path: Path):
    settings = Settings.from_environment({"FINRISK_MASTER_KEY": FIRST.hex()})
    assert settings.master_key == FIRST.hex()
    assert FIRST.hex() not in f"{settings} {settings!r} {Keyring.of(settings)!r} {vars(Keyring.of(settings)).keys()}"


def test_a_key_comes_from_one_place(tmp_path: Path):
    with pytest.raises(KeyringError, match="set one"):
        Keyring.of(Settings(master_key=FIRST.hex(), master_key_file=tmp_path / "key"))


def test_a_key_file_that_is_missing_is_named(tmp_path: Path):
    with pytest.raises(KeyringError, match="absent cannot be read: No such file or directory; put the file back"):
        Keyring.of(Settings(master_key_file=tmp_path / "absent"))


def test_without_a_key_one_is_made_once_which_only_its_owner_reads(tmp_path: Path):
    settings = Settings(home=tmp_path)
    with ThreadPoolExecutor(8) as pool:
        rings = list(pool.map(lambda _: Keyring.of(settings).master, range(8)))
    assert len(set(rings)) == 1 and Keyring.of(settings).master == rings[0]
    assert stat.S_IMODE(key_file(settings).stat().st_mode) == 0o600
    assert [path.name for path in key_file(settings).parent.iterdir()] == ["master.key"]


def test_a_key_file_that_every_user_can_read_is_refused_with_the_fix(tmp_path: Path):
    file = tmp_path / "master.key"
    write_keys(file, [FIRST], new=True)
    settings = Settings(master_key_file=file)
    tmp_path.chmod(0o755)
    file.chmod(0o644)
    with pytest.raises(KeyringError, match=f"run `chmod 600 {file}`"):
        Keyring.of(settings)
    with pytest.raises(KeyringError, match="chmod 600"):
        read_keys(file)
    tmp_path.chmod(0o700)
    assert Keyring.of(settings).master, "nobody else enters its folder"
    tmp_path.chmod(0o755)
    file.chmod(0o640)
    assert Keyring.of(settings).master, "a group is chosen by who chose the mode"


def test_a_key_file_that_is_opened_to_every_user_later_is_refused_too(tmp_path: Path):
    write_keys(tmp_path / "key", [FIRST], new=True)
    running = Keyring.of(Settings(master_key_file=tmp_path / "key"))
    tmp_path.chmod(0o755)
    (tmp_path / "key").chmod(0o604)
    with pytest.raises(KeyringError, match="chmod 600"):
        running.wrap(FIRST, b"person")


def test_where_others_reach_the_service_no_key_is_made(tmp_path: Path):
    with pytest.raises(KeyringError, match="set FINRISK_MASTER_KEY or FINRISK_MASTER_KEY_FILE"):
        Keyring.of(Settings(home=tmp_path), make=False)
    assert not key_file(Settings(home=tmp_path)).exists()
    assert Keyring.of(Settings(home=tmp_path, master_key=FIRST.hex()), make=False).master


def test_a_service_that_runs_learns_of_a_new_master_key_from_its_file(tmp_path: Path):
    write_keys(tmp_path / "key", [FIRST], new=True)
    running = Keyring.of(Settings(master_key_file=tmp_path / "key"))
    write_keys(tmp_path / "key", [SECOND, FIRST])
    assert read_keys(tmp_path / "key") == [SECOND, FIRST]
    assert running.unwrap(Keyring([SECOND]).wrap(FIRST, b"person"), b"person") == FIRST
    assert running.wrap(FIRST, b"person")[:8].hex() == running.master == Keyring([SECOND]).master
