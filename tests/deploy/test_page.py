"""Tests of docs/deployment.md: the files, commands, modules, settings and pages that it names exist."""

import importlib.util
import re
from pathlib import Path

import pytest

from finrisk_assets.cli.main import cli
from finrisk_assets.settings import PREFIX, Settings, fields

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\b((?:deploy|tests|bento)/[\w./-]*\w)", PAGE)) - {"deploy/secrets"}))
def test_every_file_is_there(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("words", sorted(set(re.findall(r"\bfinrisk ((?:[a-z]+[-a-z]*)(?: (?:create|upgrade|verify))?)\b(?=[ `])", PAGE))))
def test_every_command_is_there(words):
    command = cli
    for word in words.split():
        assert word in command.commands, words
        command = command.commands[word]


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([\w.]+)", PAGE))))
def test_every_module_is_there(module):
    assert importlib.util.find_spec(module) is not None


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
