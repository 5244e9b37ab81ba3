"""The threat model: every control names a test, and every test that it names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("file", "test"), NAMED, ids=[f"{file}::{test}" for file, test in NAMED])
def test_a_test_that_a_control_names_is_there(file: str, test: str) -> None:
    assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


def rows(part: str) -> list[list[str]]:
    """The rows of the tables of a part of the page, without their headings."""
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
