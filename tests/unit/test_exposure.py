"""Where the service listens: BentoML's own command asked for its address, and which addresses need a key."""

from contextlib import closing

import click
import pytest
from bentoml_cli.serve import serve_command  # here: it cannot be imported any more once a service was configured

from bento.access import bind_guard
from bento.access.api_keys import create
from bento.access.bind_guard import Exposed
from bento.store.session import open_store
from bento.store.unit_of_work import now_us
from finrisk_assets.settings import Settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1"])
def test_this_machine_alone_needs_no_key(host):
    bind_guard.refuse(host, lambda: pytest.fail("not even asked"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "2001:db8::7", "localhost.evil.example"])
def test_any_other_address_needs_one(host):
    bind_guard.refuse(host, lambda: True)
    with pytest.raises(Exposed, match="finrisk keys create") as refused:
        bind_guard.refuse(host, lambda: False)
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
    """Asked inside BentoML's own command, whose last step is replaced by the question."""
    from bentoml._internal.container import BentoMLContainer

    heard = []
    before = BentoMLContainer.http.host.get()
    monkeypatch.setattr("_bentoml_impl.server.serve_http", lambda *_, **__: heard.append(bind_guard.listening()))
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
    assert (ended.value.code, heard) == (0, [host])
    assert click.get_current_context(silent=True) is None


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
def test_what_is_missing_before_others_may_ask_is_named(tmp_path, monkeypatch, host, settings, words):
    monkeypatch.setattr(bind_guard, "listening", lambda: host)

    with pytest.raises(Exposed, match=words):
        bind_guard.check(Settings(home=tmp_path, **settings))


@pytest.mark.parametrize(("host", "settings"), [("127.0.0.1", {}), ("0.0.0.0", MASTER | PROVIDER)])
def test_where_callers_are_known_or_nobody_else_asks_nothing_is_missing(tmp_path, monkeypatch, host, settings):
    monkeypatch.setattr(bind_guard, "listening", lambda: host)

    bind_guard.check(Settings(home=tmp_path, **settings))
    assert list(tmp_path.iterdir()) == [], "no store was needed to tell"


def test_a_key_is_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(bind_guard, "listening", lambda: "0.0.0.0")
    settings = Settings(home=tmp_path, **MASTER)
    with closing(open_store(settings)) as store, store.writing() as connection:
        create(connection, store.keyring.mac, "one", ["scorer"], now=now_us())

    bind_guard.check(settings)
