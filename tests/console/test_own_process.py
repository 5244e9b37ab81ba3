"""Tests of the command, of what the Bento carries, and of the bundle of charts."""

import gzip
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from pathspec import PathSpec
from starlette.testclient import TestClient

from bento.cli.console_command import console
from bento.console.api_client import ApiClient
from bento.console.console_app import build_console
from bento.console.presentation import vega_bundle

ROOT = Path(__file__).parents[2]


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = CliRunner().invoke(console, ["--port", str(taken.getsockname()[1])])
    assert done.exit_code == 1 and done.output.count("\n") == 1 and "choose another --port" in done.output


def test_an_address_that_is_none_is_one_sentence() -> None:
    done = CliRunner().invoke(console, ["--api", "localhost:3000"])
    assert done.exit_code == 2 and "http://127.0.0.1:3000" in done.output


def test_without_its_api_a_page_says_what_to_start() -> None:
    with TestClient(build_console(ApiClient("http://127.0.0.1:9"))) as client:
        page = client.get("/console/overview")
        assert page.status_code == 502 and "finrisk serve" in page.text
        assert client.get("/console/sign-in?out=1").status_code == 200


def test_what_is_no_api_is_told_so() -> None:
    async def other(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"<html>"})

    with TestClient(build_console(ApiClient("http://localhost", other))) as client:
        page = client.get("/console/overview")
        assert page.status_code == 502 and "not finrisk" in page.text


def test_the_bento_carries_every_file_of_the_console() -> None:
    patterns = yaml.safe_load((ROOT / "bentofile.yaml").read_text(encoding="utf-8"))["include"]
    included = PathSpec.from_lines("gitwildmatch", patterns)
    files = [file.relative_to(ROOT).as_posix() for file in (ROOT / "bento" / "console").rglob("*") if file.suffix not in ("", ".pyc")]
    assert len(files) > 30 and [file for file in files if not included.match_file(file)] == []


def test_the_bundle_of_charts_is_the_same_bytes_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippets: list[str] = []

    def bundle(snippet: str) -> str:
        snippets.append(snippet)
        return "vega" * 1000

    monkeypatch.setattr(vega_bundle, "BUNDLE", tmp_path / "static" / "vega.js.gz")
    monkeypatch.setitem(__import__("sys").modules, "vl_convert", SimpleNamespace(javascript_bundle=bundle))
    assert not vega_bundle.has_bundle()
    vega_bundle.make_bundle()
    first = vega_bundle.BUNDLE.read_bytes()
    vega_bundle.make_bundle()
    assert vega_bundle.has_bundle() and vega_bundle.BUNDLE.read_bytes() == first
    assert gzip.decompress(first) == b"vega" * 1000 and snippets == ["window.vegaEmbed = vegaEmbed;"] * 2
