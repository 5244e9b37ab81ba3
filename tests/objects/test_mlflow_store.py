"""Tests of MLflow with its store on PostgreSQL and its artifacts in a bucket: what one process registers another reads."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from finrisk_assets.cli import local_servers, prerequisites
from finrisk_assets.graph.build import build_resources
from finrisk_assets.modelling.training import model_registry
from finrisk_assets.settings import Settings, SettingsError

DOMAIN = "loan_default"
READER = """
from finrisk_assets.graph.build import build_resources
from finrisk_assets.modelling.training import model_registry
from finrisk_assets.settings import Settings
tracking = build_resources(Settings.from_environment())["tracking"]
client = tracking.client()
version = model_registry.find_version(client, "loan_default", model_registry.CHALLENGER)
file = client.download_artifacts(version.run_id, "bundle/note.txt")
print(tracking.find_experiment(), version.version, client.get_run(version.run_id).data.metrics, open(file).read())
"""


@pytest.fixture
def settings(new_database: Callable[[], str], s3_bucket: str, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, mlflow_store_url=new_database(), mlflow_artifacts=f"{s3_bucket}/mlflow")


def test_another_process_reads_what_one_registered(settings: Settings, tmp_path: Path) -> None:
    tracking = build_resources(settings)["tracking"]
    with tracking.run("training", {"domain": DOMAIN}) as mlflow:
        run = mlflow.active_run().info
        mlflow.log_metric("auc", 0.75)
        mlflow.log_text("made once", "bundle/note.txt")
    client = tracking.client()
    client.create_registered_model(f"finrisk-{DOMAIN.replace('_', '-')}")
    made = client.create_model_version(f"finrisk-{DOMAIN.replace('_', '-')}", f"{run.artifact_uri}/bundle", run.run_id)
    client.set_registered_model_alias(made.name, model_registry.CHALLENGER, made.version)
    names = {"FINRISK_HOME": str(tmp_path / "elsewhere"), "FINRISK_MLFLOW_ARTIFACTS": settings.mlflow_artifacts}
    environment = os.environ | names | {"FINRISK_MLFLOW_STORE_URL": settings.mlflow_store_url, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", READER], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split(maxsplit=2) == [tracking.find_experiment(), "1", "{'auc': 0.75} made once\n"]
    assert run.artifact_uri.startswith(f"{settings.mlflow_artifacts}/simulator/")
    assert not (settings.root / "mlflow").exists(), "nothing is left to files"


def test_the_server_of_mlflow_has_both_and_shows_no_password(tmp_path: Path) -> None:
    url = "postgresql://mlflow:hush@db.example/mlflow"
    settings = Settings(home=tmp_path, mlflow_store_url=url, mlflow_artifacts="s3://bucket/mlflow")
    server = local_servers.mlflow_server(settings, 3003)
    assert "hush" not in " ".join(map(str, server.command)), "every user of the machine may read a command line"
    assert server.environment["MLFLOW_BACKEND_STORE_URI"] == "postgresql+psycopg://mlflow:hush@db.example/mlflow"
    assert server.environment["MLFLOW_DEFAULT_ARTIFACT_ROOT"] == "s3://bucket/mlflow/simulator"


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
