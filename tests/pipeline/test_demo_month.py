"""Tests of the month of decisions that the book's pictures show."""

import os
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from bento.insight.activity import count_activity
from bento.store.session import open_store
from book.demo_month import DAYS
from tests.pipeline.conftest import Run

ROOT = Path(__file__).parents[2]
# BentoML knows one service per process, so that the month is decided in a process of its own.
SCRIPT = """
from book import demo_month
from finrisk_assets.settings import Settings
demo_month.PAYMENTS_A_DAY, demo_month.CUSTOMERS_A_DAY = 3, 1
print(demo_month.decide_month(Settings.from_environment()))
"""


def test_a_month_of_requests_is_decided_and_its_older_alerts_are_closed(run: Run, tmp_path: Path) -> None:
    settings = replace(run.settings, home=tmp_path / "home")
    shutil.copytree(run.settings.home, settings.home)
    environment = os.environ | {"FINRISK_HOME": str(settings.home), "FINRISK_SOURCE": settings.source}
    for arguments in (("-m", "finrisk_assets.cli.main", "load-history"), ("-c", SCRIPT)):
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    with closing(open_store(settings)) as store:
        activity = count_activity(store, DAYS + 1)
    assert sum(row.count for row in activity.decisions) == int(done.stdout)
    assert len({row.day for row in activity.decisions}) == DAYS
    assert {row.domain for row in activity.decisions} == {"transaction_anomaly", "loan_default", "spending_risk", "cashflow", "loan_offers"}
    closed = {row.disposition for row in activity.money if row.state == "closed"}
    assert "fraud" in closed and closed <= {"fraud", "genuine"}
