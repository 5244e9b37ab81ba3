"""The demonstration with the warehouse on PostgreSQL: the command of `make demo`, to decisions of the served Bento."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from finrisk_assets.domains.registry import DOMAINS
from finrisk_assets.graph.warehouse import Warehouse, count

LEDGER = {"FINRISK_SOURCE": "simulator", "FINRISK_SIM_CUSTOMERS": "300", "FINRISK_SIM_MONTHS": "18"}
"""A ledger on which every domain has a champion."""


def test_the_demonstration_ends_in_served_decisions_and_another_process_finds_the_tables(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    url = new_database()
    variables = LEDGER | {"FINRISK_HOME": str(tmp_path), "FINRISK_WAREHOUSE_URL": url, "OMP_WAIT_POLICY": "PASSIVE"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FINRISK_", "DAGSTER_"))} | variables
    command = [sys.executable, "-W", "ignore", "-m", "finrisk_assets.cli.main", "demo", "--stream-seconds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    decisions = done.stdout.partition("Decisions of the served Bento")[2].partition("\nDone in ")[0]
    titles = [domain.title for domain in DOMAINS if not domain.features_of]
    assert [title for title in titles if f"\n{title}" not in decisions] == []
    assert not list(tmp_path.rglob("*.duckdb")), "no table is kept in a file"
    warehouse = Warehouse(url=url)
    assert [domain.name for domain in DOMAINS if not count(warehouse.table(f"scores_{domain.name}"))] == []
