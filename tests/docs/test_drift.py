"""Tests of docs/drift.md: its numbers, its command, and its list of columns that the drift test leaves out."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.drift import COLUMNS, ROWS, null_window
from finrisk_assets.domains.registry import DOMAINS
from finrisk_assets.modelling.monitoring import drift, monitoring

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "drift.md").read_text(encoding="utf-8")


def test_windows_without_drift_alarm_at_the_stated_rate() -> None:
    """The check of the page's first figure, on columns with ties, a point mass and missing values: 400 windows of 200 rows."""
    rng = np.random.default_rng(11)
    missing = np.where(rng.random(5_000) < 0.2, np.nan, rng.standard_normal(5_000))
    pool = np.column_stack([rng.lognormal(size=5_000), rng.poisson(0.3, 5_000), rng.integers(0, 5, 5_000), missing]).astype(np.float64)
    names = ("amount", "count", "grade", "sometimes_missing")
    alarms = [any(column.is_drift for column in null_window(names, pool, 200, seed).columns) for seed in range(400)]
    noise = 3 * np.sqrt(drift.SIGNIFICANCE_LEVEL * (1 - drift.SIGNIFICANCE_LEVEL) / len(alarms))
    assert abs(np.mean(alarms) - drift.SIGNIFICANCE_LEVEL) < noise


def test_the_printed_table_has_the_sizes_the_columns_and_the_rate_of_the_code() -> None:
    """No printed rate differs from the code's level by more than three standard errors of the printed number of windows."""
    table = PAGE[PAGE.index("False alarms in ") :]
    heading = re.match(r"False alarms in ([\d,]+) windows without drift, per cent; stated (\d+)%, noise \+- (\d\.\d)%\n", table)
    sizes = re.search(r"rows in each window +([\d,]+) +([\d,]+) +([\d,]+)", table)
    assert heading and sizes
    windows, stated, noise = int(heading[1].replace(",", "")), int(heading[2]) / 100, heading[3]
    error = np.sqrt(drift.SIGNIFICANCE_LEVEL * (1 - drift.SIGNIFICANCE_LEVEL) / windows)
    assert (stated, noise) == (drift.SIGNIFICANCE_LEVEL, f"{100 * 1.96 * error:.1f}")
    assert tuple(int(size.replace(",", "")) for size in sizes.groups()) == ROWS
    lines = re.findall(r"^  (any of 8|\w+(?= \()).*?((?: +\d+\.\d%){3})$", table, re.MULTILINE)
    rates = {name: [float(rate) / 100 for rate in re.findall(r"\d+\.\d", printed)] for name, printed in lines}
    assert rates.keys() == {"any of 8", *COLUMNS}
    assert max(abs(rate - drift.SIGNIFICANCE_LEVEL) for column in rates.values() for rate in column) < 3 * error


def test_the_command_is_there() -> None:
    (command,) = re.findall(r"^python -m (benchmarks\.\w+)$", PAGE, re.MULTILINE)
    done = subprocess.run([sys.executable, "-m", command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "windows without drift" in done.stdout


@pytest.mark.parametrize("domain", [one for one in DOMAINS if not one.features_of], ids=lambda domain: domain.name)
def test_it_lists_what_each_domain_leaves_out(domain: object) -> None:
    title = domain.title.lower()  # type: ignore[attr-defined]
    listed = {name for line in re.findall(rf"^\| {title} \|.*$", PAGE, re.MULTILINE) for name in re.findall(r"`(\w+)`", line)}
    assert listed == set(domain.monitoring.by_construction)  # type: ignore[attr-defined]


def test_its_numbers_are_those_of_the_code() -> None:
    assert f"{drift.SIGNIFICANCE_LEVEL:.0%}".replace("%", " %") in PAGE
    assert f"hold {monitoring.ENOUGH_CUSTOMERS} customers" in PAGE and f"fewer than {monitoring.MIN_CUSTOMERS} customers" in PAGE
    assert (
        f"{monitoring.MIN_OUTCOMES} customers with the outcome" in PAGE and f"{monitoring.RECONCILE_LEVEL:.0%}".replace("%", " %") in PAGE
    )
