"""Tests of what a process leaves that dies in the middle of a change: the warehouse, an exported bundle, BentoML's stores."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ibis
import pytest

from finrisk_assets.graph import packaging
from finrisk_assets.graph.partitions import MonthRange, run_tags
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.modelling.training import model_registry
from finrisk_assets.settings import Settings

DIES = """
import os, sys
import ibis
from ibis.backends.duckdb import Backend
from finrisk_assets.graph.partitions import MonthRange
from finrisk_assets.graph.warehouse import Warehouse

warehouse, months = Warehouse(url=sys.argv[1]), MonthRange(*eval(sys.argv[2]))
execute = type(warehouse.connection.con).execute

class Dying:
    def __init__(self, connection): self.connection = connection
    def __getattr__(self, name): return getattr(self.connection, name)
    def execute(self, query, *arguments):
        if sys.argv[3] in str(query): os._exit(9)
        self.connection.execute(query, *arguments)
        return self

warehouse.connection.con = Dying(warehouse.connection.con)
rows = ibis.memtable({"key": ["c"], "at": ["2024-02-01"]}).mutate(at=ibis._.at.cast("timestamp"))
warehouse.store_months("validated_transactions", rows, "at", months)
"""
ALL, FEBRUARY = ("2024-01", "2024-03", True, True), ("2024-02", "2024-02", False, False)


@pytest.mark.parametrize(
    ("months", "statement"), [(ALL, "RENAME"), (FEBRUARY, "DELETE"), (FEBRUARY, 'INSERT INTO "analytics"."validated'), (FEBRUARY, "COMMIT")]
)
def test_a_table_is_as_before_when_the_process_dies_while_it_is_stored(tmp_path: Path, months: tuple[Any, ...], statement: str) -> None:
    url = f"duckdb://{tmp_path / 'warehouse.duckdb'}"
    prepare = """
import sys, ibis
from finrisk_assets.graph.warehouse import Warehouse
rows = ibis.memtable({"key": ["a", "b"], "at": ["2024-01-01", "2024-02-01"]}).mutate(at=ibis._.at.cast("timestamp"))
Warehouse(url=sys.argv[1]).store("validated_transactions", rows)
"""
    subprocess.run([sys.executable, "-c", prepare, url], check=True, timeout=120)
    done = subprocess.run([sys.executable, "-c", DIES, url, repr(months), statement], capture_output=True, text=True, timeout=120)
    assert done.returncode == 9, done.stderr
    warehouse = Warehouse(url=url)
    tables = {name for schema in ("staging", "analytics") for name in warehouse.connection.list_tables(database=schema)}
    assert tables == {"validated_transactions"}
    assert sorted(warehouse.table("validated_transactions").key.to_pyarrow().to_pylist()) == ["a", "b"]
    fresh = ibis.memtable({"key": ["c"], "at": ["2024-02-01"]}).mutate(at=ibis._.at.cast("timestamp"))
    warehouse.store_months("validated_transactions", fresh, "at", MonthRange(*FEBRUARY))
    assert sorted(warehouse.table("validated_transactions").key.to_pyarrow().to_pylist()) == ["a", "c"]


def test_an_exported_bundle_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.artifacts

    stored = tmp_path / "store" / "artifacts" / "bundle"
    stored.mkdir(parents=True)
    (stored / "bundle.json").write_text("new")
    (stored / "model.json").write_text("new")
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", lambda source: str(tmp_path / "store"))
    client: Any = SimpleNamespace(get_model_version_download_uri=lambda name, version: "")
    folder = tmp_path / "champions" / "bundle"
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_text("former")
    version = model_registry.RegisteredVersion("finrisk-cashflow", "1", "run")

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr("shutil.copytree", die)
        with pytest.raises(KeyboardInterrupt):
            model_registry.download_bundle(client, version, folder)
    assert [file.read_text() for file in folder.iterdir()] == ["former"]
    assert model_registry.download_bundle(client, version, folder) == folder
    assert sorted(file.name for file in folder.iterdir()) == ["bundle.json", "model.json"]
    assert [other.name for other in folder.parent.iterdir()] == ["bundle"]


def test_what_a_dead_build_left_in_bentomls_stores_is_removed(tmp_path: Path) -> None:
    half, whole = tmp_path / "models" / "finrisk-cashflow" / "half", tmp_path / "models" / "finrisk-cashflow" / "whole"
    for item in (half, whole):
        item.mkdir(parents=True)
        (item / "bundle.json").touch()

    with pytest.raises(KeyboardInterrupt), packaging.note_unfinished(tmp_path, half):
        (half.parent / "latest").touch()  # the name was not written yet
        raise KeyboardInterrupt
    packaging.remove_unfinished(tmp_path)
    assert not half.exists() and whole.exists() and not (half.parent / "latest").exists()
    with packaging.note_unfinished(tmp_path, half):
        half.mkdir()
        (half.parent / "latest").write_text("half")
    packaging.remove_unfinished(tmp_path)
    assert half.exists() and (half.parent / "latest").read_text() == "half"


def test_scores_of_a_domain_without_a_champion_are_left_out(tmp_path: Path) -> None:
    """The stages after them are left out too, and the run is a success: a daily must not fail because a domain was refused."""
    import dagster as dg

    from finrisk_assets.domains.cashflow.definition import CASHFLOW
    from finrisk_assets.graph.build import build_resources
    from finrisk_assets.graph.stages import scores
    from finrisk_assets.ledger import sources

    settings = Settings(home=tmp_path, sim_customers=20, sim_months=6)
    asset, _ = scores.build_assets(CASHFLOW, sources.load(settings), settings)
    result = dg.materialize([asset], resources=build_resources(settings), tags=run_tags("2024-06", "2024-06"))
    assert result.success
    assert result.get_asset_materialization_events() == []
