"""Tests of the links between the pages: from Dagster's and MLflow's metadata to the console and to each other."""

from pathlib import Path

import pytest

from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.graph.build import build_resources
from finrisk_assets.graph.resources import Tracking
from finrisk_assets.graph.stages.common import artifact_link, console_link, run_link
from finrisk_assets.graph.stages.model import list_links
from finrisk_assets.settings import Settings


def tracking(**fields: str) -> Tracking:
    return Tracking(**({"uri": "sqlite:///nowhere.db", "artifacts": "", "experiment": "e"} | fields))


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ({}, ""),
        ({"page": "http://127.0.0.1:3003/"}, "http://127.0.0.1:3003"),
        ({"uri": "https://writer:secret@mlflow.example/"}, "https://mlflow.example"),
        ({"uri": "https://mlflow.example", "page": "https://pages.example"}, "https://pages.example"),
    ],
)
def test_the_address_of_mlflow_is_the_pages_or_the_servers_and_never_has_a_password(fields: dict[str, str], address: str) -> None:
    assert tracking(**fields).address == address


def test_the_command_that_starts_mlflow_never_has_a_password() -> None:
    assert tracking(uri="postgresql://writer:secret@db.example/mlflow").store == "postgresql://db.example/mlflow"


def test_a_run_and_its_files_open_in_mlflow_where_its_address_is_known(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, mlflow_url="http://127.0.0.1:3003")
    known = build_resources(settings)["tracking"]
    client = known.client()
    experiment = known.find_experiment()
    run = client.create_run(experiment).info.run_id
    page = f"http://127.0.0.1:3003/#/experiments/{experiment}/runs/{run}"
    assert run_link(known, run).value == page
    assert artifact_link(known, run, "pack/pack.html", tmp_path).value == f"{page}/artifactPath/pack/pack.html"
    unknown = build_resources(Settings(home=tmp_path))["tracking"]
    assert "mlflow ui" in str(run_link(unknown, run).value)
    assert artifact_link(unknown, run, "pack/pack.html", tmp_path).value == str(tmp_path)


def test_a_model_links_to_the_console_and_its_run_to_both_where_they_are_known() -> None:
    settings = Settings(console_url="http://127.0.0.1:3001/console", dagster_url="http://127.0.0.1:3002/")
    assert console_link(settings, LOAN_DEFAULT, "drift")["console"].value == "http://127.0.0.1:3001/console/models/loan_default#drift"
    note = list_links(settings, LOAN_DEFAULT)
    assert "[Console](http://127.0.0.1:3001/console/models/loan_default)" in note
    assert "[Dagster](http://127.0.0.1:3002/assets/model_loan_default)" in note
    assert console_link(Settings(), LOAN_DEFAULT) == {} and list_links(Settings(), LOAN_DEFAULT) == ""
