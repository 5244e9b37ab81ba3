"""Tests of the operator commands of a container: each is a module that `python -m` runs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(file.stem for file in (ROOT / "bento" / "cli").glob("*.py") if file.stem not in ("__init__", "common", "output"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_module_shows_its_help(command: str) -> None:
    module = f"bento.cli.{command}"
    shown = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.startswith(f"Usage: python -m {module}"), shown.stderr
