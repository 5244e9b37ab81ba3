"""Tests of a ledger that is too small for some domains: these are left out with a line, and the others are promoted and packed."""

from datetime import datetime
from pathlib import Path

import pytest

from finrisk_assets.cli import demo, main
from finrisk_assets.domains.registry import DOMAINS
from finrisk_assets.graph.stages.common import champion_folder
from finrisk_assets.settings import Settings


def test_a_ledger_of_sixty_people_ends_well_without_the_domains_that_cannot_be_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(home=tmp_path, sim_customers=60, sim_months=18, as_of=datetime(2025, 7, 1))
    main.prepare_dagster(settings)
    assert demo.run(settings, serve=False) == 0
    printed = capsys.readouterr().out
    served = {domain.name for domain in DOMAINS if champion_folder(domain, settings).is_dir()}
    assert "Spending risk is left out: the test window has too few outcomes to judge" in printed
    assert "transaction_anomaly" in served
    assert "spending_risk" not in served
    assert (settings.bentoml_home / "bentos" / "finrisk" / "latest").is_file()
