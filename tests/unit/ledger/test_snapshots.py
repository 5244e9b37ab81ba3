"""Tests of snapshots: named by their hash, never written twice, never returned damaged."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finrisk_assets.ledger import snapshots
from finrisk_assets.ledger.snapshots import SnapshotError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "features.parquet"
    pq.write_table(pa.table({"loan_id": ["1", "2"], "amount": [10.0, None]}), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "snapshots"


def test_a_file_is_kept_by_the_hash_of_its_bytes_and_restored(file: Path, folder: Path) -> None:
    snapshot = snapshots.store_snapshot(folder, file, table="features_loan_default", kept_by="finrisk-loan-default, bundle 0123")
    assert snapshot == hashlib.sha256(file.read_bytes()).hexdigest()
    assert snapshots.restore(folder, snapshot).read_bytes() == file.read_bytes()
    assert snapshots.restore(folder, snapshot[:8]) == folder / f"{snapshot}.parquet"
    (one,) = snapshots.list_snapshots(folder)
    assert (one.sha256, one.table, one.rows, one.size) == (snapshot, "features_loan_default", 2, file.stat().st_size)
    assert one.kept_by == "finrisk-loan-default, bundle 0123"


def test_the_same_bytes_are_kept_once_and_remember_who_was_first(file: Path, folder: Path) -> None:
    first = snapshots.store_snapshot(folder, file, table="raw_loans", kept_by="first")
    written = (folder / f"{first}.parquet").stat().st_mtime_ns
    assert snapshots.store_snapshot(folder, file, table="raw_loans", kept_by="second") == first
    assert (folder / f"{first}.parquet").stat().st_mtime_ns == written
    assert [one.kept_by for one in snapshots.list_snapshots(folder)] == ["first"]


@pytest.mark.parametrize("link", [False, True])
def test_a_kept_copy_does_not_change_when_the_file_is_replaced(file: Path, folder: Path, link: bool) -> None:
    snapshot = snapshots.store_snapshot(folder, file, link=link)
    file.unlink()
    pq.write_table(pa.table({"loan_id": ["3"]}), file)
    assert snapshots.hash_file(snapshots.restore(folder, snapshot)) == snapshot
    assert snapshots.store_snapshot(folder, file) != snapshot


def test_nothing_half_written_stays(file: Path, folder: Path) -> None:
    snapshot = snapshots.store_snapshot(folder, file)
    assert {path.name for path in folder.iterdir()} == {f"{snapshot}.parquet", f"{snapshot}.json"}


def test_a_damaged_snapshot_is_refused_with_what_to_do(file: Path, folder: Path) -> None:
    snapshot = snapshots.store_snapshot(folder, file)
    path = folder / f"{snapshot}.parquet"
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    with pytest.raises(SnapshotError, match=rf"{snapshot}.*is damaged.*put back a copy"):
        snapshots.restore(folder, snapshot)


def test_a_copy_that_was_cut_short_is_written_again(file: Path, folder: Path) -> None:
    snapshot = snapshots.store_snapshot(folder, file)
    path = folder / f"{snapshot}.parquet"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:20])
    assert snapshots.store_snapshot(folder, file) == snapshot
    assert snapshots.restore(folder, snapshot).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("sha256", "message"),
    [("0" * 64, "there is no snapshot 0000"), ("../../etc/passwd", "names no snapshot"), ("ab", "at least the first 6"), ("", "at least")],
)
def test_a_snapshot_that_is_not_there_is_said_so(folder: Path, sha256: str, message: str) -> None:
    with pytest.raises(SnapshotError, match=message):
        snapshots.restore(folder, sha256)


def test_a_file_that_is_not_there_cannot_be_kept(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"none\.parquet cannot be kept .*No such file"):
        snapshots.store_snapshot(folder, tmp_path / "none.parquet")


def test_pruning_removes_what_nothing_names(file: Path, folder: Path) -> None:
    named = snapshots.store_snapshot(folder, file)
    pq.write_table(pa.table({"loan_id": ["3"]}), file)
    unnamed = snapshots.store_snapshot(folder, file)
    assert [one.sha256 for one in snapshots.prune(folder, {named})] == [unnamed]
    assert [one.sha256 for one in snapshots.list_snapshots(folder)] == [named]
    assert len(list(folder.iterdir())) == 2
