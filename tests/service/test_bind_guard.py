"""Tests of a service on a public address: it starts only with known callers, speaks TLS, and logs no secret."""

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

from bento.access.api_keys import KEY_REFRESH_S, create_key, revoke_key
from bento.store.session import open_store
from bento.store.unit_of_work import now_us
from finrisk_assets.settings import Settings
from tests.service.serving import REPOSITORY, free_port, store_models
from tests.tokens import AUDIENCE, ISSUER, OTHER, RSA, jwks_document, token

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
    assert "on 0.0.0.0 other machines could call this service" in done.stderr
    assert "finrisk keys create" in done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def open_beside(home):
    """Open the store of the running service, as `finrisk keys` does."""
    settings = Settings(home=home, master_key_file=home / "master.key")
    with closing(open_store(settings)) as store:
        yield store


@pytest.fixture(scope="module")
def keys(home):
    """Return two keys, one to use and one to revoke."""
    environment_of(home)
    with open_beside(home) as store, store.writing() as connection:
        created = {name: create_key(connection, store.keyring.mac, name, ["scorer"], now=now_us()) for name in ("used", "revoked")}
    return {name: shown for name, (_, shown) in created.items()}


@pytest.fixture(scope="module")
def service(home, certificate, keys):
    """Yield the port and the log of a service on all addresses, with TLS, API keys and a token issuer."""
    port, log = free_port(), home / "serve.log"
    jwks = home / "jwks.json"
    jwks.write_text(json.dumps(jwks_document(one=RSA)))
    provider = {"FINRISK_JWT_ISSUER": ISSUER, "FINRISK_JWT_AUDIENCE": AUDIENCE, "FINRISK_JWT_JWKS": str(jwks)}
    arguments = ["--host", "0.0.0.0", "--port", str(port), "--ssl-certfile", str(certificate[0]), "--ssl-keyfile", str(certificate[1])]
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", "bento.service:FinRisk", *arguments],
            cwd=REPOSITORY, env=environment_of(home, **provider, BENTOML_DEBUG="true"), stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while get(port, certificate, "/readyz")[0] != 200:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield port, log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def get(port, certificate, path, credential=None, scheme="https"):
    """Return status and body of a GET on loopback; status 0 where no server answers."""
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


def test_with_a_key_it_starts_speaks_tls_and_asks_everybody(service, certificate, keys):
    port, _ = service

    assert get(port, certificate, "/v1/models")[0] == 401
    assert get(port, certificate, "/v1/models", keys["used"])[0] == 200
    assert get(port, certificate, "/v1/models", token())[0] == 200
    assert get(port, certificate, "/v1/audit", keys["used"])[0] == 403
    assert get(port, certificate, "/v1/models", keys["used"], scheme="http")[0] == 0, "nothing is answered in plain text"
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):  # by a client that does not trust the certificate
        urllib.request.urlopen(f"https://127.0.0.1:{port}/livez", timeout=5)


def test_a_key_that_is_revoked_is_refused_within_seconds(service, home, certificate, keys):
    port, _ = service
    assert get(port, certificate, "/v1/models", keys["revoked"])[0] == 200

    with open_beside(home) as store, store.writing() as connection:
        revoke_key(connection, store.keyring.mac, keys["revoked"].split("_")[1], now=now_us())
    time.sleep(KEY_REFRESH_S + 0.2)
    assert get(port, certificate, "/v1/models", keys["revoked"])[0] == 401
    assert get(port, certificate, "/v1/models", keys["used"])[0] == 200


def test_no_secret_stands_in_the_log(service, certificate, keys):
    port, log = service
    forged = token(OTHER)
    unknown = f"finrisk_{'0' * 16}_{'Z' * 43}"
    for credential in (keys["used"], token(), forged, unknown, keys["used"] + "x"):
        get(port, certificate, "/v1/models", credential)
        get(port, certificate, "/v1/nothing", credential)
        get(port, certificate, f"/v1/risk-scores/{credential}", credential)

    written = log.read_text()
    assert "finrisk" in written
    for secret in (keys["used"].split("_", 2)[2], keys["revoked"].split("_", 2)[2], "Z" * 43, *forged.split("."), MASTER_KEY):
        assert secret not in written
