"""Tests of the numbers and commands in docs/leakage.md and docs/service.md."""

import subprocess
import sys
from pathlib import Path

import pytest

from bento.decisions.shadow import MAX_QUEUED
from bento.store.shadow_scores import MAX_SHADOW_SCORES
from finrisk_assets.features.recent_events import MAX_CACHED_EVENTS
from finrisk_assets.graph.stages import leakage
from finrisk_assets.modelling.evaluation.leakage import ALPHA, LARGEST_SAMPLE

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    return " ".join((ROOT / "docs" / name).read_text("utf-8").split())


def test_the_page_on_leakage_states_the_size_of_the_sample() -> None:
    text = page("leakage.md")
    assert f"{leakage.CELLS:,} values" in text
    assert f"{LARGEST_SAMPLE:,} rows at most" in text
    assert f"enough among {leakage.MAX_ROWS_READ:,}" in text
    assert f"for {leakage.REPLAYED_CUSTOMERS} customers" in text
    assert f"at most {ALPHA:.0%}".replace("%", " %") in text
    assert round(leakage.CELLS / 53, -2) == 1_900, "rows of 53 features"


def test_the_page_on_the_service_states_the_bounds_of_the_shadow() -> None:
    assert f"the newest {MAX_SHADOW_SCORES:,} of each domain" in page("service.md")
    assert f"more than {MAX_QUEUED:,} requests wait" in page("service.md")


def test_the_page_on_the_service_states_the_bound_of_recent_events() -> None:
    assert f"at most {MAX_CACHED_EVENTS:,} events" in " ".join(page("service.md").split())


@pytest.mark.parametrize("module", ["benchmarks.micro_batches", "benchmarks.row_counts"])
def test_the_benchmarks_of_performance_start(module: str) -> None:
    assert f"`python -m {module}`" in page("service.md")
    output = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"python -m {module}" in " ".join(output.split())


@pytest.mark.parametrize(("name", "module"), [("leakage.md", "benchmarks.leakage"), ("service.md", "benchmarks.shadow")])
def test_the_benchmark_that_a_page_names_starts(name: str, module: str) -> None:
    assert f"python -m {module} .finrisk/simulator" in page(name)
    output = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"python -m {module}" in " ".join(output.split())
