"""Tests of the asset `marts` and of `finrisk export`, on a ledger that was run."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from finrisk_assets.cli.main import cli
from finrisk_assets.domains.registry import domains_of
from finrisk_assets.ledger import sources
from finrisk_assets.marts.mart_files import mart_folder
from tests.pipeline.conftest import Run


def test_the_graph_writes_the_marts_of_every_table_that_there_is(run: Run) -> None:
    (event,) = [event for event in run.result.get_asset_materialization_events() if event.asset_key.to_user_string() == "marts"]
    metadata = event.materialization.metadata
    assert metadata["identifiers"].value == "pseudonyms"
    (verdict,) = [check for check in run.result.get_asset_check_evaluations() if check.asset_key.to_user_string() == "marts"]
    assert verdict.passed
    folder = mart_folder(run.settings)
    for name in ("loans", "transactions"):
        assert metadata[f"rows_{name}"].value == pq.read_metadata(folder / f"{name}.parquet").num_rows
    scores = pq.read_table(folder / "scores.parquet", columns=["domain", "probability"]).to_pandas()
    counts = scores.groupby("domain").size().to_dict()
    for domain in domains_of(sources.load(run.settings)):
        assert counts[domain.name] == run.warehouse.table(f"scores_{domain.name}").count().to_pyarrow().as_py(), domain.name
    assert scores.probability.between(0, 1).all()


def test_the_command_writes_the_same_bytes_as_the_graph(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    shutil.copytree(run.settings.home, home)
    for name, value in {"HOME": home, "SIM_CUSTOMERS": run.settings.sim_customers, "SIM_MONTHS": run.settings.sim_months}.items():
        monkeypatch.setenv(f"FINRISK_{name}", str(value))
    done = CliRunner().invoke(cli, ["export", "--to", str(tmp_path / "reports"), "--json"])
    assert done.exit_code == 0, done.output
    written = {row["mart"]: row for row in json.loads(done.stdout)}
    assert {*written} >= {"scores", "loans", "transactions", "dictionary"}
    for name in ("scores", "loans", "transactions"):
        for ending in ("parquet", "csv"):
            exported, of_graph = (folder / f"{name}.{ending}" for folder in (tmp_path / "reports", mart_folder(run.settings)))
            assert exported.read_bytes() == of_graph.read_bytes(), exported.name


def test_without_a_ledger_the_command_says_what_to_run_and_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path / "home"))
    done = CliRunner().invoke(cli, ["export"])
    assert done.exit_code == 1 and "run `make demo` first" in done.output
    assert not (tmp_path / "home").exists()
