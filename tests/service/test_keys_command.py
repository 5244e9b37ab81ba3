"""Tests of `finrisk keys`: a key is shown once, and every command is audited."""

from contextlib import closing

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from bento.access.api_keys import ApiKeyError, KeyVerifier, create_key, list_keys, revoke_key
from bento.store.session import open_store
from bento.store.tables import audit
from finrisk_assets.cli.main import cli
from finrisk_assets.settings import Settings


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path))
    return tmp_path


def run(*words):
    return CliRunner().invoke(cli, ["keys", *words])


def query_store(query, home):
    """Return what a function of the connection finds in the store."""
    settings = Settings(home=home)
    with closing(open_store(settings)) as store, store.reading() as connection:
        return query(connection)


def test_a_key_is_shown_once_and_alone(home):
    result = run("create", "--name", "gateway", "--role", "scorer", "--role", "analyst", "--expires", "90d")
    assert result.exit_code == 0, result.output
    key = result.stdout.strip()
    (one,) = query_store(list_keys, home)

    assert key.startswith(f"finrisk_{one.id}_")
    assert one.roles == {"scorer", "analyst"}
    assert one.expires_at - one.created_at == 90 * 86_400 * 1_000_000
    assert key not in result.stderr
    secret = key.split("_", 2)[2]
    listed = run("list").output
    assert one.id in listed
    assert "gateway" in listed
    assert secret not in listed
    assert not any(secret.encode() in file.read_bytes() for file in home.rglob("*") if file.is_file())


def test_what_was_done_to_a_key_is_audited(home):
    run("create", "--name", "gateway", "--role", "scorer")
    (one,) = query_store(list_keys, home)
    assert run("revoke", one.id).exit_code == 0

    recorded = query_store(lambda connection: connection.execute(select(audit.c.action, audit.c.output, audit.c.caller)).all(), home)
    assert sorted(tuple(row) for row in recorded if row.action.startswith("key.")) == [
        ("key.create", one.id, "local"),
        ("key.revoke", one.id, "local"),
    ]
    assert query_store(list_keys, home)[0].state(one.created_at) == "revoked"


def test_a_key_goes_to_a_file_of_its_owners_alone(home):
    target = home / "key"
    assert run("create", "--name", "gateway", "--role", "scorer", "--to", str(target)).stdout == ""
    assert target.read_text().startswith("finrisk_")
    assert target.stat().st_mode & 0o777 == 0o600

    again = run("create", "--name", "another", "--role", "scorer", "--to", str(target))
    assert again.exit_code == 1
    assert "cannot be created: File exists" in again.output
    assert len(query_store(list_keys, home)) == 1, "nothing was kept of the key that nobody has"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("create", "--name", "x", "--role", "treasurer"), "'treasurer' is not one of"),
        (("create", "--name", "x"), "--role"),
        (("create", "--name", "", "--role", "scorer"), "1 to 64 printable characters"),
        (("create", "--name", "x", "--role", "scorer", "--expires", "soon"), "12h, 90d, 4w"),
        (("create", "--name", "x", "--role", "scorer", "--expires", "0d"), "12h, 90d, 4w"),
        (("revoke", "0000000000000000"), "`finrisk keys list` shows their ids"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(home, words, message):
    done = run(*words)
    assert done.exit_code != 0
    assert message in done.output
    assert "Traceback" not in done.output


def test_without_keys_the_list_says_what_that_means(home):
    assert "does not start for others" in run("list").output


def test_a_key_is_kept_in_either_database(store):
    with store.writing() as connection:
        result, shown = create_key(connection, store.keyring.mac, "gateway", ["scorer", "analyst"], now=1, expires_at=2**50)
    with store.reading() as connection:
        assert list_keys(connection) == [result]
    assert KeyVerifier(lambda: [result], store.keyring.mac, now=lambda: 1.0).verify(shown).roles == {"scorer", "analyst"}
    with store.writing() as connection:
        revoke_key(connection, store.keyring.mac, result.id, now=5)
        with pytest.raises(ApiKeyError, match="no such key"):
            revoke_key(connection, store.keyring.mac, "another", now=5)
    with store.reading() as connection:
        assert [key._replace(mac=None) for key in list_keys(connection)] == [result._replace(revoked_at=5, mac=None)]
