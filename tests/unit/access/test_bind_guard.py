"""Tests of the bind guard: the address that BentoML will listen on, and which addresses need a key."""

from contextlib import closing, contextmanager

import click
import pytest
from bentoml_cli.serve import serve_command  # here: it cannot be imported any more once a service was configured

from bento.access import bind_guard
from bento.access.api_keys import create_key
from bento.access.bind_guard import InsecureBind
from bento.store.session import open_store
from bento.store.unit_of_work import now_us
from finrisk_assets.settings import Settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1"])
def test_this_machine_alone_needs_no_key(host):
    bind_guard.check_host(host, lambda: pytest.fail("not even asked"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "2001:db8::7", "localhost.evil.example"])
def test_any_other_address_needs_one(host):
    bind_guard.check_host(host, lambda: True)
    with pytest.raises(InsecureBind, match="finrisk keys create") as refused:
        bind_guard.check_host(host, lambda: False)
    assert host in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "environment", "host"),
    [
        (["--host", "0.0.0.0"], {}, "0.0.0.0"),
        ([], {"BENTOML_HOST": "10.0.0.7"}, "10.0.0.7"),
        (["--host", "127.0.0.1"], {"BENTOML_HOST": "10.0.0.7"}, "127.0.0.1"),
        ([], {}, "10.9.9.9"),  # as the configuration has it
    ],
)
def test_the_address_is_the_one_that_bentoml_will_listen_on(monkeypatch, arguments, environment, host):
    """The bind guard runs inside BentoML's own command, in place of the command's last step."""
    from bentoml._internal.container import BentoMLContainer

    hosts = []
    before = BentoMLContainer.http.host.get()
    monkeypatch.setattr("_bentoml_impl.server.serve_http", lambda *_, **__: hosts.append(bind_guard.find_bind_host()))
    monkeypatch.setattr("bentoml._internal.service.loader.load", lambda **_: type("Service", (), {"inject_config": lambda self: None})())
    monkeypatch.delenv("BENTOML_HOST", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    BentoMLContainer.http.host.set("10.9.9.9")
    try:
        with pytest.raises(SystemExit) as ended:
            serve_command.commands["serve"].main(["any:service", *arguments], standalone_mode=True)
    finally:
        BentoMLContainer.http.host.set(before)
    assert (ended.value.code, hosts) == (0, [host])
    assert click.get_current_context(silent=True) is None


@contextmanager
def serve_on(host):
    """Enter BentoML's command with this address as its `--host`."""
    with click.Context(serve_command.commands["serve"]) as context:
        context.params["host"] = host
        yield


MASTER = {"master_key": "Zm9yIHRlc3RzIG9mIGEgc2VydmljZSBvbiA2NCBieXQ="}
PROVIDER = {"jwt_issuer": "https://login.bank.example", "jwt_audience": "finrisk", "jwt_jwks": "jwks.json"}


@pytest.mark.parametrize(
    ("host", "settings", "words"),
    [
        ("0.0.0.0", {}, "FINRISK_MASTER_KEY"),
        ("0.0.0.0", MASTER, "finrisk keys create"),
        ("0.0.0.0", MASTER | {"jwt_issuer": "https://login.bank.example"}, "FINRISK_JWT_AUDIENCE, FINRISK_JWT_JWKS is not set"),
        ("127.0.0.1", {"jwt_issuer": "https://login.bank.example"}, "FINRISK_JWT_AUDIENCE, FINRISK_JWT_JWKS is not set"),
        ("0.0.0.0", MASTER | {"store_url": "mysql://host/store"}, "sqlite or postgresql"),
    ],
)
def test_what_is_missing_before_others_may_ask_is_named(tmp_path, host, settings, words):
    with serve_on(host), pytest.raises(InsecureBind, match=words):
        bind_guard.check(Settings(home=tmp_path, **settings))


@pytest.mark.parametrize(("host", "settings"), [("127.0.0.1", {}), ("0.0.0.0", MASTER | PROVIDER)])
def test_where_callers_are_known_or_nobody_else_asks_nothing_is_missing(tmp_path, host, settings):
    with serve_on(host):
        bind_guard.check(Settings(home=tmp_path, **settings))
    assert list(tmp_path.iterdir()) == [], "no store was needed to tell"


def test_a_key_is_enough(tmp_path):
    settings = Settings(home=tmp_path, **MASTER)
    with closing(open_store(settings)) as store, store.writing() as connection:
        create_key(connection, store.keyring.mac, "one", ["scorer"], now=now_us())

    with serve_on("0.0.0.0"):
        bind_guard.check(settings)
