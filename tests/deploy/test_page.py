"""Tests of docs/deployment.md: the files and settings that it names exist, and the compose file starts with its commands."""

import re
import stat
import subprocess
from pathlib import Path

import pytest

from finrisk_assets.settings import PREFIX, Settings, fields

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\b((?:deploy|tests|bento)/[\w./-]*\w)", PAGE)) - {"deploy/secrets"}))
def test_every_file_is_there(path):
    assert (ROOT / path).exists()


def test_every_setting_is_one():
    known = {PREFIX + field.name.upper() for field in fields(Settings)}
    named = {name.removesuffix("_FILE") for name in re.findall(r"\bFINRISK_[A-Z_]+[A-Z]", PAGE)}

    assert named - known == set()


def test_the_first_lines_of_the_compose_file_are_the_page_s():
    head = (ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8").split("\nname:")[0]
    commands = [re.split(r"  +# ", line.removeprefix("#").strip())[0].strip() for line in head.splitlines() if line.startswith("#   ")]

    assert len(commands) == 5
    for command in commands:
        assert re.sub(r"IMAGE=\S+", "IMAGE=finrisk:1.0", command) in PAGE


def test_the_secrets_of_a_container_are_for_their_owner_alone(tmp_path):
    commands = [line.strip() for line in PAGE.splitlines() if line.startswith("    ") and "/dev/urandom" in line]
    for command in commands:
        subprocess.run(["bash", "-c", f"umask 022; {command}"], cwd=tmp_path, check=True)

    modes = {path.relative_to(tmp_path).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"data": 0o700, "secrets": 0o700, "secrets/master.key": 0o600}
