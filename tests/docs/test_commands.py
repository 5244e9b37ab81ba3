"""Tests of every page: the commands and modules that it names exist."""

import importlib.util
import re
from pathlib import Path

import click
import pytest

from finrisk_assets.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
}
COMMAND = re.compile(r"(?:`|\$\(|^[ \t]*)(?:\./)?finrisk ([a-z][-a-z]*(?: [a-z][-a-z]*)?)(?![-\w])", re.MULTILINE)
"""A command at the start of a line, of code or of a substitution: `finrisk` and its first two words."""
MODULE = re.compile(r"python -m ((?:bento|benchmarks|finrisk_assets|schemas)[\w.]*\w)")


def named(pattern):
    """Return each page with each text that the pattern finds in it; the change log also names what an older version had."""
    return sorted({(page, found) for page, text in PAGES.items() if page != "CHANGELOG.md" for found in pattern.findall(text)})


@pytest.mark.parametrize(("page", "words"), named(COMMAND))
def test_every_command_exists(page, words):
    command = cli
    for word in words.split():
        if not isinstance(command, click.Group):
            return  # the word is an argument
        assert word in command.commands, f"{page} names `finrisk {words}`"
        command = command.commands[word]


@pytest.mark.parametrize(("page", "module"), named(MODULE))
def test_every_module_exists(page, module):
    assert importlib.util.find_spec(module) is not None, f"{page} names python -m {module}"


def test_a_page_that_names_a_missing_command_would_be_seen():
    assert COMMAND.findall('    eval "$(finrisk environment)"') == ["environment"]
    assert COMMAND.findall("    finrisk store upgrade    # once") == ["store upgrade"]
    assert COMMAND.findall("    ./finrisk store upgrade    # once") == ["store upgrade"]
