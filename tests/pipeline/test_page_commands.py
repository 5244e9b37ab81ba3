"""Tests of the commands in README and docs: each is executed as it is written, on a copy of a trained ledger."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from finrisk_assets.cli.main import cli
from finrisk_assets.policy.policy_file import DEFAULT_POLICY
from tests.pipeline.conftest import Run

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
COMMAND = re.compile(r"^ *\./finrisk (.+)$", re.MULTILINE)
ELSEWHERE = {
    "reproduce": "test_reproduce.py",
    "validate-pack": "test_pack.py",
    "serve": "../whole/test_readme.py",
    "import": "../docs/test_sources.py",
    "check": "../contracts/test_check.py",
    "console": "../console/test_own_process.py",
    "stream": "../stream/test_simulate.py",
    "simulate": "../stream/test_simulate.py",
    "mirror": "../objects/test_object_commands.py",
}
"""Commands that take long or need more than a ledger, and the file that executes them as the pages write them."""

IN_A_BUCKET = re.compile(r"\b(s3|gs|abfs)://")
"""Commands that need a bucket: test_object_commands.py executes them against a server on loopback."""

REFUSED = {
    "audit show --person 4711": "no such customer",
    "runs clear 1a2b3c4d": "no unfinished run begins with '1a2b3c4d'",
    'rollback loan_default --reason "complaints from branch offices"': "is its first champion",
}
"""Commands that a fresh ledger refuses, and what they say."""


def written_commands() -> list[str]:
    """Return every command of the pages once, without its comment: those of the service last, because a key closes it."""
    commands = dict.fromkeys(re.sub(r"\s+#.*", "", command).strip() for text in PAGES.values() for command in COMMAND.findall(text))
    return sorted(commands, key=lambda command: (command.startswith(("keyring", "keys")), command.startswith("keys revoke")))


def invoke(command: str, folder: Path) -> Result:
    """Execute a command of a page in a folder; a redirection of a shell is followed."""
    line, _, target = command.partition(">>")
    done = CliRunner().invoke(cli, shlex.split(line))
    if target:
        (folder / target.strip()).write_text(done.stdout)
    return done


@pytest.fixture(scope="module")
def folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder to execute in: with a copy of the ledger, a loaded store, and the files that the pages name."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(run.settings.home, folder / "home")
    shutil.copy(DEFAULT_POLICY, folder / "bank.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FINRISK_HOME", str(folder / "home"))
        patch.setenv("FINRISK_SOURCE", run.settings.source)
        patch.setenv("FINRISK_SIM_CUSTOMERS", str(run.settings.sim_customers))
        patch.setenv("FINRISK_SIM_MONTHS", str(run.settings.sim_months))
        loaded = invoke("load-history", folder)
        assert loaded.exit_code == 0, loaded.output
        # An export is recorded: there is something to put a checkpoint on.
        for command in ("people export 1 --to first.json", "audit checkpoint >> checkpoints.txt"):
            done = invoke(command, folder)
            assert done.exit_code == 0, done.output
        yield folder


def fill_in(command: str, folder: Path) -> str:
    """Replace what a reader replaces: ids, and folders that only an administrator writes."""
    if command.startswith("keys revoke"):
        listed = json.loads(CliRunner().invoke(cli, ["keys", "list", "--json"]).stdout)
        return f"keys revoke {listed['keys'][0]['id']}"
    if "SHA" in command:
        listed = CliRunner().invoke(cli, ["snapshots", "list", "--json"]).stdout
        return command.replace("SHA", re.findall(r'"sha256": "([0-9a-f]{64})"', listed)[0])
    return command.replace("/etc/finrisk", str(folder)).replace("/run/secrets", str(folder)).replace("FILE", "new.key")


@pytest.mark.parametrize("command", written_commands())
def test_every_command_of_the_pages_does_what_it_says(command: str, folder: Path) -> None:
    other = "../objects/test_object_commands.py" if IN_A_BUCKET.search(command) else ELSEWHERE.get(command.split()[0])
    if other is not None:
        text = (Path(__file__).parent / other).read_text(encoding="utf-8")
        assert command.split()[0] in text
        return
    done = invoke(fill_in(command, folder), folder)
    assert isinstance(done.exception, SystemExit | None), done.exception
    if command in REFUSED:
        assert done.exit_code == 1 and REFUSED[command] in done.output, done.output
    else:
        assert done.exit_code == 0, done.output


def test_no_page_writes_a_command_that_is_not_on_the_path() -> None:
    """The environment is not on the PATH after `make demo`: a command in a block of code begins with the checkout's launcher."""
    for name, text in PAGES.items():
        assert not re.findall(r"^ *finrisk [a-z].*$", text, re.MULTILINE), name
