"""Test of a graph whose files are in one store and whose mirror is in another: what is mirrored restores another home, which serves it."""

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY
from finrisk_assets.graph.packaging import build_bento
from finrisk_assets.graph.stages.common import champion_folder
from finrisk_assets.ledger.mirror import CHAMPIONS, SNAPSHOTS, restore_all
from finrisk_assets.ledger.snapshots import list_snapshots
from finrisk_assets.objects.file_sets import MANIFEST, list_sets
from finrisk_assets.objects.object_store import list_folder, read_object, write_object
from finrisk_assets.settings import Settings
from tests.mapped.own_files import make_files
from tests.mapped.own_ledger import OwnLedger, run_graph


@pytest.fixture
def own(gs_bucket: str, s3_bucket: str, tmp_path: Path) -> OwnLedger:
    """Run the graph of packed files in Cloud Storage, with its mirror in S3."""
    files = make_files("overlapping_files")
    for name, content in files.files.items():
        write_object(gzip.compress(content), f"{gs_bucket}/in/{name}.gz")
    mapping = tmp_path / "own.yaml"
    mapping.write_text(files.mapping.replace("export-*.csv", f"'{gs_bucket}/in/export-*.csv.gz'"), "utf-8")
    return run_graph(Settings(home=tmp_path / "home", source="mapped", mapping=mapping, objects=f"{s3_bucket}/finrisk"), "marts")


@pytest.mark.slow
def test_a_home_that_is_restored_from_the_mirror_of_a_graph_serves_its_champion(own: OwnLedger, s3_bucket: str, tmp_path: Path) -> None:
    assert (own.failures, own.champions) == ([], {"transaction_anomaly"}), own.broken
    mirror = str(own.settings.mirror)
    hashes = {snapshot.table: snapshot.sha256 for snapshot in list_snapshots(own.settings.root / "snapshots")}
    assert hashes.keys() == {"raw_transactions", "features_transaction_anomaly"}
    expected = [f"{SNAPSHOTS}/{sha256}" for sha256 in hashes.values()]
    assert sorted(list_sets(mirror)) == sorted([f"{CHAMPIONS}/transaction_anomaly", *expected])
    marts = {stored.name: read_object(stored.address) for stored in list_folder(f"{mirror}/marts")}
    stated = json.loads(marts.pop(MANIFEST))["files"]
    assert {name: file["sha256"] for name, file in stated.items()} == {
        name: hashlib.sha256(file).hexdigest() for name, file in marts.items()
    }

    restored = OwnLedger(replace(own.settings, home=tmp_path / "restored"), [], [], own.warehouse)
    assert sorted(restore_all(restored.settings)) == sorted(list_sets(mirror))
    for file in (own.settings.root / "champions").rglob("*"):
        if file.is_file():
            assert (restored.settings.root / file.relative_to(own.settings.root)).read_bytes() == file.read_bytes()
    build_bento(restored.settings, {"transaction_anomaly": champion_folder(TRANSACTION_ANOMALY, restored.settings)})
    with restored.serve(with_history=False) as client:
        body = {"user_id": "unknown", "amount": 50_000, "merchant": "elsewhere", "timestamp": "2024-06-30T18:16:30Z"}
        answer = client.post("/v1/transactions", json=body).json()
        assert answer["model"]["version"] == own.bundle("transaction_anomaly").version
