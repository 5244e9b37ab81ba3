"""Tests of `make help`: it names every target."""

import re
import subprocess
from pathlib import Path

from tests.conftest import require

ROOT = Path(__file__).parents[2]


def test_help_names_every_target() -> None:
    require("make")
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert targets
    output = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in output.splitlines()] == targets[1].split()
