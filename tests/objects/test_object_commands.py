"""Tests of the commands of docs/object-storage.md: each is executed as it is written, against a server of its protocol on loopback."""

import json
import re
import shlex
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from finrisk_assets.cli import prerequisites
from finrisk_assets.cli.main import cli
from finrisk_assets.graph import automation, build, partitions
from finrisk_assets.ledger import snapshots
from finrisk_assets.objects.file_sets import MANIFEST
from finrisk_assets.objects.object_store import list_below, list_folder, read_object, write_object
from finrisk_assets.operations import reproduce
from finrisk_assets.settings import Settings
from tests.objects.object_servers import LOST, ObjectServer
from tests.objects.test_object_sources import content, shop_settings

PAGE = (Path(__file__).parents[2] / "docs" / "object-storage.md").read_text("utf-8")
COMMANDS = ("import", "check", "export", "mirror push", "mirror restore")


@pytest.fixture
def settings(s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return a ledger of the shop whose payments are in a bucket, landed and validated, as the commands find it in the environment."""
    for month in (1, 2):
        write_object(content(month), f"{s3_bucket}/exports/{month}.csv")
    settings = shop_settings(tmp_path, f"{s3_bucket}/exports/*.csv")
    with dg.DagsterInstance.ephemeral() as instance:
        job = build.build_definitions(settings).resolve_job_def(automation.LATE)
        assert job.execute_in_process(instance=instance, tags=partitions.run_tags("2024-01", "2024-10")).success
    values = {"HOME": settings.home, "SOURCE": "mapped", "MAPPING": settings.mapping, "OBJECTS": f"{s3_bucket}/finrisk"}
    for name, value in {**values, "AS_OF": "2024-11-01T00:00:00"}.items():
        monkeypatch.setenv(f"FINRISK_{name}", str(value))
    monkeypatch.chdir(tmp_path)
    champion = settings.root / "champions" / "transaction_anomaly"
    (champion / "bundle").mkdir(parents=True)
    (champion / "bundle" / "bundle.json").write_bytes(b"{}")
    (champion / "figures.json").write_bytes(b"[]")
    return settings


def written(command: str) -> str:
    (line,) = re.findall(rf"^\./finrisk ({command}.*)$", PAGE, re.MULTILINE)
    return str(line)


def run(command: str, bucket: str) -> Result:
    done = CliRunner().invoke(cli, shlex.split(command.replace("s3://bucket", bucket)))
    assert isinstance(done.exception, SystemExit | None), done.exception
    return done


def files_of(root: Path) -> dict[str, bytes]:
    folders = (root / name for name in ("snapshots", "champions"))
    return {file.relative_to(root).as_posix(): file.read_bytes() for folder in folders for file in folder.rglob("*") if file.is_file()}


def test_the_commands_of_the_page_do_what_it_says(
    settings: Settings, s3: ObjectServer, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(re.findall(r"^\./finrisk ", PAGE, re.MULTILINE)) == len(COMMANDS)
    for command in ("import", "check"):
        done = run(written(command), s3_bucket)
        assert done.exit_code == 0 and "24" in done.output, done.output

    # A bucket that is lost in the middle: one sentence, and the next export is whole.
    with s3.proxy.watched(lambda method, path: LOST if method == "PUT" and "/reports/transactions.csv" in path else None):
        lost = run(written("export"), s3_bucket)
    assert lost.exit_code == 1
    assert re.fullmatch(r"Error: s3://\S+/reports/transactions.csv cannot be written: [^\n]+\n", lost.output), lost.output
    for _ in range(2):
        done = run(written("export"), s3_bucket)
        assert done.exit_code == 0 and f"They are in {s3_bucket}/reports" in done.output, done.output
    exported = {stored.name: read_object(stored.address) for stored in list_folder(f"{s3_bucket}/reports")}
    assert set(json.loads(exported.pop(MANIFEST))["files"]) == set(exported)
    assert run("export --to here", s3_bucket).exit_code == 0
    here = {file.name: file.read_bytes() for file in (tmp_path / "here").iterdir()}
    assert exported.keys() == here.keys()
    # A Tableau extract holds the time at which it was written.
    assert [name for name in here if not name.endswith(".hyper") and exported[name] != here[name]] == []
    assert not list(settings.root.glob(".export-*"))

    assert (settings.root / "pseudonyms.key").is_file()
    assert not [stored.address for stored in list_below(s3_bucket) if stored.name == "pseudonyms.key"]

    done = run(written("mirror push"), s3_bucket)
    assert done.output == f"2 snapshots and champions are in {s3_bucket}/finrisk/shop\n"
    stored = files_of(settings.root)
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path / "empty"))
    for _ in range(2):
        done = run(written("mirror restore"), s3_bucket)
        assert done.exit_code == 0, done.output
    root = tmp_path / "empty" / "shop"
    assert files_of(root) == stored and len(stored) == 4
    (snapshot,) = snapshots.list_snapshots(root / "snapshots")
    assert (snapshot.table, snapshot.rows) == ("raw_transactions", 24)
    assert snapshots.restore(root / "snapshots", snapshot.sha256).is_file()

    # No version names the snapshot, for there is no registry: it goes here, and stays in the bucket.
    monkeypatch.setattr(prerequisites, "require_registry", lambda settings: None)
    monkeypatch.setattr(reproduce, "named_snapshots", lambda settings: {})
    mirrored = list_below(f"{s3_bucket}/finrisk")
    assert run("snapshots prune --yes", s3_bucket).exit_code == 0 and not snapshots.list_snapshots(root / "snapshots")
    assert list_below(f"{s3_bucket}/finrisk") == mirrored

    monkeypatch.setenv("FINRISK_OBJECTS", f"{s3_bucket}/elsewhere")
    done = run("mirror restore", s3_bucket)
    assert (done.exit_code, done.output) == (
        1, f"Error: there is nothing to restore in {s3_bucket}/elsewhere/shop: check FINRISK_OBJECTS and FINRISK_SOURCE\n",
    )  # fmt: skip
    monkeypatch.delenv("FINRISK_OBJECTS")
    assert "no bucket is named: set FINRISK_OBJECTS" in run("mirror push", s3_bucket).output
