"""docs/drift.md says what is: its table holds the stated rate, the command runs, and what it says is left out is left out."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from finrisk_assets.domains.registry import DOMAINS
from finrisk_assets.modelling.monitoring import drift, monitoring

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "drift.md").read_text(encoding="utf-8")


def test_the_printed_false_alarm_rate_is_the_stated_one_at_every_size() -> None:
    """5 % +- 1.5 for 1,000 windows of 200, 2,000 and 20,000 rows: of the check, and of each column alone."""
    table = PAGE[PAGE.index("False alarms in 1000 windows") :]
    sizes = re.search(r"rows in each window +([\d,]+) +([\d,]+) +([\d,]+)", table)
    assert sizes and [int(size.replace(",", "")) for size in sizes.groups()] == [200, 2_000, 20_000]
    rates = re.findall(r"^  (any of 8|\w+ \().*?((?: +\d+\.\d%){3})$", table, re.MULTILINE)
    assert len(rates) == 9
    for what, cells in rates:
        assert all(3.5 <= float(cell) <= 6.5 for cell in re.findall(r"[\d.]+(?=%)", cells)), what


def test_the_command_is_there() -> None:
    (command,) = re.findall(r"^python -m (benchmarks\.\w+)$", PAGE, re.MULTILINE)
    done = subprocess.run([sys.executable, "-m", command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "windows without drift" in done.stdout


@pytest.mark.parametrize("domain", [one for one in DOMAINS if not one.features_of], ids=lambda domain: domain.name)
def test_it_lists_what_each_domain_leaves_out(domain: object) -> None:
    title = domain.title.lower()  # type: ignore[attr-defined]
    listed = {name for line in re.findall(rf"^\| {title} \|.*$", PAGE, re.MULTILINE) for name in re.findall(r"`(\w+)`", line)}
    assert listed == set(domain.watch.by_construction)  # type: ignore[attr-defined]


def test_its_numbers_are_those_of_the_code() -> None:
    assert f"{drift.LEVEL:.0%}".replace("%", " %") in PAGE
    assert f"hold {monitoring.ENOUGH} customers" in PAGE and f"fewer than {monitoring.TOO_FEW} customers" in PAGE
    assert f"{monitoring.FEW_OUTCOMES} customers with the outcome" in PAGE and f"{monitoring.CERTAIN:.0%}".replace("%", " %") in PAGE
