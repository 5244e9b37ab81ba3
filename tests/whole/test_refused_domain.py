"""Tests of a ledger that is too small for one domain: the others are trained, built, served, shown, and scored every day."""

import sys
from pathlib import Path

import pytest
import yaml

from finrisk_assets.graph.stages.common import WITHOUT_CHAMPION
from tests.whole.operated import BIN, OperatedHome

pytestmark = pytest.mark.slow


def test_one_domain_that_cannot_be_judged_costs_only_what_needs_it(tmp_path: Path) -> None:
    variables = {"FINRISK_SOURCE": "simulator", "FINRISK_MAPPING": "", "FINRISK_SIM_CUSTOMERS": "60"}
    home = OperatedHome(tmp_path, "", {**variables, "DAGSTER_HOME": str(tmp_path / "home" / "simulator" / "dagster")})
    demo = home.run(sys.executable, "-m", "finrisk_assets.cli.main", "demo", "--stream-seconds", "0")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "– Loan default is left out: the validation window has" in demo.stdout
    assert "– Cashflow is left out: the test window has too few outcomes to judge" in demo.stdout
    assert "– Loan offers is left out: it needs the scores of Spending risk and Loan default\n" in demo.stdout
    decisions, _, figures = demo.stdout.partition("Models on their test windows")
    assert "\nTransaction anomaly  " in decisions and "\nTransaction anomaly  " in figures
    for title in ("Loan default", "Loan offers", "Spending risk", "Cashflow"):
        assert f"\n{title}  " not in demo.stdout
    bentoml = home.settings.bentoml_home
    (model,) = bentoml.glob("models/finrisk-transaction-anomaly/*/model.yaml")
    absent = yaml.safe_load(model.read_text())["metadata"]["absent"]
    assert absent == dict.fromkeys(("cashflow", "loan_default", "loan_offers", "spending_risk", "spending_risk_eight"), WITHOUT_CHAMPION)

    daily = home.run(str(BIN / "dagster"), "job", "execute", "-m", "finrisk_assets.definitions", "-j", "daily")
    assert daily.returncode == 0, daily.stderr[-4000:]
    assert f"Loan default is left out: {WITHOUT_CHAMPION}" in daily.stderr
    assert home.runs()[-1].status.value == "SUCCESS"
