"""Tests of credentials that the libraries find themselves, each in a process of its own with an environment of its own."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from finrisk_assets.objects.object_store import write_object
from tests.objects.object_servers import ObjectServer

READ = "import sys\nfrom finrisk_assets.objects.object_store import read_object\nprint(read_object(sys.argv[1]).decode())"
NONE_FOUND = "this process has no credentials for its store; see docs/object-storage.md"
ROLE = {
    "AccessKeyId": "key", "SecretAccessKey": "hush", "Token": "token", "Code": "Success", "Type": "AWS-HMAC",
    "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z",
}  # fmt: skip
"""Credentials of a role, as Amazon's services answer."""

FOUND_BY_LIBRARIES = ("AWS_", "AZURE_", "GOOGLE_", "GCE_", "STORAGE_", "IDENTITY_")


class MetadataServer(ThreadingHTTPServer):
    """A service of a machine that gives out credentials: it has some answers, refuses all else, and keeps the paths of its requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, str] = {}
        self.requests: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: MetadataServer

    def log_message(self, *arguments: Any) -> None:
        """Log nothing."""

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.requests.append(path)
        content = self.server.answers.get(path)
        body = (content or '{"error": "invalid_client"}').encode()
        self.send_response(400 if content is None else 200)
        for name, value in {"metadata-flavor": "Google", "content-type": "application/json", "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = _answer


@pytest.fixture
def metadata() -> Iterator[MetadataServer]:
    with MetadataServer() as server:
        yield server
        server.shutdown()


def environment(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that has these credentials alone."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(FOUND_BY_LIBRARIES)}
    return {**others, "HOME": str(folder), "CLOUDSDK_CONFIG": str(folder), "AWS_DEFAULT_REGION": "us-east-1", **variables}


@pytest.mark.parametrize("place", ["keys", "profile", "container", "machine", "none"])
def test_s3_is_read_with_keys_a_profile_or_a_role(
    s3: ObjectServer, s3_bucket: str, metadata: MetadataServer, place: str, tmp_path: Path
) -> None:
    write_object(b"content", f"{s3_bucket}/x")
    (tmp_path / "credentials").write_text("[risk]\naws_access_key_id = key\naws_secret_access_key = hush\n")
    of_machine = "/latest/meta-data/iam/security-credentials/"
    metadata.answers = {
        "/container": json.dumps(ROLE), "/latest/api/token": "token", of_machine: "risk", f"{of_machine}risk": json.dumps(ROLE),
    }  # fmt: skip
    variables = {
        "keys": {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hush"},
        "profile": {"AWS_PROFILE": "risk", "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")},
        "container": {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://{metadata.host}/container"},
        "machine": {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{metadata.host}/", "AWS_EC2_METADATA_DISABLED": "false"},
        "none": {},
    }[place]
    endpoint = {"AWS_ENDPOINT_URL": s3.proxy.address, "AWS_EC2_METADATA_DISABLED": "true"}
    command = [sys.executable, "-W", "ignore", "-c", READ, f"{s3_bucket}/x"]
    done = subprocess.run(command, env=environment(tmp_path, endpoint | variables), capture_output=True, text=True)
    assert done.stdout == ("" if place == "none" else "content\n"), done.stderr
    assert (NONE_FOUND in done.stderr) == (place == "none")


def asks_for(path: str, metadata: MetadataServer, address: str, folder: Path, variables: Mapping[str, str]) -> bool:
    """Return whether a process that reads an object asks for a token; it is not left to try again, which takes it a minute."""
    command = [sys.executable, "-W", "ignore", "-c", READ, address]
    with subprocess.Popen(command, env=environment(folder, variables), stderr=subprocess.DEVNULL) as reading:
        while reading.poll() is None and path not in metadata.requests:
            time.sleep(0.1)
        reading.kill()
    return path in metadata.requests


@pytest.mark.parametrize("place", ["file", "machine"])
def test_cloud_storage_asks_for_a_token_of_a_service_account(metadata: MetadataServer, place: str, tmp_path: Path) -> None:
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key = rsa.generate_private_key(65537, 2048).private_bytes(*form).decode()
    account = {"type": "service_account", "client_email": "risk@example", "private_key": key, "token_uri": f"http://{metadata.host}/token"}
    (tmp_path / "account.json").write_text(json.dumps(account))
    metadata.answers = {"/": "a machine of Google", "/computeMetadata/v1/project/project-id": "risk"}
    variables, path = {
        "file": ({"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "account.json")}, "/token"),
        "machine": (
            {"GCE_METADATA_HOST": metadata.host, "GCE_METADATA_IP": metadata.host},
            "/computeMetadata/v1/instance/service-accounts/default/",
        ),
    }[place]
    assert asks_for(path, metadata, "gs://bucket/x", tmp_path, variables)


def test_azure_asks_its_default_chain_for_a_token(metadata: MetadataServer, tmp_path: Path) -> None:
    variables = {
        "AZURE_STORAGE_ACCOUNT_NAME": "risk", "IDENTITY_ENDPOINT": f"http://{metadata.host}/identity", "IDENTITY_HEADER": "header",
    }  # fmt: skip
    assert asks_for("/identity", metadata, "abfs://container/x", tmp_path, variables)
