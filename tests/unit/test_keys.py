"""API keys: shown once, kept as salted hashes, and told apart with hardly a query."""

import hmac

import pytest
from sqlalchemy import create_engine

from bento.access.api_keys import GOOD_FOR_SECONDS, SEEN_WITHIN_SECONDS, BadKey, Key, Keys, KeysError, Unreadable, create, kept, revoke
from bento.store.tables import keys as table

NOW = 1_700_000_000_000_000
DAY = 86_400_000_000


def mac(content: bytes) -> str:
    return hmac.digest(b"the service's key", content, "sha256").hex()


class Clock:
    """Time that passes when it is told to: seconds of the clock, and microseconds since 1970."""

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
def known(connection, clock):
    """The keys as a worker knows them; `known.reads` counts its queries."""
    reads = []
    keys = Keys(lambda: reads.append(1) or kept(connection), mac, clock, clock.now)
    keys.reads = reads
    return keys


def refusal(known, presented):
    with pytest.raises(BadKey) as refused:
        known.caller(presented)
    return str(refused.value)


def test_a_key_is_known_by_its_secret_which_is_not_kept(connection, known):
    made, shown = create(connection, mac, "scoring gateway", ["scorer", "analyst"], now=NOW)

    found = known.caller(shown)
    assert (found.name, found.roles) == (f"key:{made.id}", {"scorer", "analyst"})
    rows = str(connection.execute(table.select()).all())
    assert made.id in rows
    assert shown.split("_", 2)[2] not in rows
    assert shown not in str(made)


def test_the_salt_hides_that_two_secrets_are_the_same(connection):
    made = [
        create(connection, mac, "same", ["scorer"], now=NOW, random=lambda n, salt=salt: b"s" * 32 if n == 32 else salt * n)
        for salt in (b"a", b"b")
    ]
    assert len({shown.split("_", 2)[2] for _, shown in made}) == 1
    assert len({key.hash for key, _ in made}) == 2


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
def test_another_text_is_no_key(connection, known, change):
    _, shown = create(connection, mac, "one", ["scorer"], now=NOW)

    assert refusal(known, change(shown)) == "bad_key"


def test_a_secret_does_not_open_another_key(connection, known):
    _, one = create(connection, mac, "one", ["scorer"], now=NOW)
    other, _ = create(connection, mac, "other", ["admin"], now=NOW)

    assert refusal(known, f"finrisk_{other.id}_{one.split('_', 2)[2]}") == "bad_key"


@pytest.mark.parametrize("change", [{"roles": "admin scorer"}, {"expires_at": NOW + 900 * DAY}, {"salt": "0" * 32}])
def test_who_can_write_into_the_store_makes_no_key_mightier(connection, known, change):
    _, shown = create(connection, mac, "one", ["scorer"], now=NOW, expires_at=NOW + DAY)
    connection.execute(table.update().values(change))

    assert refusal(known, shown) == "bad_key"


def test_who_can_write_into_the_store_makes_no_key_without_the_services_own(connection, known):
    _, shown = create(connection, lambda content: hmac.digest(b"another key", content, "sha256").hex(), "mine", ["admin"], now=NOW)

    assert refusal(known, shown) == "bad_key"


def test_a_key_expires_by_the_clock_alone(connection, known, clock):
    made, shown = create(connection, mac, "one", ["scorer"], now=NOW, expires_at=NOW + DAY)

    clock.seconds = 86_399.0
    assert known.caller(shown)
    clock.seconds = 86_400.0
    with pytest.raises(BadKey, match="expired_key") as refused:
        known.caller(shown)
    assert refused.value.key_id == made.id


def test_a_revoked_key_is_refused_within_seconds_and_stays_revoked(connection, known, clock):
    made, shown = create(connection, mac, "one", ["scorer"], now=NOW)
    assert known.caller(shown)

    revoke(connection, made.id, now=NOW)
    revoke(connection, made.id, now=NOW + DAY)
    clock.seconds = SEEN_WITHIN_SECONDS + 0.1
    assert refusal(known, shown) == "revoked_key"
    assert kept(connection)[0].revoked_at == NOW


def test_only_the_holder_of_the_secret_learns_that_a_key_was_revoked(connection, known):
    made, _ = create(connection, mac, "one", ["scorer"], now=NOW)
    revoke(connection, made.id, now=NOW)

    assert refusal(known, f"finrisk_{made.id}_{'A' * 43}") == "bad_key"


def test_most_requests_need_no_query(connection, known, clock):
    _, shown = create(connection, mac, "one", ["scorer"], now=NOW)
    for _ in range(1_000):
        known.caller(shown)
        refusal(known, f"finrisk_{'0' * 16}_{'A' * 43}")
        clock.seconds += 0.004

    assert len(known.reads) == 2, "4 seconds, one reading in two"


def test_keys_that_are_all_revoked_do_not_open_the_service_again(connection, known, clock):
    assert not known.exist()
    made, _ = create(connection, mac, "one", ["scorer"], now=NOW)
    revoke(connection, made.id, now=NOW)

    clock.seconds += SEEN_WITHIN_SECONDS + 0.1
    assert known.exist()


def test_keys_are_good_for_a_while_where_the_store_fails(clock):
    made, shown = Key("0" * 16, "", "", "one", frozenset({"scorer"}), NOW, None, None), f"finrisk_{'0' * 16}_{'A' * 43}"
    made = made._replace(hash=made.hashed(mac, "A" * 43))
    answers = [made]

    def read():
        if not answers:
            raise OSError("unreachable")
        return answers

    known = Keys(read, mac, clock, clock.now)
    assert known.caller(shown)
    answers.clear()
    clock.seconds += GOOD_FOR_SECONDS
    assert known.caller(shown)
    clock.seconds += 0.1
    with pytest.raises(Unreadable):
        known.caller(shown)
    with pytest.raises(Unreadable):
        known.exist()
    answers.append(made)
    assert known.caller(shown), "it recovers by itself"


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
    with pytest.raises(KeysError, match=words):
        create(connection, mac, name, roles, now=NOW, expires_at=expires_at)
    assert kept(connection) == []


def test_an_unknown_key_cannot_be_revoked(connection):
    with pytest.raises(KeysError, match="finrisk keys list"):
        revoke(connection, "0" * 16, now=NOW)
