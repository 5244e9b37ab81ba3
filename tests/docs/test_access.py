"""Tests of docs/access.md and of the limits in docs/operations.md: tables and numbers are those that the service applies."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bento.access.roles import ROUTES
from bento.context import ROLES
from bento.problems import MAX_HEADER_BYTES, MAX_HEADERS
from bento.web.admission import MAX_BUFFERED_BYTES, MAX_REQUESTS
from bento.web.bounded_protocol import (
    LOG_INTERVAL_S,
    MAX_PIPELINED,
    PROBE_CONNECTIONS,
    PROBE_CONNECTIONS_PER_ADDRESS,
    ConnectionLimits,
)
from finrisk_assets.cli.main import cli
from tests.docs.access_page import PAGE, read_access_table


def test_the_table_of_the_page_is_that_of_the_code() -> None:
    assert read_access_table() == {(route.method, route.path): route.roles for route in ROUTES}
    assert len(ROUTES) == len(read_access_table()), "no route stands there twice"


def test_every_role_may_do_something_that_not_everybody_may() -> None:
    for role in ROLES:
        assert any(role in route.roles and route.roles != ROLES for route in ROUTES)


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path))
    commands = re.findall(r"^    \./finrisk (keys .*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(commands) == 4

    key_id = ""
    for command in commands:
        words = [word.replace("/run/secrets", str(tmp_path)) for word in shlex.split(command)]
        done = CliRunner().invoke(cli, [*words[:-1], key_id] if words[1] == "revoke" else words)
        assert done.exit_code == 0, f"{command}: {done.output}"
        key_id = key_id or done.stdout.split("_")[1]


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    page = PAGE.with_name("operations.md").read_text(encoding="utf-8")
    limits = ConnectionLimits()
    assert f"| requests in progress, of each worker | {MAX_REQUESTS} |" in page
    assert f"as many as are free for others: {MAX_REQUESTS // 2} where it is alone" in page
    assert f"| {MAX_BUFFERED_BYTES // 2**20} MiB; of one caller" in page
    assert f"`FINRISK_MAX_CONNECTIONS` ({limits.connections})" in page
    assert f"`FINRISK_MAX_CONNECTIONS_PER_ADDRESS` ({limits.connections_per_address})" in page
    assert f"within {limits.probe_s:g} second | {PROBE_CONNECTIONS}; of one address {PROBE_CONNECTIONS_PER_ADDRESS} |" in page
    assert f"| {MAX_HEADER_BYTES // 1024} KiB, {MAX_HEADERS} headers |" in page
    assert f"| seconds for the headers; for the body | {limits.header_s:g}; {limits.body_s:g} |" in page
    assert f"| seconds for which an answer may stay unread | {limits.write_s:g} |" in page
    assert f"| pipelined requests that wait | {MAX_PIPELINED} |" in page
    assert LOG_INTERVAL_S == 10 and "at most one line about them in ten seconds" in page


def test_the_flood_that_the_page_names_starts() -> None:
    assert "python -m benchmarks.flood" in PAGE.with_name("operations.md").read_text(encoding="utf-8")
    output = subprocess.run([sys.executable, "-m", "benchmarks.flood", "--help"], cwd=PAGE.parents[1], capture_output=True, text=True)
    assert "python -m benchmarks.flood" in output.stdout, output.stderr
