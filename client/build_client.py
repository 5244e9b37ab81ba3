"""Generation of the client from the OpenAPI document of the code: `make client`.

openapi-python-client writes functions and types; `connection.py` and `contract.py` are copied beside them. Nothing is served.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from contract import hash_contract  # this folder's, which a script finds first

from bento.service import FinRisk
from bento.web.api_page.route_pages import complete_document
from bento.web.openapi import build_app, build_document

HERE = Path(__file__).parent
PACKAGE = "finrisk_client"
PARTS = ("connection.py", "contract.py")
INIT = '''"""Typed client of finrisk's API: functions in `finrisk_client.api`, requests and answers in `finrisk_client.models`."""

from .client import AuthenticatedClient, Client
from .connection import FinriskError, connect, expect, idempotency_key
from .contract import fetch_contract_hash, hash_contract

CONTRACT_SHA256 = "{contract}"
"""Hash of the routes and types that this client was generated from."""

__all__ = (
    "CONTRACT_SHA256", "AuthenticatedClient", "Client", "FinriskError", "connect", "expect", "fetch_contract_hash", "hash_contract",
    "idempotency_key",
)
'''


def read_document() -> dict[str, Any]:
    """Return the OpenAPI document of the code, without the examples that need models."""
    document = complete_document(build_document(build_app(), FinRisk, {}, {}), has_lock=False)
    for methods in document["paths"].values():
        for operation in methods.values():
            # FastAPI adds path and method to a route's name; the names are unique without them.
            operation["operationId"] = re.sub(r"_v1_.*$", "", operation["operationId"])
    return document


def generate_client(folder: Path) -> Path:
    """Write the package `finrisk_client` into a folder, in place of one that is there, and return it."""
    package, document = folder / PACKAGE, read_document()
    with tempfile.TemporaryDirectory() as part:
        source, config = Path(part) / "openapi.json", Path(part) / "config.yaml"
        source.write_text(json.dumps(document), encoding="utf-8")
        config.write_text("post_hooks: []\n", encoding="utf-8")
        command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--overwrite"]
        options = ["--path", str(source), "--config", str(config), "--output-path", str(package), "--fail-on-warning"]
        done = subprocess.run([*command, *options], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"no client was generated: {(done.stderr or done.stdout).strip()}")
    for name in PARTS:
        shutil.copyfile(HERE / name, package / name)
    (package / "py.typed").touch()
    (package / "__init__.py").write_text(INIT.format(contract=hash_contract(document)), encoding="utf-8")
    return package


if __name__ == "__main__":
    generate_client(HERE)
