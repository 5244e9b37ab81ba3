"""Tests of what Dagster shows and stores of the resources: no URL with a password."""

from pathlib import Path

from dagster._core.remote_representation.external_data import JobDataSnap, RepositorySnap
from dagster._serdes import serialize_value

from finrisk_assets.graph import automation
from finrisk_assets.graph.build import build_definitions, build_resources
from finrisk_assets.settings import Settings

PASSWORD = "hush-4711"


def test_no_password_reaches_dagsters_pages_or_tables(tmp_path: Path) -> None:
    url = f"postgres://finrisk:{PASSWORD}@db.example/risk"
    settings = Settings(home=tmp_path, warehouse_url=url, mlflow_store_url=url)
    repository = build_definitions(settings).get_repository_def()
    pages = serialize_value(RepositorySnap.from_def(repository))
    job = serialize_value(JobDataSnap.from_job_def(repository.get_job(automation.EVERYTHING), include_parent_snapshot=True))
    assert '"warehouse"' in pages and '"tracking"' in pages
    assert PASSWORD not in pages + job + repr(build_resources(settings)) + repr(settings)
    assert PASSWORD in build_resources(settings)["warehouse"].url + settings.tracking_uri
