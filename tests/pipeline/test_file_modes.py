"""Tests of file modes: what holds a person's data is for its owner alone, under the usual umask of a shell too."""

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from bento.store.session import Store
from finrisk_assets.cli.main import cli
from finrisk_assets.graph import automation
from finrisk_assets.graph.build import build_definitions
from finrisk_assets.private_files import close_folder, make_private_folder
from finrisk_assets.settings import Settings
from tests.service.databases import store_at

SHELL_UMASK = 0o022
LEDGER = [f"{layer}_{table}" for table in ("customers", "accounts", "transactions") for layer in ("raw", "quarantine", "validated")]


@pytest.fixture
def shell_umask() -> Iterator[None]:
    before = os.umask(SHELL_UMASK)
    yield
    os.umask(before)


def list_open_paths(root: Path) -> dict[str, str]:
    """Return each file and folder below a folder that others may use, with its mode."""
    modes = {path: path.lstat().st_mode for path in [root, *root.rglob("*")] if not path.is_symlink()}
    return {str(path.relative_to(root.parent)): f"{mode & 0o777:o}" for path, mode in modes.items() if mode & 0o077}


def test_what_a_run_writes_is_for_its_owner_alone(tmp_path: Path, shell_umask: None) -> None:
    settings = Settings(home=tmp_path / "home", sim_customers=60, sim_months=14, as_of=datetime(2025, 7, 1))
    (settings.root / "landing").mkdir(parents=True)  # as an earlier version left it
    with dg.DagsterInstance.ephemeral() as instance:
        job = build_definitions(settings).resolve_job_def(automation.EVERYTHING)
        result = job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(name) for name in LEDGER])
    assert result.success
    for command in ("load-history", "load-feedback"):
        os.umask(SHELL_UMASK)
        done = CliRunner().invoke(cli, [command], env={"FINRISK_HOME": str(settings.home), "FINRISK_AS_OF": "2025-07-01"})
        assert done.exit_code == 0, done.output

    files = [path for path in settings.root.rglob("*") if path.is_file()]
    assert {".duckdb", ".parquet", ".sqlite", ".key"} <= {path.suffix for path in files}
    assert list_open_paths(settings.root).keys() <= {f"{settings.source}/landing"}, "its folder is closed"


def test_a_served_store_is_for_its_owner_alone(tmp_path: Path, shell_umask: None) -> None:
    store: Store = store_at(tmp_path / "home" / "service" / "store.sqlite")
    with store.writing():
        store.audit("one")
    assert {path.name for path in (tmp_path / "home" / "service").iterdir()} >= {"store.sqlite", "store.sqlite-wal"}
    assert list_open_paths(tmp_path / "home") == {}
    store.close()


def test_only_missing_folders_are_made_private(tmp_path: Path, shell_umask: None) -> None:
    tmp_path.chmod(0o755)
    make_private_folder(tmp_path / "one" / "two")
    assert [f"{path.stat().st_mode & 0o777:o}" for path in (tmp_path, tmp_path / "one", tmp_path / "one" / "two")] == ["755", "700", "700"]


def test_a_folder_that_was_made_for_everybody_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    close_folder(tmp_path)
    close_folder(tmp_path / "absent")
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "absent").exists()
