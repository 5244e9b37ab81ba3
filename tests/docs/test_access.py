"""docs/access.md: its table of roles is the one that the service goes by."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from bento.access.roles import OPEN, ROUTES
from bento.context import ROLES
from finrisk_assets.cli.main import cli

PAGE = Path(__file__).parents[2] / "docs" / "access.md"


def documented() -> dict[tuple[str, str], frozenset[str]]:
    """Method and path of every line of the page's table, with the roles that may call it."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    heads = [head.strip() for head in lines[0].strip("|").split("|")][1:]
    table = {}
    for line in lines[2:]:
        route, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        method, path = route.strip("`").split()
        assert set(cells) <= {"open", "yes", ""}, line
        roles = {head for head, cell in zip(heads, cells, strict=True) if cell == "yes"}
        table[method, path] = OPEN if set(cells) == {"open"} else frozenset(roles)
    return table


def test_the_table_of_the_page_is_that_of_the_code() -> None:
    assert documented() == {(route.method, route.path): route.roles for route in ROUTES}
    assert len(ROUTES) == len(documented()), "no route stands there twice"


def test_every_role_may_do_something_that_not_everybody_may() -> None:
    for role in ROLES:
        assert any(role in route.roles and route.roles != ROLES for route in ROUTES)


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path))
    commands = re.findall(r"^    finrisk (keys .*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(commands) == 4

    made = ""
    for command in commands:
        words = [word.replace("/run/secrets", str(tmp_path)) for word in shlex.split(command)]
        done = CliRunner().invoke(cli, [*words[:-1], made] if words[1] == "revoke" else words)
        assert done.exit_code == 0, f"{command}: {done.output}"
        made = made or done.stdout.split("_")[1]
