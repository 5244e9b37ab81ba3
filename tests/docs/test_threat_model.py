"""Tests of the threat model: every control names a test, and pytest collects every named test."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """Return the tests that pytest collects from the files that the page names, without their parameters."""
    files = sorted({file for file, _ in NAMED})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", "addopts=--import-mode=importlib", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return {line.split("[")[0] for line in done.stdout.splitlines() if "::" in line}


@pytest.mark.slow
@pytest.mark.parametrize(("file", "test"), NAMED, ids=[f"{file}::{test}" for file, test in NAMED])
def test_pytest_collects_the_test_that_a_control_names(collected: set[str], file: str, test: str) -> None:
    assert f"{file}::{test}" in collected


def rows(part: str) -> list[list[str]]:
    """Return the rows of the tables of a part of the page, without their headings."""
    lines = PAGE.split(f"\n## {part}\n")[1].split("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in cells if not row[0].startswith("--") and row[0] not in ("", "threat")]


def test_every_control_points_to_a_test() -> None:
    controls = rows("Controls")
    assert len(controls) > 20
    assert not [control for _, control, held in controls if "::" not in held]


@pytest.mark.parametrize("part", ["Assets", "Attackers"])
def test_every_asset_and_every_attacker_has_a_control(part: str) -> None:
    met = " ".join(threat for threat, _, _ in rows("Controls"))
    assert not [row[0] for row in rows(part) if not re.search(rf"\b{row[0]}\b", met)]
