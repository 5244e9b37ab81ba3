"""Tests of docs/access.md: its table of roles is the one that the service applies."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from bento.access.roles import ROUTES
from bento.context import ROLES
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
    commands = re.findall(r"^    finrisk (keys .*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(commands) == 4

    key_id = ""
    for command in commands:
        words = [word.replace("/run/secrets", str(tmp_path)) for word in shlex.split(command)]
        done = CliRunner().invoke(cli, [*words[:-1], key_id] if words[1] == "revoke" else words)
        assert done.exit_code == 0, f"{command}: {done.output}"
        key_id = key_id or done.stdout.split("_")[1]
