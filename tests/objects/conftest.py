"""Servers of S3, Cloud Storage and Azure Blob Storage on loopback, one of each for all tests, and a bucket for each test."""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.conftest import require
from tests.objects.object_servers import FaultProxy, ObjectServer

AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The key that every Azurite has; it opens nothing else."""


@pytest.fixture(scope="session")
def environment() -> Iterator[pytest.MonkeyPatch]:
    """Yield a patch of the environment that all servers share: a file system keeps the endpoint that it first saw."""
    with pytest.MonkeyPatch.context() as patch:
        # One retry in place of five: a lost server is told sooner.
        patch.setattr("s3fs.core.S3FileSystem.retries", 1)
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        yield patch


@pytest.fixture(scope="session")
def s3(environment: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """Yield moto's server of S3."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    proxy = FaultProxy(server.get_host_and_port()[1])
    environment.setenv("AWS_ENDPOINT_URL", proxy.address)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        environment.setenv(name, "us-east-1" if name.endswith("REGION") else "testing")
    client = boto3.client("s3")
    yield ObjectServer("s3", proxy, lambda name: client.create_bucket(Bucket=name) and None)
    proxy.shutdown()
    server.stop()


@pytest.fixture(scope="session")
def gs(environment: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """Yield an emulator of Cloud Storage."""
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    proxy = FaultProxy(server._api._httpd.server_port)
    environment.setenv("STORAGE_EMULATOR_HOST", proxy.address)

    def make_bucket(name: str) -> None:
        content = f'{{"name": "{name}"}}'.encode()
        request = urllib.request.Request(f"{proxy.address}/storage/v1/b", content, {"content-type": "application/json"})
        urllib.request.urlopen(request).close()

    yield ObjectServer("gs", proxy, make_bucket)
    proxy.shutdown()
    server.stop()


@pytest.fixture(scope="session")
def abfs(environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """Yield Azurite, Microsoft's emulator of Blob Storage, which comes from npm: docs/object-storage.md."""
    program = require("azurite-blob")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck", "--blobPort", str(port)]
    server = subprocess.Popen(command, cwd=tmp_path_factory.mktemp("azurite"))
    proxy = FaultProxy(port)
    endpoint = f"AccountName=devstoreaccount1;AccountKey={AZURE_KEY};BlobEndpoint={proxy.address}/devstoreaccount1;"
    environment.setenv("AZURE_STORAGE_CONNECTION_STRING", f"DefaultEndpointsProtocol=http;{endpoint}")
    _wait_for(f"http://127.0.0.1:{port}")

    def make_bucket(name: str) -> None:
        from azure.storage.blob import BlobServiceClient

        BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"]).create_container(name)

    yield ObjectServer("abfs", proxy, make_bucket)
    proxy.shutdown()
    server.kill()
    server.wait()


def _wait_for(address: str) -> None:
    """Wait until a server answers, with whatever status."""
    for _ in range(600):
        try:
            urllib.request.urlopen(address).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"nothing answers at {address}")


@pytest.fixture(params=["s3", "gs", "abfs"])
def server(request: pytest.FixtureRequest) -> ObjectServer:
    """Return each of the servers in turn."""
    found: ObjectServer = request.getfixturevalue(request.param)
    return found


def new_bucket(server: ObjectServer) -> str:
    """Return the address of a new bucket."""
    name = f"finrisk-{uuid4().hex[:12]}"
    server.make_bucket(name)
    return f"{server.scheme}://{name}"


@pytest.fixture
def bucket(server: ObjectServer) -> str:
    """Return the address of a new bucket of each of the servers."""
    return new_bucket(server)


@pytest.fixture
def s3_bucket(s3: ObjectServer) -> str:
    """Return the address of a new bucket of S3."""
    return new_bucket(s3)


@pytest.fixture
def gs_bucket(gs: ObjectServer) -> str:
    """Return the address of a new bucket of Cloud Storage."""
    return new_bucket(gs)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Return a folder with one file of random bytes."""
    (tmp_path / "file.bin").write_bytes(os.urandom(100_000))
    return tmp_path
