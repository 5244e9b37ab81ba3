"""Tests of MLflow with its store on PostgreSQL and its artifacts in a bucket: what one process registers another reads."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from finrisk_assets.cli import prerequisites
from finrisk_assets.graph.build import build_resources
from finrisk_assets.modelling.training import model_registry
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings, SettingsError
from tests.service.conftest import write_transaction_bundle

DOMAIN = "transaction_anomaly"
READER = """
import sys
from pathlib import Path
from finrisk_assets.graph.build import build_resources
from finrisk_assets.modelling.training import model_registry
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings
tracking = build_resources(Settings.from_environment())["tracking"]
client = tracking.client()
version = model_registry.find_version(client, "transaction_anomaly", model_registry.CHALLENGER)
bundle = Bundle.load(model_registry.download_bundle(client, version, Path(sys.argv[1]) / "bundle"))
note = model_registry.read_artifact(client, version, "note.txt").decode()
print(tracking.find_experiment(), version.version, bundle.version, client.get_run(version.run_id).data.metrics["auc"], note)
"""


@pytest.fixture
def settings(new_database: Callable[[], str], s3_bucket: str, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, mlflow_store_url=new_database(), mlflow_artifacts=f"{s3_bucket}/mlflow")


def test_another_process_reads_what_one_registered(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    write_transaction_bundle(tmp_path / "made" / "bundle")
    bundle = Bundle.load(tmp_path / "made" / "bundle")
    tracking = build_resources(settings)["tracking"]
    with tracking.run("training", {}) as mlflow:
        mlflow.log_metric("auc", 0.75)
        mlflow.log_text("made once", "note.txt")
        model_registry.register(mlflow, DOMAIN, tmp_path / "made" / "bundle", bundle.features, {"bundle": bundle.version})
        address = mlflow.get_artifact_uri()
    names = {"FINRISK_HOME": str(tmp_path / "elsewhere"), "FINRISK_MLFLOW_ARTIFACTS": settings.mlflow_artifacts}
    environment = os.environ | names | {"FINRISK_MLFLOW_STORE_URL": settings.mlflow_store_url, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", READER, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == f"{tracking.find_experiment()} 1 {bundle.version} 0.75 made once\n"
    assert address.startswith(f"{settings.mlflow_artifacts}/simulator/")
    assert not (settings.root / "mlflow").exists(), "nothing is left to files"
    elsewhere = replace(settings, mlflow_artifacts=settings.mlflow_artifacts.replace("mlflow", "elsewhere"))
    with build_resources(elsewhere)["tracking"].run("training", {}) as mlflow:
        assert mlflow.get_artifact_uri().startswith(f"{settings.mlflow_artifacts}/simulator/"), "an experiment keeps its address"


def test_a_database_that_is_away_is_told_in_one_sentence(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, mlflow_store_url="postgresql://mlflow:hush@127.0.0.1:1/mlflow")
    with pytest.raises(SettingsError, match="FINRISK_MLFLOW_STORE_URL cannot be opened") as refusal:
        prerequisites.check_settings(settings)
    assert "hush" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("mlflow_store_url", "mysql://mlflow:hush@db.example/mlflow"), ("mlflow_artifacts", "s3://key:hush@bucket/mlflow")],
)
def test_a_value_that_is_no_address_is_refused_without_repeating_it(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"FINRISK_{name.upper()} is no") as refusal:
        Settings(**{name: value})
    assert "hush" not in str(refusal.value)
