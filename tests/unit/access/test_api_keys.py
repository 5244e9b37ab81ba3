"""Tests of API keys: shown once, stored as salted hashes, and verified with few queries."""

import hmac

import pytest
from sqlalchemy import create_engine

from bento.access.api_keys import (
    KEY_GRACE_S,
    KEY_REFRESH_S,
    ApiKey,
    ApiKeyError,
    KeyRejected,
    KeysUnavailable,
    KeyVerifier,
    create_key,
    list_keys,
    revoke_key,
)
from bento.store.audit_chain import bind_key
from bento.store.tables import keys as table

NOW = 1_700_000_000_000_000
DAY = 86_400_000_000


def mac(content: bytes) -> str:
    return hmac.digest(b"the service's key", content, "sha256").hex()


class Clock:
    """A clock that the test sets: monotonic seconds, and microseconds since 1970."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> float:
        return NOW / 1e6 + self.seconds


@pytest.fixture
def connection():
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        table.create(connection)
        yield connection


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def verifier(connection, clock):
    """Return the verifier of one worker; `verifier.reads` counts its queries."""
    reads = []
    keys = KeyVerifier(lambda: reads.append(1) or list_keys(connection), mac, clock, clock.now)
    keys.reads = reads
    return keys


def refusal(known, presented):
    with pytest.raises(KeyRejected) as refused:
        known.verify(presented)
    return str(refused.value)


def test_a_key_is_known_by_its_secret_which_is_not_kept(connection, verifier):
    stored, text = create_key(connection, mac, "scoring gateway", ["scorer", "analyst"], now=NOW)

    caller = verifier.verify(text)
    assert (caller.name, caller.roles) == (f"key:{stored.id}", {"scorer", "analyst"})
    rows = str(connection.execute(table.select()).all())
    assert stored.id in rows
    assert text.split("_", 2)[2] not in rows
    assert text not in str(stored)


def test_the_salt_hides_that_two_secrets_are_the_same(connection):
    stored = [
        create_key(connection, mac, "same", ["scorer"], now=NOW, random=lambda n, salt=salt: b"s" * 32 if n == 32 else salt * n)
        for salt in (b"a", b"b")
    ]
    assert len({text.split("_", 2)[2] for _, text in stored}) == 1
    assert len({key.hash for key, _ in stored}) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key[:-1] + ("A" if key[-1] != "A" else "B"),
        lambda key: key[:-1],
        lambda key: key + "A",
        lambda key: key.upper(),
        lambda key: key.replace(key.split("_")[1], "0" * 16),
        lambda key: key.split("_", 1)[1],
        lambda key: "finrisk_",
        lambda key: "",
        lambda key: key + "\n",
    ],
)
def test_another_text_is_no_key(connection, verifier, change):
    _, text = create_key(connection, mac, "one", ["scorer"], now=NOW)

    assert refusal(verifier, change(text)) == "bad_key"


def test_a_secret_does_not_open_another_key(connection, verifier):
    _, one = create_key(connection, mac, "one", ["scorer"], now=NOW)
    other, _ = create_key(connection, mac, "other", ["admin"], now=NOW)

    assert refusal(verifier, f"finrisk_{other.id}_{one.split('_', 2)[2]}") == "bad_key"


@pytest.mark.parametrize("change", [{"roles": "admin scorer"}, {"expires_at": NOW + 900 * DAY}, {"salt": "0" * 32}])
def test_who_can_write_into_the_store_makes_no_key_mightier(connection, verifier, change):
    _, text = create_key(connection, mac, "one", ["scorer"], now=NOW, expires_at=NOW + DAY)
    connection.execute(table.update().values(change))

    assert refusal(verifier, text) == "bad_key"


@pytest.mark.parametrize(
    "change", [{"revoked_at": None}, {"revoked_at": NOW + DAY}, {"name": "another"}, {"created_at": NOW - DAY}, {"mac": None}]
)
def test_who_can_write_into_the_store_brings_no_revoked_key_back(connection, verifier, change):
    stored, text = create_key(connection, mac, "one", ["scorer"], now=NOW)
    revoke_key(connection, mac, stored.id, now=NOW)
    connection.execute(table.update().values(change))

    assert refusal(verifier, text) == "changed_key"


def test_keys_that_were_all_deleted_do_not_open_the_service_again(connection, clock):
    marks = []
    verifier = KeyVerifier(lambda: list_keys(connection), mac, clock, clock.now, had_keys=lambda: bool(marks))
    assert not verifier.has_keys()

    create_key(connection, mac, "one", ["scorer"], now=NOW)
    clock.seconds += KEY_REFRESH_S + 0.1
    assert verifier.has_keys()
    connection.execute(table.delete())
    clock.seconds += KEY_REFRESH_S + 0.1
    assert verifier.has_keys(), "the worker has seen a key"

    marks.append("closed")
    assert KeyVerifier(lambda: list_keys(connection), mac, clock, clock.now, had_keys=lambda: bool(marks)).has_keys(), "so has the store"


def test_who_can_write_into_the_store_makes_no_key_without_the_services_own(connection, verifier):
    _, text = create_key(connection, lambda content: hmac.digest(b"another key", content, "sha256").hex(), "mine", ["admin"], now=NOW)

    assert refusal(verifier, text) == "bad_key"


def test_a_key_expires_by_the_clock_alone(connection, verifier, clock):
    stored, text = create_key(connection, mac, "one", ["scorer"], now=NOW, expires_at=NOW + DAY)

    clock.seconds = 86_399.0
    assert verifier.verify(text)
    clock.seconds = 86_400.0
    with pytest.raises(KeyRejected, match="expired_key") as refused:
        verifier.verify(text)
    assert refused.value.key_id == stored.id


def test_a_revoked_key_is_refused_within_seconds_and_stays_revoked(connection, verifier, clock):
    stored, text = create_key(connection, mac, "one", ["scorer"], now=NOW)
    assert verifier.verify(text)

    revoke_key(connection, mac, stored.id, now=NOW)
    revoke_key(connection, mac, stored.id, now=NOW + DAY)
    clock.seconds = KEY_REFRESH_S + 0.1
    assert refusal(verifier, text) == "revoked_key"
    assert list_keys(connection)[0].revoked_at == NOW


def test_only_the_holder_of_the_secret_learns_that_a_key_was_revoked(connection, verifier):
    stored, _ = create_key(connection, mac, "one", ["scorer"], now=NOW)
    revoke_key(connection, mac, stored.id, now=NOW)

    assert refusal(verifier, f"finrisk_{stored.id}_{'A' * 43}") == "bad_key"


def test_most_requests_need_no_query(connection, verifier, clock):
    _, text = create_key(connection, mac, "one", ["scorer"], now=NOW)
    for _ in range(1_000):
        verifier.verify(text)
        refusal(verifier, f"finrisk_{'0' * 16}_{'A' * 43}")
        clock.seconds += 0.004

    assert len(verifier.reads) == 2, "4 seconds, one reading in two"


def test_keys_that_are_all_revoked_do_not_open_the_service_again(connection, verifier, clock):
    assert not verifier.has_keys()
    stored, _ = create_key(connection, mac, "one", ["scorer"], now=NOW)
    revoke_key(connection, mac, stored.id, now=NOW)

    clock.seconds += KEY_REFRESH_S + 0.1
    assert verifier.has_keys()


def test_keys_are_good_for_a_while_where_the_store_fails(clock):
    stored, text = ApiKey("0" * 16, "", "", "one", frozenset({"scorer"}), NOW, None, None), f"finrisk_{'0' * 16}_{'A' * 43}"
    stored = stored._replace(hash=stored.compute_hash(mac, "A" * 43))
    stored = stored._replace(mac=bind_key(mac, stored.row()))
    answers = [stored]

    def read():
        if not answers:
            raise OSError("unreachable")
        return answers

    known = KeyVerifier(read, mac, clock, clock.now)
    assert known.verify(text)
    answers.clear()
    clock.seconds += KEY_GRACE_S
    assert known.verify(text)
    clock.seconds += 0.1
    with pytest.raises(KeysUnavailable):
        known.verify(text)
    with pytest.raises(KeysUnavailable):
        known.has_keys()
    answers.append(stored)
    assert known.verify(text), "it recovers by itself"


@pytest.mark.parametrize(
    ("name", "roles", "expires_at", "words"),
    [
        ("one", ["treasurer"], None, "not treasurer"),
        ("one", [], None, "one or more of the roles admin, analyst, auditor, privacy, scorer"),
        ("", ["scorer"], None, "1 to 64 printable"),
        ("a\nb", ["scorer"], None, "1 to 64 printable"),
        ("one", ["scorer"], NOW, "expired already"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(connection, name, roles, expires_at, words):
    with pytest.raises(ApiKeyError, match=words):
        create_key(connection, mac, name, roles, now=NOW, expires_at=expires_at)
    assert list_keys(connection) == []


def test_an_unknown_key_cannot_be_revoked(connection):
    with pytest.raises(ApiKeyError, match="finrisk keys list"):
        revoke_key(connection, mac, "0" * 16, now=NOW)
