"""A service that other machines reach: it starts only where it knows its callers, speaks TLS, and tells no secret to its log."""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from bento.access.api_keys import SEEN_WITHIN_SECONDS, create, revoke
from bento.store.session import open_store
from bento.store.unit_of_work import now_us
from finrisk_assets.settings import Settings
from tests.service.serving import REPOSITORY, free_port, store_models
from tests.unit.test_tokens import AUDIENCE, ISSUER, OTHER, RSA, published, token

pytestmark = pytest.mark.slow
WAIT_SECONDS = 120
MASTER_KEY = "Zm9yIHRlc3RzIG9mIGEgc2VydmljZSBvbiA2NCBieXQ="


def environment_of(home: Path, **more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FINRISK_", "PYTHONPATH", "BENTOML_"))}
    master = home / "master.key"
    master.write_text(MASTER_KEY)
    master.chmod(0o600)
    own = {"BENTOML_HOME": str(home), "FINRISK_HOME": str(home), "FINRISK_MASTER_KEY_FILE": str(master), "BENTOML_DO_NOT_TRACK": "true"}
    return clean | own | more


@pytest.fixture(scope="module")
def home(tmp_path_factory, bundles):
    folder = tmp_path_factory.mktemp("exposed")
    return store_models(folder, {"loan_default": bundles["loan_default"]})


def test_without_a_key_it_does_not_start_where_others_reach_it(home):
    command = [sys.executable, "-m", "bentoml", "serve", "bento.service:FinRisk", "--host", "0.0.0.0", "--port", str(free_port())]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment_of(home), capture_output=True, text=True, timeout=WAIT_SECONDS)

    assert done.returncode != 0
    assert "on 0.0.0.0 other machines could ask this service" in done.stderr
    assert "finrisk keys create" in done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def opened(home):
    """The store that the service has, opened beside it as `finrisk keys` does."""
    settings = Settings(home=home, master_key_file=home / "master.key")
    with closing(open_store(settings)) as store:
        yield store


@pytest.fixture(scope="module")
def keys(home):
    """Two keys, one to use and one to revoke."""
    environment_of(home)
    with opened(home) as store, store.writing() as connection:
        made = {name: create(connection, store.keyring.mac, name, ["scorer"], now=now_us()) for name in ("used", "revoked")}
    return {name: shown for name, (_, shown) in made.items()}


@pytest.fixture(scope="module")
def served(home, certificate, keys):
    """The port of a service on all addresses, with TLS, keys and a provider of tokens, and its log."""
    port, log = free_port(), home / "serve.log"
    jwks = home / "jwks.json"
    jwks.write_text(json.dumps(published(one=RSA)))
    provider = {"FINRISK_JWT_ISSUER": ISSUER, "FINRISK_JWT_AUDIENCE": AUDIENCE, "FINRISK_JWT_JWKS": str(jwks)}
    arguments = ["--host", "0.0.0.0", "--port", str(port), "--ssl-certfile", str(certificate[0]), "--ssl-keyfile", str(certificate[1])]
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", "bento.service:FinRisk", *arguments],
            cwd=REPOSITORY, env=environment_of(home, **provider, BENTOML_DEBUG="true"), stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while asked(port, certificate, "/readyz")[0] != 200:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield port, log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def asked(port, certificate, path, credential=None, scheme="https"):
    """Status and body of a GET on loopback; 0 where nobody answers."""
    request = urllib.request.Request(
        f"{scheme}://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {credential}"} if credential else {}
    )
    trusted = ssl.create_default_context(cafile=str(certificate[0])) if scheme == "https" else None
    try:
        with urllib.request.urlopen(request, timeout=5, context=trusted) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (OSError, urllib.error.URLError):
        return 0, ""


def test_with_a_key_it_starts_speaks_tls_and_asks_everybody(served, certificate, keys):
    port, _ = served

    assert asked(port, certificate, "/v1/models")[0] == 401
    assert asked(port, certificate, "/v1/models", keys["used"])[0] == 200
    assert asked(port, certificate, "/v1/models", token())[0] == 200
    assert asked(port, certificate, "/v1/audit", keys["used"])[0] == 403
    assert asked(port, certificate, "/v1/models", keys["used"], scheme="http")[0] == 0, "nothing is answered in plain text"
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):  # by who does not know the certificate
        urllib.request.urlopen(f"https://127.0.0.1:{port}/livez", timeout=5)


def test_a_key_that_is_revoked_is_refused_within_seconds(served, home, certificate, keys):
    port, _ = served
    assert asked(port, certificate, "/v1/models", keys["revoked"])[0] == 200

    with opened(home) as store, store.writing() as connection:
        revoke(connection, keys["revoked"].split("_")[1], now=now_us())
    time.sleep(SEEN_WITHIN_SECONDS + 0.2)
    assert asked(port, certificate, "/v1/models", keys["revoked"])[0] == 401
    assert asked(port, certificate, "/v1/models", keys["used"])[0] == 200


def test_no_secret_stands_in_the_log(served, certificate, keys):
    port, log = served
    forged = token(OTHER)
    unknown = f"finrisk_{'0' * 16}_{'Z' * 43}"
    for credential in (keys["used"], token(), forged, unknown, keys["used"] + "x"):
        asked(port, certificate, "/v1/models", credential)
        asked(port, certificate, "/v1/nothing", credential)
        asked(port, certificate, f"/v1/risk-scores/{credential}", credential)

    written = log.read_text()
    assert "finrisk" in written
    for secret in (keys["used"].split("_", 2)[2], keys["revoked"].split("_", 2)[2], "Z" * 43, *forged.split("."), MASTER_KEY):
        assert secret not in written
